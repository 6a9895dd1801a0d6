/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that a thread waits for. */
#include "proto/base/error.h"
#include "proto/base/time.h"
#include "proto/json/json_value.h"
#include "proto/wire/mp.h"
#include "proto/wire/path.h"

#include "bus/internal.h"

#include <stdlib.h>

/* What the broker is given beyond the caller's own limit, so that its answer is the one that counts. */
#define ANSWER_SLACK_MS 200

static void take_out(struct bb_bus *bus, const struct bb_request *request)
{
    for (struct bb_request **at = &bus->requests; *at != NULL; at = &(*at)->next) {
        if (*at == request) {
            *at = request->next;
            return;
        }
    }
}

static void finish(struct bb_bus *bus, struct bb_request *request, int error)
{
    take_out(bus, request);
    request->error = error;
    request->is_done = true;
    bb_bus_changed(bus);
}

void bb_requests_finish(struct bb_bus *bus,
                        enum bb_msg_type type,
                        uint64_t corr,
                        int error,
                        struct bb_slice value)
{
    for (struct bb_request *request = bus->requests; request != NULL; request = request->next) {
        if (request->corr == corr && (type == BB_MSG_NONE || request->type == type)) {
            bb_buf_append(&request->value, value.data, value.len);
            finish(bus, request, error < 0 ? error : request->value.error);
            return;
        }
    }
}

void bb_requests_found(struct bb_bus *bus, uint64_t corr, bool has_more, struct bb_delivery *delivery)
{
    struct bb_request *request = bus->requests;
    while (request != NULL && (request->corr != corr || request->type != BB_MSG_QUERY)) {
        request = request->next;
    }
    if (request != NULL) {
        request->has_more = has_more;
        request->found = bb_delivery_keep(delivery);
        finish(bus, request, request->found == NULL ? BB_ENOMEM : 0);
    }
    if (request == NULL || request->found == NULL) {
        bb_delivery_fini(delivery);
    }
}

void bb_requests_fail(struct bb_bus *bus, int error)
{
    while (bus->requests != NULL) {
        finish(bus, bus->requests, error);
    }
}

int bb_request_run(struct bb_bus *bus, struct bb_msg *msg, struct bb_request *request, uint64_t deadline)
{
    int r = bb_bus_check_wait(bus);
    r = r < 0 ? r : bb_bus_wait_ready_locked(bus, deadline);
    if (r < 0) {
        return r;
    }
    request->type = msg->type;
    request->run = bus->run;
    request->server = bus->server;
    request->corr = ++bus->last_corr;
    msg->corr = msg->token = request->corr;
    request->next = bus->requests;
    bus->requests = request;
    r = bb_conn_send(bus, msg);
    while (r == 0 && !request->is_done) {
        r = bb_bus_wait(bus, deadline);
    }
    if (request->is_done) {
        return request->error;
    }
    take_out(bus, request);
    return r;
}

int bb_request_json(struct bb_bus *bus, struct bb_msg *msg, int timeout_ms, char **ret_json)
{
    struct bb_request request = {0};
    struct bb_buf text = BB_BUF_INIT;
    (void)pthread_mutex_lock(&bus->lock);
    int r = bb_request_run(bus, msg, &request, bb_deadline(timeout_ms));
    (void)pthread_mutex_unlock(&bus->lock);
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
    (void)pthread_mutex_lock(&bus->lock);
    int r = bb_request_run(bus, msg, &request, bb_deadline(timeout_ms));
    (void)pthread_mutex_unlock(&bus->lock);
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
    (void)pthread_mutex_lock(&bus->lock);
    int r = bb_request_run(bus, &msg, &request, bb_deadline(patience));
    (void)pthread_mutex_unlock(&bus->lock);
    r = r < 0 ? r : read_matches(bb_buf_slice(&request.value), ret_matches);
    bb_buf_fini(&request.value);
    return r;
}

int bb_ping(bb_bus *bus, int timeout_ms, uint64_t *ret_rtt_us)
{
    struct bb_request request = {0};
    struct bb_msg msg = {.type = BB_MSG_PING};
    uint64_t deadline = bb_deadline(timeout_ms);
    (void)pthread_mutex_lock(&bus->lock);
    int r = bb_bus_check_wait(bus);
    r = r < 0 ? r : bb_bus_wait_ready_locked(bus, deadline);
    int64_t sent = bb_clock_monotonic_us();
    r = r < 0 ? r : bb_request_run(bus, &msg, &request, deadline);
    (void)pthread_mutex_unlock(&bus->lock);
    if (r == 0) {
        *ret_rtt_us = (uint64_t)(bb_clock_monotonic_us() - sent);
    }
    bb_buf_fini(&request.value);
    return r;
}
