/* SPDX-License-Identifier: Apache-2.0 */
/* Upkeep of the log (PROTOCOL 15.4). */
#include "broker/core/backend.h"
#include "broker/core/clients/client.h"
#include "broker/core/log/ask.h"
#include "broker/core/requests/requests.h"
#include "broker/core/state.h"

#include <stdlib.h>

struct asked {
    struct bk_ask ask;
    struct bb_buf copy; /* what the request points into */
    struct bk_upkeep upkeep;
};

static const struct {
    const char *action;
    enum bk_request_kind kind;
} actions[] = {
    {"backup", BK_REQUEST_SNAPSHOT},
    {"compact", BK_REQUEST_COMPACT},
    {"verify", BK_REQUEST_VERIFY},
};

static void asked_free(struct asked *asked)
{
    bb_buf_fini(&asked->upkeep.report);
    bb_buf_fini(&asked->copy);
    free(asked);
}

static void on_kept_up(void *context, struct bk_request *request)
{
    static const uint8_t empty[] = {0x80};
    struct asked *asked = context;
    if (request->error != 0) {
        bk_ask_refuse(&asked->ask, request->error, NULL);
    } else if (asked->ask.client != NULL) {
        struct bb_slice report = bb_buf_slice(&asked->upkeep.report);
        bk_client_send_result(asked->ask.core, asked->ask.client, asked->ask.corr,
                              report.len > 0 ? report : bb_slice(empty, sizeof(empty)));
    }
    bk_ask_end(&asked->ask);
    asked_free(asked);
}

static int read_name(struct bb_slice options, struct bb_slice *ret_name)
{
    struct bb_mp_reader reader = bb_mp_reader(options);
    *ret_name = (struct bb_slice){0};
    uint64_t n = options.len > 0 ? bb_mp_read_map(&reader) : 0;
    for (uint64_t i = 0; i < n && reader.error == 0; i++) {
        if (bb_slice_equal(bb_mp_read_str(&reader), bb_slice_str("name"))) {
            *ret_name = bb_mp_read_str(&reader);
        } else {
            bb_mp_skip(&reader);
        }
    }
    return reader.error != 0 ? BB_EINVAL : 0;
}

static int
begin(struct asked *asked, struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    bb_buf_append(&asked->copy, msg->options.data, msg->options.len);
    if (asked->copy.error != 0) {
        return BB_ENOMEM;
    }
    int r = read_name(bb_buf_slice(&asked->copy), &asked->upkeep.name);
    return r == 0 ? bk_ask_begin(core, client, msg, &asked->ask) : r;
}

static int
ask(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, enum bk_request_kind kind)
{
    struct asked *asked = calloc(1, sizeof(*asked));
    if (asked == NULL) {
        return BB_ENOMEM;
    }
    asked->upkeep.request = (struct bk_request){.kind = kind, .done = on_kept_up, .context = asked};
    int r = begin(asked, core, client, msg);
    if (r < 0) {
        asked_free(asked);
        return r;
    }
    core->stage.backend->ops->submit(core->stage.backend, &asked->upkeep.request);
    return 0;
}

static int run(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    struct bk_backend *log = core->stage.backend;
    if (log == NULL) {
        return BB_EUNSUPPORTED;
    }
    if (bb_slice_equal(msg->action, bb_slice_str("status"))) {
        bb_buf_reset(&core->nested);
        log->ops->status(log, &core->nested);
        bk_client_send_result(core, client, msg->corr, bb_buf_slice(&core->nested));
        return 0;
    }
    for (size_t i = 0; i < BB_COUNT(actions); i++) {
        if (bb_slice_equal(msg->action, bb_slice_str(actions[i].action))) {
            return ask(core, client, msg, actions[i].kind);
        }
    }
    return BB_EINVAL;
}

void bk_handle_log(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    int r = run(core, client, msg);
    if (r < 0) {
        bk_client_refuse(core, client, msg, r,
                         r == BB_EUNSUPPORTED ? "this broker keeps no log (busbard --data)" : NULL);
    }
}
