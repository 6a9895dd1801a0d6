/* SPDX-License-Identifier: Apache-2.0 */
/* A request from its being sent to its answer; not in a callback. */
#pragma once

#include "bus/requests.h"

/** bb_request_run() - send @msg, whose corr or token is set here, and wait; caller frees @request->value. */
BB_MUST_CHECK int
bb_request_run(struct bb_bus *bus, struct bb_msg *msg, struct bb_request *request, uint64_t deadline);

/** bb_request_json() - run @msg and give its result as JSON for the caller to free(). Takes the lock. */
BB_MUST_CHECK int bb_request_json(struct bb_bus *bus, struct bb_msg *msg, int timeout_ms, char **ret_json);

/** bb_request_done() - the same for a result that says nothing. Takes the lock. */
BB_MUST_CHECK int bb_request_done(struct bb_bus *bus, struct bb_msg *msg, int timeout_ms);
