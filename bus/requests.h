/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that threads wait for, and their answers. */
#pragma once

#include "bus/delivery.h"
#include "bus/state.h"

/* Lives on the stack of the thread that waits. */
struct bb_request {
    struct bb_request *next;
    enum bb_msg_type type;
    uint64_t corr; /* of a ping its token */
    bool is_done;
    int error;
    struct bb_buf value;       /* MessagePack of a result */
    struct bb_delivery *found; /* the events of a page; the caller's */
    bool has_more;
    uint64_t run_number; /* of the broker that it is sent to */
    uint64_t server;
};

/** bb_requests_add() - @request waits for the answer to @msg, whose corr and token are set here. */
void bb_requests_add(struct bb_bus *bus, struct bb_request *request, struct bb_msg *msg);

/** bb_requests_remove() - it does not wait any more. */
void bb_requests_remove(struct bb_bus *bus, const struct bb_request *request);

/** bb_requests_finish() - answer the request with @type (BB_MSG_NONE: any) and @corr. */
void bb_requests_finish(struct bb_bus *bus,
                        enum bb_msg_type type,
                        uint64_t corr,
                        int error,
                        struct bb_slice value);

/** bb_requests_found() - events came for @corr; @delivery is taken over. */
void bb_requests_found(struct bb_bus *bus, uint64_t corr, bool has_more, struct bb_delivery *delivery);

/** bb_requests_fail() - none of them will be answered. */
void bb_requests_fail(struct bb_bus *bus, int error);
