/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/requests/begin.h"

#include "proto/wire/path.h"

#include "broker/core/backend.h"
#include "broker/core/clients/client.h"
#include "broker/core/deliver/cold.h"
#include "broker/core/deliver/end.h"
#include "broker/core/deliver/fanout.h"
#include "broker/core/deliver/retained.h"
#include "broker/core/deliver/until.h"
#include "broker/core/filter.h"
#include "broker/core/keep/channel.h"
#include "broker/core/keep/life.h"
#include "broker/core/keep/ring.h"
#include "broker/core/log/ask.h"
#include "broker/core/log/cursor.h"
#include "broker/core/requests/wishes.h"
#include "broker/core/state.h"
#include "broker/core/subs/account.h"
#include "broker/core/subs/claim.h"
#include "broker/core/subs/gap.h"
#include "broker/core/subs/ready.h"
#include "broker/core/subs/route.h"
#include "broker/core/subs/sub.h"
#include "broker/core/subs/wanted.h"

#include <stdlib.h>

/* The log's answer, while it is waited for. */
struct asked {
    struct bk_ask ask;
    struct bk_beginning beginning;
    struct bb_buf copy; /* of the subscribe message */
    struct bk_locate locate;
};

struct begin {
    struct bk_core *core;
    struct bk_sub *sub;
    const struct bb_msg *msg;
    const struct bk_wishes *wishes;
    const struct bk_locate *located; /* NULL: the log was not asked */
    const char *text;                /* why it cannot be, if there is more to say than the error does */
};

/* --- what the log is asked ---------------------------------------------------------------------------------- */

static int compare_places(const void *a, const void *b)
{
    uint32_t left = ((const struct bk_locate_place *)a)->channel;
    uint32_t right = ((const struct bk_locate_place *)b)->channel;
    return left < right ? -1 : left > right;
}

/* What the log was asked of @channel, NULL if it was not. */
static const struct bk_locate_place *place_of(const struct begin *begin, const struct bk_channel *channel)
{
    const struct bk_locate *located = begin->located;
    const struct bk_locate_place wanted = {.channel = channel->id};
    return located == NULL || located->n_places == 0
               ? NULL
               : bsearch(&wanted, located->places, located->n_places, sizeof(wanted), compare_places);
}

/* Whether the log was asked, and what it did not look at is still in the ring. */
static bool is_located(const struct begin *begin, const struct bk_channel *channel)
{
    const struct bk_locate_place *place = place_of(begin, channel);
    return place != NULL && (place->sequence != 0 || place->last + 1 >= channel->first);
}

static bool log_has_older(const struct bk_core *core, const struct bk_channel *channel)
{
    return bk_store_of(core, channel) == BK_STORE_LOG && channel->log_first < channel->first &&
           channel->log_first <= channel->last;
}

/* The channels in which the log must be looked at; whether it has been. */
static bool collect_places(const struct begin *begin, struct bb_buf *places)
{
    const struct bk_core *core = begin->core;
    bool has_all = true;
    for (size_t i = 0; i < core->channels.n_channels; i++) {
        const struct bk_channel *channel = core->channels.list[i];
        if (log_has_older(core, channel) && bk_wishes_can_match(begin->msg->patterns, channel->name)) {
            struct bk_locate_place place = {.channel = channel->id};
            has_all = has_all && is_located(begin, channel);
            bb_buf_append(places, &place, sizeof(place));
        }
    }
    return has_all;
}

static void on_located(void *context, struct bk_request *request);

static void asked_free(struct asked *asked)
{
    bk_filter_unref(asked->locate.filter);
    free(asked->locate.places);
    bb_buf_fini(&asked->copy);
    free(asked);
}

static int submit(const struct begin *begin, enum bk_locate_kind kind, struct bb_buf *places)
{
    struct bk_core *core = begin->core;
    struct asked *asked = calloc(1, sizeof(*asked));
    if (asked == NULL) {
        return BB_ENOMEM;
    }
    bb_msg_encode(&asked->copy, begin->msg);
    int r =
        asked->copy.error != 0 ? BB_ENOMEM : bk_ask_begin(core, begin->sub->client, begin->msg, &asked->ask);
    if (r < 0) {
        asked_free(asked);
        return r;
    }
    asked->beginning.sub = begin->sub;
    begin->sub->beginning = &asked->beginning;
    asked->locate = (struct bk_locate){
        .request = {.kind = BK_REQUEST_LOCATE, .done = on_located, .context = asked},
        .kind = kind,
        .time = begin->wishes->from.number,
        .id = begin->wishes->from.id,
        .filter = bk_filter_ref(begin->sub->filter),
        .places = (struct bk_locate_place *)(void *)places->data,
        .n_places = places->len / sizeof(struct bk_locate_place),
    };
    *places = BB_BUF_INIT; /* it is the request's now */
    core->stage.backend->ops->submit(core->stage.backend, &asked->locate.request);
    return 0;
}

/* Ask the log what the ring does not reach back to; once more, if the ring has lost something else meanwhile. */
static int ask_log(const struct begin *begin, bool *ret_asked)
{
    static const enum bk_locate_kind kinds[] = {
        [BK_FROM_LAST] = BK_LOCATE_LAST, [BK_FROM_TIME] = BK_LOCATE_TIME, [BK_FROM_ID] = BK_LOCATE_ID};
    enum bk_from_kind from = begin->wishes->from.kind;
    bool can = from == BK_FROM_LAST || from == BK_FROM_TIME || from == BK_FROM_ID;
    struct bb_buf places = BB_BUF_INIT;
    *ret_asked = false;
    if (!can || begin->sub->filter == NULL) {
        return 0;
    }
    bool has_all = collect_places(begin, &places);
    int r = places.error;
    if (r == 0 && !has_all) {
        qsort(places.data, places.len / sizeof(struct bk_locate_place), sizeof(struct bk_locate_place),
              compare_places);
        r = submit(begin, kinds[from], &places);
        *ret_asked = r == 0;
    }
    bb_buf_fini(&places);
    return r;
}

/* --- positions --------------------------------------------------------------------------------------------- */

static int note_sequence(void *context, const struct bk_item *item)
{
    *(uint64_t *)context = bk_item_last(item);
    return 0;
}

/* The newest matching event of a channel, its last sequence + 1 if the ring has none; where the subscription ends does not matter. */
static int find_last(const struct begin *begin, struct bk_channel *channel, uint64_t *ret_sequence)
{
    struct bk_core *core = begin->core;
    struct bk_sub *sub = begin->sub;
    uint64_t until_time = sub->until_time;
    const struct bk_block *block = bk_ring_newest_of(&core->ring, channel);
    int r = 0;
    *ret_sequence = channel->last + 1;
    sub->until_time = UINT64_MAX;
    for (; r == 0 && *ret_sequence > channel->last && block != NULL;
         block = bk_ring_previous_of(&core->ring, block)) {
        bk_route_trim(&core->route);
        r = bk_wanted_each(core, sub, block, UINT64_MAX, note_sequence, ret_sequence);
    }
    sub->until_time = until_time;
    return r;
}

static uint64_t sequence_at(const struct bk_core *core, const struct bk_channel *channel, uint64_t time)
{
    const struct bk_block *block = bk_ring_newest_of(&core->ring, channel);
    uint64_t found = channel->last + 1;
    for (; block != NULL && block->time >= time; block = bk_ring_previous_of(&core->ring, block)) {
        found = BB_MAX(block->sequence, channel->first);
    }
    return found;
}

static bool is_behind_id(struct bk_event_id id, uint64_t session, uint64_t instance)
{
    return session > id.session || (session == id.session && instance > id.instance);
}

/* Whether the broker has had any event that may be above @id. */
static bool has_later(const struct bk_core *core, struct bk_event_id id)
{
    return is_behind_id(id, core->session, UINT64_MAX);
}

/* Behind the newest event that is not above @id. If there is none any more, how many of those that have gone were above it nobody knows: 1,
 * unless @has_older: the log has some, none of them above. */
static uint64_t sequence_of_id(const struct bk_core *core,
                               const struct bk_channel *channel,
                               struct bk_event_id id,
                               bool has_older)
{
    const struct bk_block *block = bk_ring_oldest_of(&core->ring, channel);
    has_older = has_older || !has_later(core, id);
    for (; block != NULL; block = bk_ring_next_of(&core->ring, block)) {
        if (!is_behind_id(id, block->session, (uint64_t)block->instance + block->count - 1)) {
            has_older = true;
        } else if (block->session == id.session && id.instance >= block->instance) {
            return block->sequence + (id.instance - block->instance + 1);
        } else {
            return has_older ? block->sequence : 1;
        }
    }
    return has_older ? channel->last + 1 : 1;
}

static uint64_t oldest(const struct bk_core *core, const struct bk_sub *sub, const struct bk_channel *channel)
{
    bool has_log = sub->filter != NULL && bk_store_of(core, channel) == BK_STORE_LOG;
    return has_log ? BB_MIN(channel->log_first, channel->first) : channel->first;
}

/* The sequence of @channel with which the subscription begins. */
static int find_sequence(const struct begin *begin, struct bk_channel *channel, uint64_t *ret_sequence)
{
    const struct bk_from *from = &begin->wishes->from;
    const struct bk_locate_place *place = place_of(begin, channel);
    bool is_in_log = place != NULL && place->sequence != 0;
    switch (from->kind) {
    case BK_FROM_NEW:
        *ret_sequence = channel->last + 1;
        break;
    case BK_FROM_LAST: {
        int r = find_last(begin, channel, ret_sequence);
        *ret_sequence = *ret_sequence > channel->last && is_in_log ? place->sequence : *ret_sequence;
        return r;
    }
    case BK_FROM_OLDEST:
        *ret_sequence = oldest(begin->core, begin->sub, channel);
        break;
    case BK_FROM_SEQUENCE:
        *ret_sequence = BB_MAX(from->number, 1);
        break;
    case BK_FROM_TIME:
        *ret_sequence = is_in_log ? place->sequence : sequence_at(begin->core, channel, from->number);
        break;
    case BK_FROM_ID:
        *ret_sequence = is_in_log && has_later(begin->core, from->id)
                            ? place->sequence
                            : sequence_of_id(begin->core, channel, from->id, place != NULL);
        break;
    case BK_FROM_AFTER:
    case BK_FROM_CURSOR:
        *ret_sequence = 1; /* take_named() sets those that are named */
        break;
    }
    return 0;
}

/* Each channel where it is now, or where `last` says. */
static bool ends_now(const struct begin *begin)
{
    const struct bk_until_wish *until = &begin->wishes->until;
    return until->kind == BK_UNTIL_STOP && until->stop == 0;
}

static int begin_channel(const struct begin *begin, struct bk_channel *channel)
{
    struct bk_position *position = bk_sub_position(begin->sub, channel);
    uint64_t sequence = 1;
    if (position == NULL) {
        return BB_ENOMEM;
    }
    uint64_t stop = ends_now(begin) ? channel->last : position->stop;
    position->stop = UINT64_MAX; /* while it is looked for where it begins */
    int r = find_sequence(begin, channel, &sequence);
    position->account.covered = BB_MIN(sequence - 1, channel->last);
    position->stop = stop;
    if (begin->sub->until == BK_UNTIL_TIME) { /* the ring knows of some that are too late */
        uint64_t late = sequence_at(begin->core, channel, begin->sub->until_time + 1);
        position->stop = late <= channel->last ? late - 1 : position->stop;
    }
    return r;
}

/* Positions in all channels that exist and that a pattern can match. */
static int begin_channels(const struct begin *begin)
{
    struct bb_mp_reader reader = bb_mp_reader(begin->msg->patterns);
    const struct bk_channels *channels = &begin->core->channels;
    uint32_t n = bb_mp_read_array(&reader);
    int r = 0;
    for (uint32_t i = 0; i < n && r == 0; i++) {
        struct bb_slice name = bb_path_channel(bb_mp_read_str(&reader));
        struct bk_channel *channel = bk_channels_find(channels, name);
        bool is_any = name.len == 1 && (name.data[0] == '?' || name.data[0] == '*');
        if (is_any) {
            for (size_t k = 0; k < channels->n_channels && r == 0; k++) {
                channel = channels->list[k];
                bool is_new = bk_sub_find_position(begin->sub, channel) == NULL;
                r = is_new && !bk_channel_is_empty(channel) ? begin_channel(begin, channel) : 0;
            }
        } else if (channel != NULL && !bk_channel_is_empty(channel) &&
                   bk_sub_find_position(begin->sub, channel) == NULL) {
            r = begin_channel(begin, channel);
        }
    }
    return r;
}

/* --- named positions ----------------------------------------------------------------------------------------- */

typedef void named_fn(const struct begin *begin, struct bb_slice name, const struct bk_claim *claim);

/* What a resume, or a cursor, says of channels. It was checked when it came. */
static void each_named(const struct begin *begin, named_fn *on_named)
{
    const struct bk_from *from = &begin->wishes->from;
    struct bb_mp_reader reader = bb_mp_reader(from->after);
    bool is_map = from->kind == BK_FROM_AFTER;
    uint64_t n = is_map ? bb_mp_read_map(&reader) : bb_mp_read_array(&reader);
    for (uint64_t i = 0; i < n && reader.error == 0; i++) {
        struct bk_claim claim = {0};
        uint32_t n_fields = is_map ? 0 : bb_mp_read_array(&reader);
        struct bb_slice name = bb_mp_read_str(&reader);
        if (is_map) {
            bk_claim_read(&reader, &claim);
        } else {
            claim.sequence = bb_mp_read_uint(&reader);
            claim.life = n_fields == 3 ? bb_mp_read_uint(&reader) : 0;
        }
        if (reader.error == 0) {
            on_named(begin, name, &claim);
        }
    }
}

/* A sequence in which it ends is one of the channel in which it was before. */
/* The beginning, without a life, of what is not there and was not removed; or saved before there were lives: nothing is lost. */
static bool is_nothing(const struct begin *begin, struct bb_slice name, const struct bk_claim *claim)
{
    const struct bk_channels *channels = &begin->core->channels;
    const struct bk_channel *channel = bk_channels_find(channels, name);
    bool is_there = channel != NULL && !bk_channel_is_empty(channel);
    return claim->sequence == 0 && claim->life == 0 &&
           (begin->wishes->from.kind == BK_FROM_CURSOR ||
            (!is_there && bb_map_find(&channels->removed, name) == NULL));
}

static void end_in_void(const struct begin *begin, struct bb_slice name, const struct bk_claim *claim)
{
    const struct bk_channel *channel = bk_channels_find(&begin->core->channels, name);
    uint64_t upto = 0;
    if (!is_nothing(begin, name, claim) && bk_wishes_can_match(begin->msg->patterns, name) &&
        (channel == NULL || bk_channel_is_empty(channel) ||
         bk_claim_judge(channel, claim, begin->wishes->from.run, &upto) == BK_POSITION_VOID)) {
        bk_sub_end_in(begin->sub, name);
    }
}

static void take_named(const struct begin *begin, struct bb_slice name, const struct bk_claim *claim)
{
    const struct bk_channel *channel = bk_channels_find(&begin->core->channels, name);
    struct bk_position *position = channel != NULL ? bk_sub_find_position(begin->sub, channel) : NULL;
    uint64_t upto = 0;
    if (position == NULL) {
        return;
    }
    enum bk_verdict verdict = bk_claim_judge(channel, claim, begin->wishes->from.run, &upto);
    position->account.covered = verdict == BK_POSITION_HOLDS   ? claim->sequence
                                : verdict == BK_POSITION_ENDED ? upto
                                                               : 0;
}

/* What is void is told as a gap (PROTOCOL 7.5). */
static void tell_named(const struct begin *begin, struct bb_slice name, const struct bk_claim *claim)
{
    struct bk_channel *channel = bk_channels_find(&begin->core->channels, name);
    bool is_there = channel != NULL && bk_sub_find_position(begin->sub, channel) != NULL;
    uint64_t upto = 0;
    if (!is_there && !bk_wishes_can_match(begin->msg->patterns, name)) {
        return;
    }
    enum bk_verdict verdict =
        is_there ? bk_claim_judge(channel, claim, begin->wishes->from.run, &upto) : BK_POSITION_VOID;
    if (verdict == BK_POSITION_HOLDS || is_nothing(begin, name, claim)) {
        return;
    }
    bool is_void = verdict == BK_POSITION_VOID;
    bk_gap_add(begin->core,
               &(struct bk_gap){
                   .channel = is_there ? channel : NULL,
                   .name = name,
                   .from = is_void ? claim->sequence + 1 : upto + 1,
                   .to = is_void ? BK_NO_NUMBER : claim->sequence,
                   .count = BK_NO_NUMBER,
                   .reason = is_void ? BK_REASON_RESTART : BK_REASON_RETRACTED,
                   .life = is_there ? bk_sub_life_at(begin->sub, channel, is_void ? 0 : upto) : 0,
               });
}

/* Where `until` with `last` ends: what the life of a channel has not reached any more is not waited for. */
static void limit(const struct begin *begin)
{
    struct bb_mp_reader reader = bb_mp_reader(begin->wishes->until.last);
    if (begin->wishes->until.last.len == 0) {
        return;
    }
    for (size_t i = 0; i < begin->sub->n_positions; i++) {
        begin->sub->positions[i].stop = 0;
    }
    uint64_t n = bb_mp_read_map(&reader);
    uint64_t run = begin->wishes->from.kind == BK_FROM_AFTER ? begin->wishes->from.run : 0;
    for (uint64_t i = 0; i < n; i++) {
        struct bk_claim claim;
        struct bb_slice name = bb_mp_read_str(&reader);
        bk_claim_read(&reader, &claim);
        const struct bk_channel *channel = bk_channels_find(&begin->core->channels, name);
        struct bk_position *position = channel != NULL ? bk_sub_find_position(begin->sub, channel) : NULL;
        uint64_t upto = 0;
        if (channel != NULL && claim.life == 0 && run == 0) {
            claim.life = channel->lives.now; /* nothing says that it is of another */
        }
        enum bk_verdict verdict =
            position != NULL ? bk_claim_judge(channel, &claim, run, &upto) : BK_POSITION_VOID;
        if (verdict != BK_POSITION_VOID) {
            position->stop = BB_MIN(verdict == BK_POSITION_ENDED ? upto : claim.sequence, channel->last);
        }
    }
}

/* --- what is not kept any more ------------------------------------------------------------------------------- */

/* What comes after it is in the log and not in the ring. */
static bool
is_behind_ring(const struct bk_core *core, const struct bk_sub *sub, const struct bk_position *position)
{
    const struct bk_channel *channel = position->channel;
    uint64_t covered = position->account.covered;
    return sub->filter != NULL && log_has_older(core, channel) &&
           covered < BB_MIN(channel->last, position->stop) && covered + 1 < channel->first;
}

static void go_cold_if_behind(struct bk_core *core, struct bk_sub *sub)
{
    for (size_t i = 0; i < sub->n_positions; i++) {
        if (is_behind_ring(core, sub, &sub->positions[i])) {
            bk_sub_set_cold(core, sub);
            return;
        }
    }
}

static void tell_trimmed(const struct begin *begin)
{
    struct bk_core *core = begin->core;
    struct bk_sub *sub = begin->sub;
    for (size_t i = 0; i < sub->n_positions; i++) {
        struct bk_position *position = &sub->positions[i];
        struct bk_channel *channel = position->channel;
        uint64_t covered = position->account.covered;
        uint64_t first = position->is_cold ? BB_MIN(channel->log_first, channel->first) : channel->first;
        uint64_t to = BB_MIN(first - 1, position->stop);
        if (to <= covered) {
            continue;
        }
        /* How many of them lie before a time, or behind an id, nobody knows any more. */
        bool is_in_doubt =
            sub->until == BK_UNTIL_TIME || (begin->wishes->from.kind == BK_FROM_ID && covered == 0);
        bool is_known = !is_in_doubt && bk_wishes_cover(begin->msg->patterns, channel->name);
        bk_gap_add(core, &(struct bk_gap){.channel = channel,
                                          .name = channel->name,
                                          .from = covered + 1,
                                          .to = to,
                                          .count = is_known ? to - covered : BK_NO_NUMBER,
                                          .reason = BK_REASON_TRIMMED});
        bk_account_report_unseen(&position->account, to, is_known ? to - covered : 0);
    }
}

/* --- telling ------------------------------------------------------------------------------------------------ */

/* Where it begins, as core->nested. */
static int write_positions(const struct begin *begin)
{
    struct bk_core *core = begin->core;
    struct bk_sub *sub = begin->sub;
    bb_buf_reset(&core->nested);
    bb_mp_write_array(&core->nested, (uint32_t)sub->n_positions);
    for (size_t i = 0; i < sub->n_positions; i++) {
        struct bk_position *position = &sub->positions[i];
        position->life = bk_sub_life_at(sub, position->channel, position->account.covered);
        position->begin = position->account.covered;
        sub->is_ahead = sub->is_ahead || position->begin > position->channel->last;
        bb_mp_write_array(&core->nested, sub->has_lives ? 3 : 2);
        bb_mp_write_str(&core->nested, position->channel->name);
        bb_mp_write_uint(&core->nested, position->account.covered);
        if (sub->has_lives) {
            bb_mp_write_uint(&core->nested, position->life);
        }
    }
    return core->nested.error != 0 ? BB_ENOMEM : 0;
}

/*
 * A durable name that is new gets its cursor where the subscription begins (PROTOCOL 15.3), so that nothing is left out however soon its
 * client ends. Who resumes without one has received more than it has worked off: it says itself how far it is.
 */
static int make_cursor(struct begin *begin)
{
    const struct bk_wishes *wishes = begin->wishes;
    bool has_place = wishes->from.kind == BK_FROM_AFTER || wishes->from.kind == BK_FROM_CURSOR;
    if (wishes->durable.len == 0 || has_place) {
        return 0;
    }
    int r = bk_cursor_change(begin->core, wishes->durable, bb_buf_slice(&begin->core->nested));
    begin->text = r == BB_ELIMIT ? "there is no room for the cursor of a new durable name" : NULL;
    return r;
}

/* With the positions that core->nested holds. */
static void send_subscribed(const struct begin *begin)
{
    struct bk_core *core = begin->core;
    const struct bk_sub *sub = begin->sub;
    struct bb_buf ends = BB_BUF_INIT;
    if (bk_until_is_now(sub)) {
        bk_until_write(sub, &ends);
    }
    if (ends.error != 0) {
        bk_client_send_away(core, sub->client, BB_ENOMEM, NULL);
    } else {
        bk_client_send_msg(core, sub->client,
                           &(struct bb_msg){
                               .type = BB_MSG_SUBSCRIBED,
                               .corr = begin->msg->corr,
                               .sub = sub->id,
                               .session = core->session,
                               .positions = bb_buf_slice(&core->nested),
                               .ends = bb_buf_slice(&ends),
                           });
    }
    bb_buf_fini(&ends);
}

/* --- the whole ---------------------------------------------------------------------------------------------- */

static int add_patterns(const struct begin *begin)
{
    struct bb_mp_reader reader = bb_mp_reader(begin->msg->patterns);
    struct bk_sub *sub = begin->sub;
    int r = 0;
    (void)bb_mp_read_array(&reader);
    for (size_t i = 0; i < sub->n_patterns && r == 0; i++) {
        r = bk_route_add(&begin->core->route, &sub->patterns[i], bb_mp_read_str(&reader));
    }
    return r;
}

static void count_begun(struct bk_core *core, struct bk_sub *sub)
{
    core->n_until += sub->until != BK_UNTIL_NONE;
    core->n_early += sub->is_early;
    sub->client->n_early += sub->is_early;
    sub->early_seen = core->stage.n_gone;
    if (sub->until != BK_UNTIL_NONE) {
        bk_tick_by(core, 0);
    }
    bk_count(core, BK_COUNTER_subscribes, 1);
}

/* From where the ring has what it lacks; whether it lacks anything. */
static bool set_cursor(const struct bk_core *core, struct bk_sub *sub)
{
    bool has_all = sub->n_cold == 0;
    sub->cursor = core->fanned_pos;
    for (size_t i = 0; i < sub->n_positions; i++) {
        const struct bk_position *position = &sub->positions[i];
        if (!position->is_cold && position->account.covered < position->channel->last) {
            has_all = false;
            sub->cursor = BB_MIN(sub->cursor, position->channel->first_pos);
        }
    }
    return has_all;
}

static void enter_flow(struct bk_core *core, struct bk_sub *sub)
{
    bool has_all = set_cursor(core, sub);
    bool is_live = has_all && sub->until == BK_UNTIL_NONE && sub->retained == NULL;
    bk_sub_enter(core, sub, sub->retained != NULL ? BK_SUB_RETAINED : is_live ? BK_SUB_LIVE : BK_SUB_LAGGING);
    if (!is_live && bk_wanted_recount(core, sub) < 0) {
        bk_client_send_away(core, sub->client, BB_ENOMEM, NULL);
        return;
    }
    if (sub->retained != NULL) {
        bk_retained_ask(core, sub);
    }
    bk_sub_set_ready(core, sub);
}

/* A cursor that exists decides where the subscription begins. */
static void take_cursor(const struct bk_core *core, struct bk_wishes *wishes)
{
    struct bb_slice positions =
        wishes->durable.len > 0 ? bk_cursor_find(core, wishes->durable) : (struct bb_slice){0};
    if (positions.len > 0 && wishes->from.kind != BK_FROM_AFTER) {
        wishes->from.kind = BK_FROM_CURSOR;
        wishes->from.after = positions;
        wishes->from.run = 1; /* what has no life stems from before there were any */
    }
}

static int begin_or_ask(struct begin *begin)
{
    struct bk_core *core = begin->core;
    struct bk_sub *sub = begin->sub;
    bool asked = false;
    int r = ask_log(begin, &asked);
    if (r < 0 || asked) {
        return r;
    }
    r = add_patterns(begin);
    if (r == 0 && begin->wishes->wants_retained) {
        r = bk_retained_start(core, sub, begin->msg->patterns);
    }
    if (r == 0 && begin->wishes->from.kind == BK_FROM_AFTER && !ends_now(begin)) {
        each_named(begin, end_in_void);
    }
    r = r == 0 ? begin_channels(begin) : r;
    if (r < 0) {
        return r;
    }
    each_named(begin, take_named);
    r = write_positions(begin);
    r = r == 0 ? make_cursor(begin) : r;
    if (r < 0) {
        return r;
    }
    limit(begin);
    go_cold_if_behind(core, sub);
    count_begun(core, sub);
    send_subscribed(begin);
    each_named(begin, tell_named);
    tell_trimmed(begin);
    bk_gaps_send(core, sub);
    enter_flow(core, sub);
    return 0;
}

int bk_begin(struct bk_core *core,
             struct bk_sub *sub,
             const struct bb_msg *msg,
             struct bk_wishes *wishes,
             const char **ret_text)
{
    struct begin begin = {core, sub, msg, wishes, NULL, NULL};
    if (wishes->from.run > core->channels.run) {
        wishes->from.run = 0; /* of another broker, or of a future that does not come */
    }
    take_cursor(core, wishes);
    int r = begin_or_ask(&begin);
    *ret_text = begin.text;
    return r;
}

/* The message is read again: it was right before. */
static int go_on(struct bk_core *core, struct asked *asked, const char **ret_text)
{
    struct bb_msg msg = {0};
    struct bk_wishes wishes;
    struct begin begin = {core, asked->beginning.sub, &msg, &wishes, &asked->locate, NULL};
    int r = bb_msg_decode(bb_buf_slice(&asked->copy), &msg);
    r = r == 0 ? bk_wishes_read(&msg, &wishes) : r;
    if (r == 0) {
        take_cursor(core, &wishes);
        r = begin_or_ask(&begin);
        *ret_text = begin.text;
    }
    return r;
}

static void on_located(void *context, struct bk_request *request)
{
    struct asked *asked = context;
    struct bk_core *core = asked->ask.core;
    struct bk_sub *sub = asked->beginning.sub;
    if (sub == NULL) {
        bk_ask_refuse(&asked->ask, BB_EREFUSED, "the subscription was ended before it began");
    } else {
        sub->beginning = NULL;
        bk_fan_out(core); /* what came before the subscription does not go to it as new */
        const char *text = NULL;
        int r = request->error != 0 ? request->error : go_on(core, asked, &text);
        if (r < 0) {
            bk_ask_refuse(&asked->ask, r, text);
            bk_sub_remove(core, sub);
        }
    }
    bk_ask_end(&asked->ask);
    asked_free(asked);
}
