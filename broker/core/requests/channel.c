/* SPDX-License-Identifier: Apache-2.0 */
/* Channels by name: made, shown, changed, trimmed and removed (PROTOCOL 15.1). */
#include "broker/core/keep/channel.h"

#include "proto/wire/path.h"

#include "broker/core/backend.h"
#include "broker/core/clients/client.h"
#include "broker/core/deliver/cold.h"
#include "broker/core/deliver/removal.h"
#include "broker/core/ingest/pause.h"
#include "broker/core/keep/ring.h"
#include "broker/core/keep/settings.h"
#include "broker/core/log/ask.h"
#include "broker/core/log/held.h"
#include "broker/core/log/memory.h"
#include "broker/core/log/stage.h"
#include "broker/core/requests/requests.h"
#include "broker/core/state.h"
#include "broker/core/subs/route.h"
#include "broker/core/subs/sub.h"

#include <stdlib.h>

static void write_channel(struct bb_buf *out, const struct bk_channel *channel)
{
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {
        {"first", channel->first},
        {"last", channel->last},
        {"log_first", channel->settings.logged ? channel->log_first : channel->first},
        {"ring_bytes", channel->ring_bytes},
        {"events", channel->n_events},
        {"bytes", channel->n_bytes},
        {"delivered", channel->n_delivered},
        {"lost", channel->n_gaps},
    };
    struct bb_buf members = BB_BUF_INIT;
    uint32_t n = bk_settings_write(&members, &channel->settings);
    bb_mp_write_map(out, (uint32_t)BB_COUNT(rows) + 1 + n);
    bb_mp_write_str(out, bb_slice_str("name"));
    bb_mp_write_str(out, channel->name);
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        bb_mp_write_str(out, bb_slice_str(rows[i].name));
        bb_mp_write_uint(out, rows[i].value);
    }
    bb_buf_append(out, members.data, members.len);
    out->error = out->error != 0 ? out->error : members.error;
    bb_buf_fini(&members);
}

static void answer(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    if (core->nested.error != 0) {
        bk_client_refuse(core, client, msg, BB_ENOMEM, NULL);
    } else {
        bk_client_send_result(core, client, msg->corr, bb_buf_slice(&core->nested));
    }
}

static int find(struct bk_core *core, const struct bb_msg *msg, struct bk_channel **ret_channel)
{
    struct bk_channel *channel = bk_channels_find(&core->channels, msg->name);
    if (channel == NULL || bk_channel_is_empty(channel)) {
        return BB_ENOTFOUND;
    }
    *ret_channel = channel;
    return 0;
}

/* The message comes again when the log has what is on its way to it. */
static int wait_for_log(struct bk_core *core,
                        struct bk_client *client,
                        const struct bk_channel *channel,
                        struct bb_buf *err)
{
    if (!bk_pause_can_drain(core)) {
        bb_buf_printf(err, "the log does not take what is on its way to it; try again");
        return BB_EAGAIN;
    }
    if (channel->is_going) {
        bk_pause_first(core, client);
    } else {
        bk_pause_drain(core, client);
    }
    return 0;
}

/* Events in memory cannot move to the log nor back, so a channel that has some stays where it is. */
static int set(struct bk_core *core,
               struct bk_client *client,
               struct bk_channel *channel,
               const struct bb_msg *msg,
               struct bb_buf *err)
{
    struct bk_settings changed = channel->settings;
    if (channel->is_going) {
        return wait_for_log(core, client, channel, err);
    }
    int r =
        msg->settings.len > 0 ? bk_settings_read(msg->settings, &core->channels.defaults, &changed, err) : 0;
    if (r < 0) {
        return r;
    }
    if (changed.logged && core->stage.backend == NULL) {
        bb_buf_printf(err, "this broker keeps no log (busbard --data)");
        return BB_EUNSUPPORTED;
    }
    if (changed.logged != channel->settings.logged && channel->taken > 0) {
        bb_buf_printf(err, "the channel has events; remove it first to keep it elsewhere");
        return BB_EEXISTS;
    }
    bool is_moved = changed.logged != channel->settings.logged;
    channel->settings = changed;
    channel->ring_max = (size_t)changed.ring_bytes;
    channel->is_named = true;
    for (struct bk_client *other = core->clients; other != NULL && is_moved; other = other->next) {
        for (struct bk_sub *sub = other->subs; sub != NULL; sub = sub->next) {
            bk_cold_store_changed(core, sub, channel);
        }
    }
    bk_channel_changed(&core->channels, channel);
    bk_memory_changed(core);
    bb_buf_reset(&core->nested);
    write_channel(&core->nested, channel);
    if (core->nested.error != 0) {
        return BB_ENOMEM;
    }
    bk_hold_answer(core, client, msg, bb_buf_slice(&core->nested));
    return 0;
}

static int add(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, struct bb_buf *err)
{
    struct bk_channel *channel = bk_channels_find(&core->channels, msg->name);
    if (channel != NULL && !bk_channel_is_empty(channel)) {
        return BB_EEXISTS;
    }
    int r = channel == NULL ? bk_channels_get(&core->channels, msg->name, &channel) : 0;
    return r == 0 ? set(core, client, channel, msg, err) : r;
}

static int
change(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, struct bb_buf *err)
{
    struct bk_channel *channel = NULL;
    int r = find(core, msg, &channel);
    return r == 0 ? set(core, client, channel, msg, err) : r;
}

static int info(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, struct bb_buf *err)
{
    struct bk_channel *channel = NULL;
    int r = find(core, msg, &channel);
    (void)err;
    if (r == 0) {
        bb_buf_reset(&core->nested);
        write_channel(&core->nested, channel);
        answer(core, client, msg);
    }
    return r;
}

static int list(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, struct bb_buf *err)
{
    (void)err;
    bb_buf_reset(&core->nested);
    bb_mp_write_array(&core->nested, (uint32_t)bk_channels_count(&core->channels));
    for (size_t i = 0; i < core->channels.n_channels; i++) {
        if (!bk_channel_is_empty(core->channels.list[i])) {
            write_channel(&core->nested, core->channels.list[i]);
        }
    }
    answer(core, client, msg);
    return 0;
}

static int read_before(const struct bk_channel *channel, struct bb_slice settings, uint64_t *ret_before)
{
    struct bb_mp_reader reader = bb_mp_reader(settings);
    uint64_t n = settings.len > 0 ? bb_mp_read_map(&reader) : 0;
    bool has_one = false;
    for (uint64_t i = 0; i < n && reader.error == 0; i++) {
        struct bb_slice key = bb_mp_read_str(&reader);
        uint64_t number = bb_mp_read_uint(&reader);
        if (bb_slice_equal(key, bb_slice_str("before"))) {
            *ret_before = BB_MIN(number, channel->last + 1);
            has_one = true;
        } else if (bb_slice_equal(key, bb_slice_str("keep"))) {
            *ret_before = number < channel->last ? channel->last + 1 - number : 1;
            has_one = true;
        }
    }
    return reader.error == 0 && has_one ? 0 : BB_EINVAL;
}

/* --- trimming ---------------------------------------------------------------------------------------------- */

struct asked {
    struct bk_ask ask;
    struct bk_trim trim;
};

static void on_trimmed(void *context, struct bk_request *request)
{
    struct asked *asked = context;
    struct bk_core *core = asked->ask.core;
    if (request->error != 0) {
        bk_ask_refuse(&asked->ask, request->error, NULL);
    } else if (asked->ask.client != NULL) {
        bb_buf_reset(&core->nested);
        bb_mp_write_map(&core->nested, 1);
        bb_mp_write_str(&core->nested, bb_slice_str("first"));
        bb_mp_write_uint(&core->nested, asked->trim.first);
        bk_client_send_result(core, asked->ask.client, asked->ask.corr, bb_buf_slice(&core->nested));
    }
    bk_ask_end(&asked->ask);
    free(asked);
}

static int ask_backend(struct bk_core *core,
                       struct bk_client *client,
                       const struct bb_msg *msg,
                       const struct bk_channel *channel,
                       uint64_t before)
{
    struct bk_backend *backend = core->backends[bk_store_of(core, channel)];
    struct asked *asked = calloc(1, sizeof(*asked));
    if (asked == NULL) {
        return BB_ENOMEM;
    }
    int r = bk_ask_begin(core, client, msg, &asked->ask);
    if (r < 0) {
        free(asked);
        return r;
    }
    asked->trim = (struct bk_trim){
        .request = {.kind = BK_REQUEST_TRIM, .done = on_trimmed, .context = asked},
        .channel = channel->id,
        .before = before,
    };
    backend->ops->submit(backend, &asked->trim.request);
    return 0;
}

/* The ring shows less at once; the backend removes its part by itself. */
static int trim(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, struct bb_buf *err)
{
    struct bk_channel *channel = NULL;
    uint64_t before = 0;
    int r = find(core, msg, &channel);
    if (r == 0) {
        r = read_before(channel, msg->settings, &before);
    }
    if (r < 0) {
        bb_buf_printf(err, r == BB_EINVAL ? "trim takes {before: sequence} or {keep: number}"
                                          : "there is no such channel");
        return r;
    }
    bool is_kept = core->backends[bk_store_of(core, channel)] != NULL && channel->taken > 0;
    r = is_kept ? ask_backend(core, client, msg, channel, before) : 0;
    if (r < 0) {
        return r;
    }
    bk_ring_trim(&core->ring, channel, before);
    if (!is_kept) {
        bb_buf_reset(&core->nested);
        bb_mp_write_map(&core->nested, 1);
        bb_mp_write_str(&core->nested, bb_slice_str("first"));
        bb_mp_write_uint(&core->nested, channel->first);
        answer(core, client, msg);
    }
    return 0;
}

/* --- removing ---------------------------------------------------------------------------------------------- */

static void answer_removal(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    if (bk_channels_find_id(&core->channels, client->removing) != NULL) {
        bk_hold_removal(core, client, msg); /* the log has stopped taking anything: when it does again */
    } else {
        static const uint8_t nil[] = {0xc0};
        bk_client_send_result(core, client, msg->corr, bb_slice(nil, sizeof(nil)));
    }
    client->removing = 0;
}

/* The message comes twice more at most: when the log has what is on its way, and when it has the removal. */
static int rm(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, struct bb_buf *err)
{
    struct bk_channel *channel = NULL;
    if (client->removing != 0) {
        answer_removal(core, client, msg);
        return 0;
    }
    int r = find(core, msg, &channel);
    if (r == 0 && (channel->taken != channel->last || channel->is_going)) {
        return wait_for_log(core, client, channel, err);
    }
    r = r == 0 ? bk_stage_remove_channel(core, channel) : r;
    if (r < 0) {
        return r;
    }
    if (channel->is_going && bk_pause_can_drain(core)) {
        client->removing = channel->id;
        bk_pause_first(core, client);
        return 0;
    }
    if (!channel->is_going) {
        bk_memory_remove(core, channel);
        bk_channel_end(core, channel);
    }
    bk_hold_removal(core, client, msg);
    return 0;
}

typedef int
action_fn(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, struct bb_buf *err);

static const struct {
    const char *name;
    action_fn *run;
} actions[] = {
    {"add", add}, {"set", change}, {"info", info}, {"ls", list}, {"trim", trim}, {"rm", rm},
};

static int run(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, struct bb_buf *err)
{
    for (size_t i = 0; i < BB_COUNT(actions); i++) {
        if (bb_slice_equal(msg->action, bb_slice_str(actions[i].name))) {
            bool is_list = actions[i].run == list;
            bool is_name = bb_path_check(msg->name) == 0 &&
                           (msg->name.len == 0 || memchr(msg->name.data, '/', msg->name.len) == NULL) &&
                           (msg->name.len == 0 || msg->name.data[0] != '$');
            return is_list || is_name ? actions[i].run(core, client, msg, err) : BB_EPATH;
        }
    }
    bb_buf_printf(err, "there is no action \"%.*s\"", (int)BB_MIN(msg->action.len, 64),
                  msg->action.len > 0 ? (const char *)msg->action.data : "");
    return BB_EINVAL;
}

void bk_handle_channel(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    struct bb_buf err = BB_BUF_INIT;
    bool is_begun = client->removing != 0; /* what is done cannot be refused */
    int r = is_begun || bk_can_hold(core) ? run(core, client, msg, &err) : BB_ELIMIT;
    if (r < 0) {
        bk_client_refuse(core, client, msg, r, err.len > 0 ? bb_buf_string(&err) : NULL);
    }
    bb_buf_fini(&err);
}
