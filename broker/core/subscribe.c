/* SPDX-License-Identifier: Apache-2.0 */
/* Subscribing (PROTOCOL 7): reading the request, finding where it begins, and ending it. */
#include "proto/wire/path.h"

#include "broker/core/state.h"

#include <stdlib.h>

#define CREDIT_BYTES_DEFAULT  ((uint64_t)1 << 20)
#define CREDIT_EVENTS_DEFAULT ((uint64_t)65536)
#define BUDGET_DEFAULT        ((uint64_t)16 << 20)

enum from_kind {
    FROM_NEW,
    FROM_LAST,
    FROM_SEQUENCE,
    FROM_TIME,
    FROM_AFTER,
};

/* PROTOCOL 7.1. */
struct from {
    enum from_kind kind;
    uint64_t number; /* sequence or time */
    uint64_t run;
    struct bb_slice after; /* a map, channel to sequence */
};

/* --- reading -------------------------------------------------------------------------------------- */

static int read_from_map(struct bb_mp_reader *reader, struct from *from)
{
    bool has_run = false;
    bool has_after = false;
    bool has_time = false;
    uint64_t n = bb_mp_read_map(reader);
    for (uint64_t i = 0; i < n; i++) {
        struct bb_slice key = bb_mp_read_str(reader);
        if (bb_slice_equal(key, bb_slice_str("time"))) {
            from->number = bb_mp_read_uint(reader);
            has_time = true;
        } else if (bb_slice_equal(key, bb_slice_str("run"))) {
            from->run = bb_mp_read_uint(reader);
            has_run = true;
        } else if (bb_slice_equal(key, bb_slice_str("after"))) {
            from->after = bb_mp_read_raw(reader);
            has_after = true;
        } else {
            bb_mp_skip(reader);
        }
    }
    from->kind = has_time ? FROM_TIME : FROM_AFTER;
    return reader->error == 0 && has_time != (has_run && has_after) ? 0 : BB_EINVAL;
}

static int read_from(struct bb_slice value, struct from *ret_from)
{
    struct bb_mp_reader reader = bb_mp_reader(value);
    struct from from = {.kind = FROM_NEW};
    enum bb_mp_type type = value.len > 0 ? bb_mp_peek_type(&reader) : BB_MP_NIL;
    int r = 0;
    if (type == BB_MP_UINT) {
        from.kind = FROM_SEQUENCE;
        from.number = bb_mp_read_uint(&reader);
    } else if (type == BB_MP_MAP) {
        r = read_from_map(&reader, &from);
    } else if (type != BB_MP_NIL) {
        struct bb_slice word = bb_mp_read_str(&reader);
        if (bb_slice_equal(word, bb_slice_str("last"))) {
            from.kind = FROM_LAST;
        } else if (!bb_slice_equal(word, bb_slice_str("new"))) {
            r = BB_EINVAL;
        }
    }
    *ret_from = from;
    return r;
}

static int read_options(struct bb_slice options, struct bk_sub *sub)
{
    struct bb_mp_reader reader = bb_mp_reader(options);
    int r = 0;
    sub->credit_bytes = CREDIT_BYTES_DEFAULT;
    sub->credit_events = CREDIT_EVENTS_DEFAULT;
    sub->budget = BUDGET_DEFAULT;
    uint64_t n = options.len > 0 && bb_mp_peek_type(&reader) != BB_MP_NIL ? bb_mp_read_map(&reader) : 0;
    for (uint64_t i = 0; i < n && r == 0; i++) {
        struct bb_slice key = bb_mp_read_str(&reader);
        if (bb_slice_equal(key, bb_slice_str("bytes"))) {
            sub->credit_bytes = bb_mp_read_uint(&reader);
        } else if (bb_slice_equal(key, bb_slice_str("events"))) {
            sub->credit_events = bb_mp_read_uint(&reader);
        } else if (bb_slice_equal(key, bb_slice_str("budget"))) {
            sub->budget = bb_mp_read_uint(&reader);
        } else if (bb_slice_equal(key, bb_slice_str("overflow"))) {
            r = bk_overflow_find(bb_mp_read_str(&reader), &sub->overflow);
        } else {
            bb_mp_skip(&reader);
        }
    }
    return reader.error != 0 ? BB_EINVAL : r;
}

/* --- where it begins ------------------------------------------------------------------------------ */

/* Whether every event of @channel matches, so that sequences count matching events. */
static bool covers(const struct bb_slice patterns, struct bb_slice channel)
{
    struct bb_mp_reader reader = bb_mp_reader(patterns);
    uint64_t n = bb_mp_read_array(&reader);
    for (uint64_t i = 0; i < n; i++) {
        struct bb_slice pattern = bb_mp_read_str(&reader);
        bool all = bb_slice_equal(pattern, bb_slice_str("*"));
        bool channel_all = channel.len > 0 && pattern.len == channel.len + 2 &&
                           pattern.data[pattern.len - 1] == '*' &&
                           bb_slice_equal(bb_path_channel(pattern), channel);
        if (all || channel_all) {
            return true;
        }
    }
    return false;
}

struct newest {
    uint64_t sequence;
};

static int note_sequence(void *context, const struct bk_item *item)
{
    ((struct newest *)context)->sequence = item->block->sequence + item->first + item->count - 1;
    return 0;
}

/* The newest matching event of a channel, its last sequence + 1 if the ring has none. */
static int
find_last(struct bk_core *core, struct bk_sub *sub, struct bk_channel *channel, uint64_t *ret_sequence)
{
    struct newest newest = {channel->last + 1};
    uint64_t pos = bk_ring_end(&core->ring);
    const struct bk_block *block = NULL;
    int r = 0;
    while (r == 0 && newest.sequence > channel->last && pos > channel->first_pos &&
           (block = bk_ring_before(&core->ring, &pos)) != NULL) {
        if (block->channel == channel) {
            bk_route_trim(&core->route);
            r = bk_for_each_wanted(core, sub, block, note_sequence, &newest);
        }
    }
    *ret_sequence = newest.sequence;
    return r;
}

static uint64_t sequence_at(const struct bk_core *core, const struct bk_channel *channel, uint64_t pos)
{
    const struct bk_block *block = NULL;
    for (; (block = bk_ring_at(&core->ring, &pos)) != NULL; pos++) {
        if (block->channel == channel) {
            return block->sequence;
        }
    }
    return channel->last + 1;
}

/* The sequence of @channel after which the subscription begins. */
static int begin_after(struct bk_core *core,
                       struct bk_sub *sub,
                       const struct from *from,
                       struct bk_channel *channel,
                       uint64_t *ret_covered)
{
    uint64_t sequence = 0;
    int r = 0;
    switch (from->kind) {
    case FROM_NEW:
        sequence = channel->last + 1;
        break;
    case FROM_LAST:
        r = find_last(core, sub, channel, &sequence);
        break;
    case FROM_SEQUENCE:
        sequence = BB_MAX(from->number, 1);
        break;
    case FROM_TIME:
        sequence = sequence_at(core, channel, bk_ring_find_time(&core->ring, from->number));
        break;
    case FROM_AFTER:
        sequence = 1; /* begin() sets those that are named */
        break;
    }
    *ret_covered = BB_MIN(sequence - 1, channel->last);
    return r;
}

static int
begin_channel(struct bk_core *core, struct bk_sub *sub, const struct from *from, struct bk_channel *channel)
{
    uint64_t covered = 0;
    if (bk_sub_find_position(sub, channel) != NULL) {
        return 0;
    }
    int r = begin_after(core, sub, from, channel, &covered);
    struct bk_position *position = r == 0 ? bk_sub_position(sub, channel) : NULL;
    if (position == NULL) {
        return BB_ENOMEM;
    }
    position->covered = covered;
    return 0;
}

/* Positions in the channels that @pattern can match: the named one, or all behind a wildcard. */
static int
begin_pattern(struct bk_core *core, struct bk_sub *sub, const struct from *from, struct bb_slice pattern)
{
    struct bb_slice name = bb_path_channel(pattern);
    if (name.len != 1 || (name.data[0] != '?' && name.data[0] != '*')) {
        struct bk_channel *channel = bk_channels_find(&core->channels, name);
        return channel != NULL ? begin_channel(core, sub, from, channel) : 0;
    }
    int r = 0;
    for (size_t i = 0; i < core->channels.n_channels && r == 0; i++) {
        r = begin_channel(core, sub, from, core->channels.list[i]);
    }
    return r;
}

static void begin_named(struct bk_core *core, struct bk_sub *sub, const struct from *from)
{
    struct bb_mp_reader reader = bb_mp_reader(from->after);
    uint64_t n = bb_mp_read_map(&reader);
    for (uint64_t i = 0; i < n && reader.error == 0; i++) {
        struct bk_channel *channel = bk_channels_find(&core->channels, bb_mp_read_str(&reader));
        uint64_t sequence = bb_mp_read_uint(&reader);
        struct bk_position *position = channel != NULL ? bk_sub_find_position(sub, channel) : NULL;
        if (position != NULL && reader.error == 0) {
            position->covered = BB_MIN(sequence, channel->last);
        }
    }
}

/* Positions in all channels that exist; the cursor before the first event wanted. */
static int begin(struct bk_core *core, struct bk_sub *sub, const struct bb_msg *msg, const struct from *from)
{
    struct bb_mp_reader reader = bb_mp_reader(msg->patterns);
    uint32_t n = bb_mp_read_array(&reader);
    int r = 0;
    for (uint32_t i = 0; i < n && r == 0; i++) {
        r = begin_pattern(core, sub, from, bb_mp_read_str(&reader));
    }
    if (r < 0) {
        return r;
    }
    if (from->kind == FROM_AFTER && from->run == core->config.run) {
        begin_named(core, sub, from);
    }
    sub->live = true;
    sub->cursor = bk_ring_end(&core->ring);
    for (size_t i = 0; i < sub->n_positions; i++) {
        if (sub->positions[i].covered < sub->positions[i].channel->last) {
            sub->live = false;
            sub->cursor = BB_MIN(sub->cursor, sub->positions[i].channel->first_pos);
        }
    }
    if (sub->live) {
        return 0;
    }
    core->n_lagging++;
    return bk_count_waiting(core, sub);
}

/* What was asked for and is not in the ring any more. */
static void tell_trimmed(struct bk_core *core, struct bk_sub *sub, const struct bb_msg *msg)
{
    for (size_t i = 0; i < sub->n_positions; i++) {
        struct bk_position *position = &sub->positions[i];
        struct bk_channel *channel = position->channel;
        if (position->covered + 1 >= channel->first) {
            continue;
        }
        uint64_t n = channel->first - 1 - position->covered;
        bk_gap_add(core, sub,
                   &(struct bk_gap){
                       .channel = channel,
                       .from = position->covered + 1,
                       .to = channel->first - 1,
                       .count = covers(msg->patterns, channel->name) ? n : BK_GAP_NO_NUMBER,
                       .reason = BK_COUNTER_gap_trimmed,
                   });
        position->covered = channel->first - 1;
    }
    bk_gaps_send(core, sub);
}

static void tell_restart(struct bk_core *core, struct bk_sub *sub, const struct from *from)
{
    struct bb_mp_reader reader = bb_mp_reader(from->after);
    uint64_t n = bb_mp_read_map(&reader);
    for (uint64_t i = 0; i < n; i++) {
        struct bb_slice name = bb_mp_read_str(&reader);
        uint64_t sequence = bb_mp_read_uint(&reader);
        if (reader.error != 0) {
            break;
        }
        bk_gap_add(core, sub,
                   &(struct bk_gap){
                       .channel_name = name,
                       .from = sequence + 1,
                       .to = BK_GAP_NO_NUMBER,
                       .count = BK_GAP_NO_NUMBER,
                       .reason = BK_COUNTERS,
                   });
    }
    bk_gaps_send(core, sub);
}

/* --- the whole ------------------------------------------------------------------------------------ */

static int count_patterns(const struct bk_core *core,
                          const struct bk_client *client,
                          const struct bb_msg *msg,
                          uint32_t *ret_n)
{
    struct bb_mp_reader reader = bb_mp_reader(msg->patterns);
    uint32_t n = bb_mp_peek_type(&reader) == BB_MP_ARRAY ? bb_mp_read_array(&reader) : 0;
    if (n == 0) {
        return BB_EINVAL;
    }
    for (uint32_t i = 0; i < n; i++) {
        struct bb_slice pattern = bb_mp_read_str(&reader);
        if (reader.error != 0 || bb_pattern_check(pattern) < 0) {
            return BB_EPATTERN;
        }
    }
    if (client->n_patterns + n > core->config.max_patterns ||
        core->n_patterns + n > core->config.max_patterns_all) {
        return BB_ELIMIT;
    }
    *ret_n = n;
    return 0;
}

static void sub_link(struct bk_core *core, struct bk_client *client, struct bk_sub *sub)
{
    sub->next = client->subs;
    if (sub->next != NULL) {
        sub->next->prev = sub;
    }
    client->subs = sub;
    client->n_subs++;
    client->n_patterns += sub->n_patterns;
    core->n_subs++;
    core->n_patterns += sub->n_patterns;
}

static int
sub_add(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, struct bk_sub *sub)
{
    struct bb_mp_reader reader = bb_mp_reader(msg->patterns);
    (void)bb_mp_read_array(&reader);
    sub->client = client;
    sub->id = msg->sub;
    sub->serial = ++core->next_serial;
    sub->live = true; /* until it is known where it begins */
    int r = bb_map_add(&client->subs_by_id, bb_slice(&sub->id, sizeof(sub->id)), sub);
    if (r < 0) {
        return r;
    }
    sub_link(core, client, sub);
    for (size_t i = 0; i < sub->n_patterns && r == 0; i++) {
        r = bk_route_add(&core->route, &sub->patterns[i], bb_mp_read_str(&reader));
    }
    return r;
}

static void send_subscribed(struct bk_core *core, struct bk_sub *sub, const struct bb_msg *msg)
{
    bb_buf_reset(&core->nested);
    bb_mp_write_array(&core->nested, (uint32_t)sub->n_positions);
    for (size_t i = 0; i < sub->n_positions; i++) {
        bb_mp_write_array(&core->nested, 2);
        bb_mp_write_str(&core->nested, sub->positions[i].channel->name);
        bb_mp_write_uint(&core->nested, sub->positions[i].covered);
    }
    if (core->nested.error != 0) {
        bk_client_send_away(core, sub->client, BB_ENOMEM, NULL);
        return;
    }
    bk_client_send_msg(core, sub->client,
                       &(struct bb_msg){
                           .type = BB_MSG_SUBSCRIBED,
                           .corr = msg->corr,
                           .sub = sub->id,
                           .session = core->session,
                           .positions = bb_buf_slice(&core->nested),
                       });
}

static int subscribe(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    uint32_t n_patterns = 0;
    struct from from = {.kind = FROM_NEW};
    int r = count_patterns(core, client, msg, &n_patterns);
    if (r == 0) {
        r = read_from(msg->from, &from);
    }
    if (r < 0) {
        return r;
    }
    struct bk_sub *sub = bk_sub_new(n_patterns);
    if (sub == NULL) {
        return BB_ENOMEM;
    }
    r = read_options(msg->options, sub);
    if (r == 0 && bb_map_find(&client->subs_by_id, bb_slice(&msg->sub, sizeof(msg->sub))) != NULL) {
        r = BB_EEXISTS;
    }
    if (r < 0) {
        bk_sub_free(sub, &core->route);
        return r;
    }
    r = sub_add(core, client, msg, sub);
    if (r == 0) {
        r = begin(core, sub, msg, &from);
    }
    if (r < 0) {
        bk_sub_remove(core, sub);
        return r;
    }
    bk_count(core, BK_COUNTER_subscribes, 1);
    send_subscribed(core, sub, msg);
    if (client->state != BK_CLIENT_GONE && from.kind == FROM_AFTER && from.run != core->config.run) {
        tell_restart(core, sub, &from);
    }
    if (client->state != BK_CLIENT_GONE) {
        tell_trimmed(core, sub, msg);
    }
    if (client->state != BK_CLIENT_GONE) {
        bk_sub_set_ready(core, sub);
        bk_waiters_check(core);
    }
    return 0;
}

void bk_handle_subscribe(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    bk_fan_out(core); /* what came before the subscription does not go to it as new */
    if (client->state == BK_CLIENT_GONE) {
        return;
    }
    int r = subscribe(core, client, msg);
    if (r < 0) {
        bk_client_send_error(core, client, msg->type, msg->corr, r, NULL, (struct bb_slice){0});
    }
}

void bk_sub_remove(struct bk_core *core, struct bk_sub *sub)
{
    struct bk_client *client = sub->client;
    for (size_t i = 0; i < sub->n_positions; i++) {
        bk_count(core, BK_COUNTER_gap_client_gone, sub->positions[i].pending + sub->positions[i].lost);
    }
    bk_sub_clear_ready(core, sub);
    core->n_lagging -= !sub->live;
    if (bb_map_find(&client->subs_by_id, bb_slice(&sub->id, sizeof(sub->id))) == sub) {
        (void)bb_map_remove(&client->subs_by_id, bb_slice(&sub->id, sizeof(sub->id)));
        *(sub->prev != NULL ? &sub->prev->next : &client->subs) = sub->next;
        if (sub->next != NULL) {
            sub->next->prev = sub->prev;
        }
        client->n_subs--;
        client->n_patterns -= sub->n_patterns;
        core->n_subs--;
        core->n_patterns -= sub->n_patterns;
    }
    bk_sub_free(sub, &core->route);
}

void bk_handle_unsubscribe(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    static const uint8_t nil[] = {0xc0};
    bk_fan_out(core);
    if (client->state == BK_CLIENT_GONE) {
        return;
    }
    struct bk_sub *sub = bb_map_find(&client->subs_by_id, bb_slice(&msg->sub, sizeof(msg->sub)));
    if (sub == NULL) {
        bk_client_send_error(core, client, msg->type, msg->corr, BB_ENOTFOUND, NULL, (struct bb_slice){0});
        return;
    }
    bk_sub_remove(core, sub);
    bk_count(core, BK_COUNTER_unsubscribes, 1);
    bk_client_send_msg(
        core, client,
        &(struct bb_msg){.type = BB_MSG_RESULT, .corr = msg->corr, .value = bb_slice(nil, sizeof(nil))});
}

void bk_handle_credit(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    struct bk_sub *sub = bb_map_find(&client->subs_by_id, bb_slice(&msg->sub, sizeof(msg->sub)));
    if (sub == NULL) {
        return; /* it may have ended meanwhile */
    }
    sub->credit_bytes = BB_MAX(sub->credit_bytes, msg->bytes);
    sub->credit_events = BB_MAX(sub->credit_events, msg->events);
    bk_sub_set_ready(core, sub);
}
