/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that are sent and waited for. */
#include "bus/api/request.h"

#include "proto/base/error.h"
#include "proto/base/time.h"
#include "proto/json/json_value.h"
#include "proto/wire/mp.h"
#include "proto/wire/path.h"

#include "bus/api/wait.h"
#include "bus/conn.h"
#include "bus/signal.h"

/* What the broker is given beyond the caller's own limit, so that its answer is the one that counts. */
#define ANSWER_SLACK_MS 200

int bb_request_run(struct bb_bus *bus, struct bb_msg *msg, struct bb_request *request, uint64_t deadline)
{
    int r = bb_wait_check(bus);
    r = r < 0 ? r : bb_wait_ready(bus, deadline);
    if (r < 0) {
        return r;
    }
    bb_requests_add(bus, request, msg);
    r = bb_conn_send(bus, msg);
    while (r == 0 && !request->is_done) {
        r = bb_wait(bus, deadline);
    }
    if (request->is_done) {
        return request->error;
    }
    bb_requests_remove(bus, request);
    return r;
}

int bb_request_json(struct bb_bus *bus, struct bb_msg *msg, int timeout_ms, char **ret_json)
{
    struct bb_request request = {0};
    struct bb_buf text = BB_BUF_INIT;
    bb_bus_lock(bus);
    int r = bb_request_run(bus, msg, &request, bb_deadline(timeout_ms));
    bb_bus_unlock(bus);
    r = r < 0 ? r : bb_mp_to_json(bb_buf_slice(&request.value), &text);
    bb_buf_append_byte(&text, 0);
    r = r < 0 ? r : text.error;
    bb_buf_fini(&request.value);
    if (r < 0) {
        bb_buf_fini(&text);
        return r;
    }
    *ret_json = (char *)text.data;
    return 0;
}

int bb_request_done(struct bb_bus *bus, struct bb_msg *msg, int timeout_ms)
{
    struct bb_request request = {0};
    bb_bus_lock(bus);
    int r = bb_request_run(bus, msg, &request, bb_deadline(timeout_ms));
    bb_bus_unlock(bus);
    bb_buf_fini(&request.value);
    return r;
}

int bb_request_status(bb_bus *bus, int timeout_ms, char **ret_json)
{
    struct bb_msg msg = {.type = BB_MSG_STATUS};
    return bb_request_json(bus, &msg, timeout_ms, ret_json);
}

static int read_matches(struct bb_slice value, uint64_t *ret_matches)
{
    struct bb_mp_reader reader = bb_mp_reader(value);
    uint32_t n = bb_mp_read_map(&reader);
    for (uint32_t i = 0; i < n && reader.error == 0; i++) {
        if (bb_slice_equal(bb_mp_read_str(&reader), bb_slice_str("matches"))) {
            uint64_t matches = bb_mp_read_uint(&reader);
            if (reader.error == 0) {
                *ret_matches = matches;
                return 0;
            }
        } else {
            bb_mp_skip(&reader);
        }
    }
    return BB_EMALFORMED;
}

int bb_request_matches(bb_bus *bus, const char *path, uint64_t min, int timeout_ms, uint64_t *ret_matches)
{
    struct bb_request request = {0};
    struct bb_msg msg = {.type = BB_MSG_MATCHES, .path = bb_slice_str(path), .min = min};
    msg.timeout = timeout_ms < 0 ? UINT32_MAX : (uint64_t)timeout_ms;
    if (bb_path_check(msg.path) < 0) {
        return BB_EPATH;
    }
    int patience = timeout_ms < 0 || timeout_ms > INT32_MAX - ANSWER_SLACK_MS ? timeout_ms
                                                                              : timeout_ms + ANSWER_SLACK_MS;
    bb_bus_lock(bus);
    int r = bb_request_run(bus, &msg, &request, bb_deadline(patience));
    bb_bus_unlock(bus);
    r = r < 0 ? r : read_matches(bb_buf_slice(&request.value), ret_matches);
    bb_buf_fini(&request.value);
    return r;
}

int bb_ping(bb_bus *bus, int timeout_ms, uint64_t *ret_rtt_us)
{
    struct bb_request request = {0};
    struct bb_msg msg = {.type = BB_MSG_PING};
    uint64_t deadline = bb_deadline(timeout_ms);
    bb_bus_lock(bus);
    int r = bb_wait_check(bus);
    r = r < 0 ? r : bb_wait_ready(bus, deadline);
    int64_t sent = bb_clock_monotonic_us();
    r = r < 0 ? r : bb_request_run(bus, &msg, &request, deadline);
    bb_bus_unlock(bus);
    if (r == 0) {
        *ret_rtt_us = (uint64_t)(bb_clock_monotonic_us() - sent);
    }
    bb_buf_fini(&request.value);
    return r;
}
