/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/requests.h"

#include "proto/base/error.h"

#include "bus/signal.h"

void bb_requests_add(struct bb_bus *bus, struct bb_request *request, struct bb_msg *msg)
{
    request->type = msg->type;
    request->run_number = bus->run_number;
    request->server = bus->server;
    request->corr = ++bus->last_corr;
    msg->corr = msg->token = request->corr;
    request->next = bus->requests;
    bus->requests = request;
}

void bb_requests_remove(struct bb_bus *bus, const struct bb_request *request)
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
    bb_requests_remove(bus, request);
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
