/* SPDX-License-Identifier: Apache-2.0 */
/* Channels by name: made, shown, changed, trimmed and removed (PROTOCOL 9). */
#include "proto/wire/path.h"

#include "broker/core/state.h"

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
        bk_client_send_error(core, client, msg->type, msg->corr, BB_ENOMEM, NULL, (struct bb_slice){0});
        return;
    }
    bk_client_send_msg(
        core, client,
        &(struct bb_msg){.type = BB_MSG_RESULT, .corr = msg->corr, .value = bb_buf_slice(&core->nested)});
}

static int find(struct bk_core *core, const struct bb_msg *msg, struct bk_channel **ret_channel)
{
    struct bk_channel *channel = bk_channels_find(&core->channels, msg->name);
    if (channel == NULL || bk_channel_is_gone(channel)) {
        return BB_ENOTFOUND;
    }
    *ret_channel = channel;
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
    channel->settings = changed;
    channel->ring_max = (size_t)changed.ring_bytes;
    channel->is_named = true;
    channel->is_known[BK_STORE_LOG] = channel->is_known[BK_STORE_MEMORY] = false;
    core->tell_memory = true;
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
    if (channel != NULL && !bk_channel_is_gone(channel)) {
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
        if (!bk_channel_is_gone(core->channels.list[i])) {
            write_channel(&core->nested, core->channels.list[i]);
        }
    }
    answer(core, client, msg);
    return 0;
}

/* What is in the ring before @before goes too; the log removes its part by itself. */
static void trim_ring(struct bk_core *core, struct bk_channel *channel, uint64_t before)
{
    while (channel->first < before && channel->ring_bytes > 0 && bk_ring_evict_from(&core->ring, channel)) {
    }
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
    trim_ring(core, channel, before);
    if (bk_store_of(core, channel) == BK_STORE_LOG) {
        return bk_ask_trim(core, client, msg, channel, before);
    }
    bb_buf_reset(&core->nested);
    write_channel(&core->nested, channel);
    answer(core, client, msg);
    return 0;
}

/* Whoever has a place in it begins anew. */
static void void_positions(struct bk_core *core, struct bk_channel *channel)
{
    core->fanning = true; /* a client that goes now must not take others from under this loop */
    for (struct bk_client *other = core->clients; other != NULL; other = other->next) {
        for (struct bk_sub *sub = other->subs; sub != NULL && !other->doomed; sub = sub->next) {
            struct bk_position *position = bk_sub_find_position(sub, channel);
            if (position == NULL) {
                continue;
            }
            bk_gap_add(core, sub,
                       &(struct bk_gap){.channel = channel,
                                        .from = position->covered + 1,
                                        .to = BK_GAP_NO_NUMBER,
                                        .count = BK_GAP_NO_NUMBER,
                                        .reason = BK_COUNTERS});
            sub->n_cold -= position->cold;
            position->cold = false;
            position->covered = position->pending = position->lost = 0;
            bk_gaps_send(core, sub);
        }
    }
    bk_fanning_end(core);
}

static int
remove_channel(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, struct bb_buf *err)
{
    static const uint8_t nil[] = {0xc0};
    struct bk_channel *channel = NULL;
    int r = find(core, msg, &channel);
    if (r < 0) {
        return r;
    }
    if (channel->taken != channel->last) {
        bb_buf_printf(err, "events are being written to it; try again");
        return BB_EAGAIN;
    }
    if (core->stage.backend != NULL) {
        struct bk_removed entry = {.channel = {.id = channel->id, .name = channel->name, .removed = true}};
        bb_buf_append(&core->stage.removed, &entry, sizeof(entry));
        if (core->stage.removed.error != 0) {
            core->stage.removed.error = 0;
            return BB_ENOMEM;
        }
    }
    bk_ring_forget(&core->ring, channel);
    void_positions(core, channel);
    channel->last = channel->taken = channel->loaded = 0;
    channel->first = channel->log_first = 1;
    channel->id = ++core->channels.last_id;
    channel->is_known[BK_STORE_LOG] = channel->is_known[BK_STORE_MEMORY] = channel->is_named = false;
    channel->settings = core->channels.defaults;
    channel->ring_max = (size_t)channel->settings.ring_bytes;
    bk_hold_answer(core, client, msg, bb_slice(nil, sizeof(nil)));
    return 0;
}

typedef int
action_fn(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, struct bb_buf *err);

static const struct {
    const char *name;
    action_fn *run;
} actions[] = {
    {"add", add}, {"set", change}, {"info", info}, {"ls", list}, {"trim", trim}, {"rm", remove_channel},
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
    bk_fan_out(core);
    if (client->state == BK_CLIENT_GONE) {
        return;
    }
    int r = bk_can_hold(core) ? run(core, client, msg, &err) : BB_ELIMIT;
    if (r < 0) {
        bk_client_send_error(core, client, msg->type, msg->corr, r, err.len > 0 ? bb_buf_string(&err) : NULL,
                             (struct bb_slice){0});
    }
    bb_buf_fini(&err);
}
