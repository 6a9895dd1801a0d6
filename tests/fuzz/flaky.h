/* SPDX-License-Identifier: Apache-2.0 */
/* A backend for the log that keeps events in memory, in front of it a disk that the test drives: what was registered waits until
 * it is written or fails. */
#pragma once

#include "broker/core/backend.h"

/** flaky_open() - never NULL; @listener and @meter are the core's. */
struct bk_backend *flaky_open(const struct bk_backend_listener *listener, struct bk_meter *meter);

/** flaky_write() - write up to @n of the tickets that wait. What there is to tell is told. */
void flaky_write(struct bk_backend *backend, size_t n);

/** flaky_fail() - @kept of the tickets that wait are written, the others fail, and with @is_broken further ones are refused. */
void flaky_fail(struct bk_backend *backend, size_t kept, bool is_broken);

/** flaky_state() - from now on take everything, or refuse events since there is no room. */
void flaky_state(struct bk_backend *backend, enum bk_backend_state state);

/** flaky_fail_requests() - the next @n requests fail. */
void flaky_fail_requests(struct bk_backend *backend, size_t n);
