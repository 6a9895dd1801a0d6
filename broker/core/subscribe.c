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
    FROM_ID,
    FROM_AFTER,
    FROM_CURSOR,
};

/* PROTOCOL 7.1. */
struct from {
    enum from_kind kind;
    uint64_t number; /* sequence or time */
    uint64_t run;
    struct bb_slice after; /* a map, channel to sequence; of a cursor: an array of pairs */
    struct bk_event_id id;
    const struct bk_locate *located; /* what the log knows of it */
};

/* PROTOCOL 7.1, the options that are not struct bk_sub's. */
struct options {
    bool retained;
    bool has_overflow;
    bool has_view;
    struct bb_slice last; /* of `until` */
    struct bb_slice durable;
};

/* --- reading -------------------------------------------------------------------------------------- */

static void read_id(struct bb_mp_reader *reader, struct bk_event_id *ret_id)
{
    if (bb_mp_read_array(reader) != 3) {
        bb_mp_reader_fail(reader, BB_EINVAL);
    }
    ret_id->server = bb_mp_read_uint(reader);
    ret_id->session = bb_mp_read_uint(reader);
    ret_id->instance = bb_mp_read_uint(reader);
}

static int read_from_map(struct bb_mp_reader *reader, struct from *from)
{
    bool has_id = false;
    bool has_run = false;
    bool has_after = false;
    bool has_time = false;
    uint64_t n = bb_mp_read_map(reader);
    for (uint64_t i = 0; i < n; i++) {
        struct bb_slice key = bb_mp_read_str(reader);
        if (bb_slice_equal(key, bb_slice_str("time"))) {
            from->number = bb_mp_read_uint(reader);
            has_time = true;
        } else if (bb_slice_equal(key, bb_slice_str("id"))) {
            read_id(reader, &from->id);
            has_id = true;
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
    from->kind = has_time ? FROM_TIME : has_id ? FROM_ID : FROM_AFTER;
    return reader->error == 0 && has_time + has_id + (has_run && has_after) == 1 ? 0 : BB_EINVAL;
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

static int read_view(struct bb_mp_reader *reader, struct bk_sub *sub, struct options *ret_options)
{
    struct bb_slice word = bb_mp_read_str(reader);
    sub->early = bb_slice_equal(word, bb_slice_str("early"));
    ret_options->has_view = true;
    return sub->early || bb_slice_equal(word, bb_slice_str("durable")) ? 0 : BB_EINVAL;
}

static int read_options(struct bb_slice options, struct bk_sub *sub, struct options *ret_options)
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
            ret_options->has_overflow = true;
        } else if (bb_slice_equal(key, bb_slice_str("until"))) {
            r = bk_until_read(&reader, sub, &ret_options->last);
        } else if (bb_slice_equal(key, bb_slice_str("view"))) {
            r = read_view(&reader, sub, ret_options);
        } else if (bb_slice_equal(key, bb_slice_str("retained"))) {
            ret_options->retained = bb_mp_read_bool(&reader);
        } else if (bb_slice_equal(key, bb_slice_str("durable"))) {
            ret_options->durable = bb_mp_read_str(&reader);
            r = ret_options->durable.len == 0 || ret_options->durable.len > 64 ? BB_EINVAL : 0;
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

/* The newest matching event of a channel, its last sequence + 1 if the ring has none; where the subscription ends does not matter. */
static int
find_last(struct bk_core *core, struct bk_sub *sub, struct bk_channel *channel, uint64_t *ret_sequence)
{
    struct newest newest = {channel->last + 1};
    uint64_t until_time = sub->until_time;
    const struct bk_block *block = bk_ring_newest_of(&core->ring, channel);
    int r = 0;
    sub->until_time = UINT64_MAX;
    for (; r == 0 && newest.sequence > channel->last && block != NULL;
         block = bk_ring_previous_of(&core->ring, block)) {
        bk_route_trim(&core->route);
        r = bk_for_each_wanted(core, sub, block, note_sequence, &newest);
    }
    sub->until_time = until_time;
    *ret_sequence = newest.sequence;
    return r;
}

static uint64_t sequence_at(const struct bk_core *core, const struct bk_channel *channel, uint64_t time)
{
    const struct bk_block *block = bk_ring_newest_of(&core->ring, channel);
    uint64_t found = channel->last + 1;
    for (; block != NULL && block->time >= time; block = bk_ring_previous_of(&core->ring, block)) {
        found = block->sequence;
    }
    return found;
}

static uint64_t
sequence_of_id(const struct bk_core *core, const struct bk_channel *channel, struct bk_event_id id)
{
    const struct bk_block *block = bk_ring_oldest_of(&core->ring, channel);
    for (; block != NULL; block = bk_ring_next_of(&core->ring, block)) {
        uint64_t last = (uint64_t)block->instance + block->count - 1;
        if (block->session > id.session || (block->session == id.session && last > id.instance)) {
            bool is_inside = block->session == id.session && id.instance >= block->instance;
            return block->sequence + (is_inside ? id.instance - block->instance + 1 : 0);
        }
    }
    return channel->last + 1;
}

static int compare_places(const void *a, const void *b)
{
    uint32_t left = ((const struct bk_locate_place *)a)->channel;
    uint32_t right = ((const struct bk_locate_place *)b)->channel;
    return left < right ? -1 : left > right;
}

/* What the log was asked of @channel, NULL if it was not. */
static const struct bk_locate_place *place_of(const struct from *from, const struct bk_channel *channel)
{
    const struct bk_locate *located = from->located;
    const struct bk_locate_place wanted = {.channel = channel->id};
    return located == NULL || located->n_places == 0
               ? NULL
               : bsearch(&wanted, located->places, located->n_places, sizeof(wanted), compare_places);
}

/* What the log answered for @channel: a sequence; `last` + 1 if it has none of it. */
static bool find_located(const struct from *from, const struct bk_channel *channel, uint64_t *ret_sequence)
{
    const struct bk_locate_place *place = place_of(from, channel);
    *ret_sequence = place != NULL && place->sequence != 0 ? place->sequence : *ret_sequence;
    return place != NULL && place->sequence != 0;
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
        if (r == 0 && sequence > channel->last) {
            (void)find_located(from, channel, &sequence);
        }
        break;
    case FROM_SEQUENCE:
        sequence = BB_MAX(from->number, 1);
        break;
    case FROM_TIME:
        if (!find_located(from, channel, &sequence)) {
            sequence = sequence_at(core, channel, from->number);
        }
        break;
    case FROM_ID:
        if (!find_located(from, channel, &sequence)) {
            sequence = sequence_of_id(core, channel, from->id);
        }
        break;
    case FROM_AFTER:
    case FROM_CURSOR:
        sequence = 1; /* begin() sets those that are named */
        break;
    }
    *ret_covered = BB_MIN(sequence - 1, channel->last);
    return r;
}

static int
begin_channel(struct bk_core *core, struct bk_sub *sub, const struct from *from, struct bk_channel *channel)
{
    if (bk_sub_find_position(sub, channel) != NULL) {
        return 0;
    }
    struct bk_position *position = bk_sub_position(sub, channel);
    if (position == NULL) {
        return BB_ENOMEM;
    }
    position->stop = UINT64_MAX; /* while it is looked for where it begins */
    int r = begin_after(core, sub, from, channel, &position->covered);
    position->stop = bk_until_is_now(sub) ? channel->last : sub->new_stop;
    return r;
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

/* Whether what a client knew of @channel before still holds. */
static bool position_is_valid(const struct bk_core *core,
                              const struct from *from,
                              const struct bk_channel *channel,
                              uint64_t sequence)
{
    bool is_same_run = from->kind == FROM_CURSOR || from->run == core->config.run;
    bool is_logged = bk_store_of(core, channel) == BK_STORE_LOG;
    return is_same_run || (is_logged && sequence <= channel->loaded);
}

static void begin_named(struct bk_core *core, struct bk_sub *sub, const struct from *from)
{
    struct bb_mp_reader reader = bb_mp_reader(from->after);
    bool is_map = from->kind == FROM_AFTER;
    uint64_t n = is_map ? bb_mp_read_map(&reader) : bb_mp_read_array(&reader);
    for (uint64_t i = 0; i < n && reader.error == 0; i++) {
        if (!is_map) {
            (void)bb_mp_read_array(&reader);
        }
        struct bk_channel *channel = bk_channels_find(&core->channels, bb_mp_read_str(&reader));
        uint64_t sequence = bb_mp_read_uint(&reader);
        struct bk_position *position = channel != NULL ? bk_sub_find_position(sub, channel) : NULL;
        if (position != NULL && reader.error == 0 && position_is_valid(core, from, channel, sequence)) {
            position->covered = BB_MIN(sequence, channel->last);
        }
    }
}

/* What comes after it is in the log and not in the ring. */
static bool
is_behind_ring(const struct bk_core *core, const struct bk_sub *sub, const struct bk_position *position)
{
    const struct bk_channel *channel = position->channel;
    return sub->filter != NULL && bk_store_of(core, channel) == BK_STORE_LOG &&
           position->covered < channel->last && position->covered + 1 < channel->first &&
           channel->log_first < channel->first;
}

/* Positions in all channels that exist; the cursor before the first event wanted. */
static int begin(struct bk_core *core,
                 struct bk_sub *sub,
                 const struct bb_msg *msg,
                 const struct from *from,
                 struct bb_slice last)
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
    if (from->kind == FROM_AFTER || from->kind == FROM_CURSOR) {
        begin_named(core, sub, from);
    }
    if (last.len > 0) {
        bk_until_limit(core, sub, last, from->kind == FROM_AFTER && from->run != core->config.run);
    }
    sub->live = sub->until == BK_UNTIL_NONE && sub->snapshot == NULL;
    sub->cursor = bk_ring_end(&core->ring);
    for (size_t i = 0; i < sub->n_positions; i++) {
        struct bk_position *position = &sub->positions[i];
        if (is_behind_ring(core, sub, position)) {
            sub->live = false;
            bk_sub_set_cold(core, sub);
        } else if (position->covered < position->channel->last) {
            sub->live = false;
            sub->cursor = BB_MIN(sub->cursor, position->channel->first_pos);
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
        uint64_t first = position->cold ? BB_MIN(channel->log_first, channel->first) : channel->first;
        if (position->covered + 1 >= first) {
            continue;
        }
        uint64_t n = first - 1 - position->covered;
        bk_gap_add(core, sub,
                   &(struct bk_gap){
                       .channel = channel,
                       .from = position->covered + 1,
                       .to = first - 1,
                       .count = covers(msg->patterns, channel->name) ? n : BK_GAP_NO_NUMBER,
                       .reason = BK_COUNTER_gap_trimmed,
                   });
        position->covered = first - 1;
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
        const struct bk_channel *channel = bk_channels_find(&core->channels, name);
        if (channel != NULL && position_is_valid(core, from, channel, sequence)) {
            continue;
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
    struct bb_buf ends = BB_BUF_INIT;
    if (bk_until_is_now(sub)) {
        bk_until_write(sub, &ends);
    }
    if (core->nested.error != 0 || ends.error != 0) {
        bk_client_send_away(core, sub->client, BB_ENOMEM, NULL);
    } else {
        bk_client_send_msg(core, sub->client,
                           &(struct bb_msg){
                               .type = BB_MSG_SUBSCRIBED,
                               .corr = msg->corr,
                               .sub = sub->id,
                               .session = core->session,
                               .positions = bb_buf_slice(&core->nested),
                               .ends = bb_buf_slice(&ends),
                           });
    }
    bb_buf_fini(&ends);
}

/* Whether the log was asked, and what it did not look at is still in the ring. */
static bool is_located(const struct from *from, const struct bk_channel *channel)
{
    const struct bk_locate_place *place = place_of(from, channel);
    return place != NULL && (place->sequence != 0 || place->last + 1 >= channel->first);
}

/* What the log must be asked first, because the ring does not reach back so far; once more, if it has lost something of another channel
 * meanwhile. */
static int ask_log(struct bk_core *core,
                   struct bk_client *client,
                   const struct bb_msg *msg,
                   const struct bk_sub *sub,
                   const struct from *from,
                   bool *ret_asked)
{
    static const enum bk_locate_kind kinds[] = {
        [FROM_LAST] = BK_LOCATE_LAST, [FROM_TIME] = BK_LOCATE_TIME, [FROM_ID] = BK_LOCATE_ID};
    bool can = from->kind == FROM_LAST || from->kind == FROM_TIME || from->kind == FROM_ID;
    bool has_all = true;
    struct bb_buf places = BB_BUF_INIT;
    if (!can || sub->filter == NULL) {
        return 0;
    }
    for (size_t i = 0; i < core->channels.n_channels; i++) {
        const struct bk_channel *channel = core->channels.list[i];
        if (bk_store_of(core, channel) == BK_STORE_LOG && channel->log_first < channel->first &&
            channel->log_first <= channel->last) {
            struct bk_locate_place place = {.channel = channel->id};
            has_all = has_all && is_located(from, channel);
            bb_buf_append(&places, &place, sizeof(place));
        }
    }
    int r = places.error;
    if (r == 0 && !has_all) {
        qsort(places.data, places.len / sizeof(struct bk_locate_place), sizeof(struct bk_locate_place),
              compare_places);
        struct bk_locate locate = {
            .kind = kinds[from->kind],
            .time = from->number,
            .id = from->id,
            .filter = sub->filter,
            .places = (struct bk_locate_place *)(void *)places.data,
            .n_places = places.len / sizeof(struct bk_locate_place),
        };
        r = bk_ask_locate(core, client, msg, &locate);
        *ret_asked = r == 0;
    }
    bb_buf_fini(&places);
    return r;
}

/* Channels that the patterns name say what holds for those who do not. */
static void take_defaults(const struct bk_core *core,
                          const struct bb_msg *msg,
                          struct bk_sub *sub,
                          const struct options *options)
{
    struct bb_mp_reader reader = bb_mp_reader(msg->patterns);
    (void)bb_mp_read_array(&reader);
    const struct bk_channel *channel =
        bk_channels_find(&core->channels, bb_path_channel(bb_mp_read_str(&reader)));
    const struct bk_settings *settings = channel != NULL ? &channel->settings : &core->channels.defaults;
    if (!options->has_overflow) {
        sub->overflow = (enum bk_overflow)settings->overflow;
    }
    if (!options->has_view) {
        sub->early = settings->early;
    }
}

static int make_sub(struct bk_core *core,
                    struct bk_client *client,
                    const struct bb_msg *msg,
                    struct from *from,
                    struct options *options,
                    struct bk_sub **ret_sub)
{
    uint32_t n_patterns = 0;
    int r = count_patterns(core, client, msg, &n_patterns);
    if (r == 0) {
        r = read_from(msg->from, from);
    }
    if (r < 0) {
        return r;
    }
    struct bk_sub *sub = bk_sub_new(n_patterns);
    if (sub == NULL) {
        return BB_ENOMEM;
    }
    r = read_options(msg->options, sub, options);
    take_defaults(core, msg, sub, options);
    if (r == 0 && bb_map_find(&client->subs_by_id, bb_slice(&msg->sub, sizeof(msg->sub))) != NULL) {
        r = BB_EEXISTS;
    }
    if (r == 0 && core->stage.backend != NULL) {
        r = bk_filter_new(msg->patterns, &sub->filter);
    }
    if (r == BB_ELIMIT) {
        r = 0; /* so many patterns are fed from the ring alone */
    }
    if (r < 0) {
        bk_sub_free(sub, &core->route);
        return r;
    }
    *ret_sub = sub;
    return 0;
}

/* A cursor that exists decides where the subscription begins. */
static void take_cursor(const struct bk_core *core, const struct options *options, struct from *from)
{
    struct bb_slice positions =
        options->durable.len > 0 ? bk_cursor_find(core, options->durable) : (struct bb_slice){0};
    if (positions.len > 0 && from->kind != FROM_AFTER) {
        from->kind = FROM_CURSOR;
        from->after = positions;
    }
}

static int subscribe(struct bk_core *core,
                     struct bk_client *client,
                     const struct bb_msg *msg,
                     const struct bk_locate *located)
{
    struct from from = {.kind = FROM_NEW};
    struct options options = {0};
    struct bk_sub *sub = NULL;
    bool asked = false;
    int r = make_sub(core, client, msg, &from, &options, &sub);
    if (r < 0) {
        return r;
    }
    from.located = located;
    take_cursor(core, &options, &from);
    r = ask_log(core, client, msg, sub, &from, &asked);
    if (r < 0 || asked) {
        bk_sub_free(sub, &core->route);
        return r;
    }
    r = sub_add(core, client, msg, sub);
    if (r == 0 && options.retained) {
        r = bk_snapshot_start(core, sub, msg->patterns);
    }
    if (r == 0) {
        r = begin(core, sub, msg, &from, options.last);
    }
    if (r < 0) {
        bk_sub_remove(core, sub);
        return r;
    }
    sub->is_begun = true;
    core->n_until += sub->until == BK_UNTIL_TIME;
    core->n_early += sub->early;
    client->n_early += sub->early;
    sub->early_seen = core->stage.n_gone;
    if (sub->until == BK_UNTIL_TIME) {
        bk_tick_by(core, 0);
    }
    bk_count(core, BK_COUNTER_subscribes, 1);
    send_subscribed(core, sub, msg);
    bool is_void = from.kind == FROM_AFTER && from.run != core->config.run;
    if (client->state != BK_CLIENT_GONE && is_void) {
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

void bk_subscribe_located(struct bk_core *core,
                          struct bk_client *client,
                          const struct bb_msg *msg,
                          const struct bk_locate *located)
{
    bk_fan_out(core); /* what came before the subscription does not go to it as new */
    if (client->state == BK_CLIENT_GONE) {
        return;
    }
    int r = subscribe(core, client, msg, located);
    if (r < 0) {
        bk_client_send_error(core, client, msg->type, msg->corr, r, NULL, (struct bb_slice){0});
    }
}

void bk_handle_subscribe(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    bk_subscribe_located(core, client, msg, NULL);
}

void bk_sub_remove(struct bk_core *core, struct bk_sub *sub)
{
    struct bk_client *client = sub->client;
    for (size_t i = 0; i < sub->n_positions; i++) {
        bk_count(core, BK_COUNTER_gap_client_gone, sub->positions[i].pending + sub->positions[i].lost);
    }
    bk_sub_clear_ready(core, sub);
    bk_cold_end(sub);
    bk_snapshot_end(sub);
    core->n_lagging -= !sub->live;
    if (sub->is_begun) {
        core->n_until -= sub->until == BK_UNTIL_TIME;
        core->n_early -= sub->early;
        client->n_early -= sub->early;
    }
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
