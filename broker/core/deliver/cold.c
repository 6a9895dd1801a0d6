/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the log for subscriptions. When what follows a position is in the log and not in the ring, all positions of the
 * subscription in logged channels become cold: events of several channels come in the order of their sessions, which only one
 * source can give. One piece at a time is asked of the backend, with the paths already chosen there, and goes out as it comes;
 * when the ring has the rest of all, they are warm again and the cursor goes back to where it follows. Nothing comes twice,
 * since whatever is taken from the ring is held against the position first. A piece under way when a channel is removed is abandoned
 * whole, for its bytes are of all channels together.
 */
#include "broker/core/deliver/cold.h"

#include "broker/core/backend.h"
#include "broker/core/bytes.h"
#include "broker/core/clients/client.h"
#include "broker/core/deliver/parcel.h"
#include "broker/core/deliver/send.h"
#include "broker/core/filter.h"
#include "broker/core/keep/channel.h"
#include "broker/core/keep/ring.h"
#include "broker/core/state.h"
#include "broker/core/subs/account.h"
#include "broker/core/subs/gap.h"
#include "broker/core/subs/ready.h"
#include "broker/core/subs/sub.h"
#include "broker/core/subs/wanted.h"

#include <stdlib.h>

/* A piece that could not be sent for so long, for want of credit or room, is read again. */
#define WAIT_MAX_US UINT64_C(10000)

/* A piece of the log under way to a subscription. */
struct bk_sub_read {
    struct bk_read read;
    struct bk_core *core;
    struct bk_sub *sub; /* NULL: it is not wanted any more */
    uint64_t done_at;   /* monotonic */
    struct bk_read_range ranges[];
};

static void read_free(struct bk_sub_read *reading)
{
    bk_filter_unref(reading->read.filter);
    bk_bytes_unref(reading->read.body);
    bb_buf_fini(&reading->read.losses);
    free(reading);
}

static void on_read(void *context, struct bk_request *request)
{
    struct bk_sub_read *reading = context;
    (void)request;
    if (reading->sub == NULL) {
        read_free(reading);
        return;
    }
    reading->sub->is_reading = false;
    reading->done_at = reading->core->monotonic;
    bk_sub_set_ready(reading->core, reading->sub);
}

static int start_read(struct bk_core *core, struct bk_sub *sub)
{
    struct bk_sub_read *reading = calloc(1, sizeof(*reading) + sub->n_cold * sizeof(reading->ranges[0]));
    if (reading == NULL) {
        return BB_ENOMEM;
    }
    reading->core = core;
    reading->sub = sub;
    reading->read = (struct bk_read){
        .request = {.kind = BK_REQUEST_READ, .done = on_read, .context = reading},
        .filter = bk_filter_ref(sub->filter),
        .ranges = reading->ranges,
        .max_bytes = BK_ROUND_BYTES,
        .now = core->wall,
        .hint = sub->read_hint,
    };
    for (size_t i = 0; i < sub->n_positions; i++) {
        const struct bk_position *position = &sub->positions[i];
        uint64_t after = bk_account_settled(&position->account);
        if (position->is_cold) {
            reading->ranges[reading->read.n_ranges++] = (struct bk_read_range){
                .channel = position->channel->id,
                .after = after,
                .stop = BB_MIN(position->stop, position->channel->last),
                .stop_time = sub->until_time,
                .reached = after,
            };
        }
    }
    sub->read = reading;
    sub->is_reading = true;
    bk_count(core, BK_COUNTER_log_reads, 1);
    core->stage.backend->ops->submit(core->stage.backend, &reading->read.request);
    return 0;
}

void bk_cold_abandon(struct bk_sub *sub)
{
    struct bk_sub_read *reading = sub->read;
    if (reading != NULL && sub->is_reading) {
        reading->sub = NULL;
    } else if (reading != NULL) {
        read_free(reading);
    }
    sub->read = NULL;
    sub->is_reading = false;
    sub->read_hint = 0;
}

/* --- going cold and getting warm ------------------------------------------------------------------- */

void bk_sub_set_cold(struct bk_core *core, struct bk_sub *sub)
{
    for (size_t i = 0; i < sub->n_positions; i++) {
        struct bk_position *position = &sub->positions[i];
        if (!position->is_cold && bk_store_of(core, position->channel) == BK_STORE_LOG) {
            position->is_cold = true;
            sub->lag_bytes -= bk_account_leave_to_log(&position->account);
            sub->n_cold++;
            sub->read_hint = 0;
            bk_count(core, BK_COUNTER_cold_begins, 1);
        }
    }
}

void bk_cold_store_changed(struct bk_core *core, struct bk_sub *sub, const struct bk_channel *channel)
{
    struct bk_position *position = bk_sub_find_position(sub, channel);
    bool is_cold = sub->n_cold > 0 && bk_store_of(core, channel) == BK_STORE_LOG;
    if (position == NULL || position->is_cold == is_cold) {
        return;
    }
    bk_cold_abandon(sub);
    position->is_cold = is_cold;
    sub->n_cold = is_cold ? sub->n_cold + 1 : sub->n_cold - 1;
    bk_sub_set_ready(core, sub);
}

/* The log says that @range is over before its end: what comes after it is later than the subscription wants. */
static void note_end(struct bk_sub *sub, struct bk_position *position, const struct bk_read_range *range)
{
    if (sub->until == BK_UNTIL_TIME && range->at_end && range->reached < range->stop) {
        position->stop = BB_MIN(position->stop, position->account.covered);
    }
}

/* Events that are to be met behind a cold position. */
static uint64_t n_behind(const struct bk_position *position)
{
    uint64_t settled = bk_account_settled(&position->account);
    return position->is_cold && settled < position->channel->last ? position->channel->last - settled : 0;
}

/* The position in the ring from where it has what follows all cold positions, found in one walk however many they are. */
static uint64_t ring_pos_of_rest(const struct bk_core *core, const struct bk_sub *sub)
{
    uint64_t pos = bk_ring_end(&core->ring);
    uint64_t found = pos;
    uint64_t left = 0;
    const struct bk_block *block = NULL;
    for (size_t i = 0; i < sub->n_positions; i++) {
        left += n_behind(&sub->positions[i]);
    }
    while (left > 0 && (block = bk_ring_before(&core->ring, &pos)) != NULL) {
        const struct bk_position *position = bk_sub_find_position(sub, block->channel);
        uint64_t last = block->sequence + block->count - 1;
        uint64_t settled = position != NULL ? bk_account_settled(&position->account) : 0;
        if (position != NULL && position->is_cold && last > settled) {
            left -= BB_MIN(left, last - BB_MAX(settled, block->sequence - 1));
            found = block->pos;
        }
    }
    return found;
}

static bool ring_has_rest(const struct bk_position *position)
{
    const struct bk_channel *channel = position->channel;
    uint64_t settled = bk_account_settled(&position->account);
    return settled + 1 >= channel->first || settled >= BB_MIN(channel->last, position->stop);
}

/* Back to the ring, when it has the rest of all. Return: 0 or BB_ENOMEM. */
static int warm_up(struct bk_core *core, struct bk_sub *sub)
{
    for (size_t i = 0; i < sub->n_positions; i++) {
        if (sub->positions[i].is_cold && !ring_has_rest(&sub->positions[i])) {
            return 0;
        }
    }
    sub->cursor = BB_MIN(sub->cursor, ring_pos_of_rest(core, sub));
    sub->read_hint = 0;
    sub->lag_bytes = 0;
    sub->is_dropping = false; /* everything is counted again */
    for (size_t i = 0; i < sub->n_positions; i++) {
        struct bk_position *position = &sub->positions[i];
        bk_count(core, BK_COUNTER_cold_ends, position->is_cold);
        position->is_cold = false;
        (void)bk_account_leave_to_log(&position->account);
    }
    sub->n_cold = 0;
    return bk_wanted_recount(core, sub);
}

/* --- sending ------------------------------------------------------------------------------------------ */

/*
 * The position that @range was made of. Ranges are in the order of positions, so the search begins at *@at, behind the one found
 * before: with nothing changed meanwhile all ranges together cost one walk.
 */
static struct bk_position *range_position(struct bk_sub *sub, const struct bk_read_range *range, size_t *at)
{
    size_t i = *at;
    for (size_t n = 0; n < sub->n_positions; n++, i++) {
        if (i >= sub->n_positions) {
            i = 0;
        }
        if (sub->positions[i].channel->id == range->channel) {
            *at = i + 1;
            return sub->positions[i].is_cold ? &sub->positions[i] : NULL;
        }
    }
    return NULL;
}

static void add_moves(struct bk_core *core, struct bk_sub *sub, const struct bk_read *read)
{
    static const enum bk_reason reasons[] = {
        [BK_LOSS_TRIMMED] = BK_REASON_TRIMMED, [BK_LOSS_EXPIRED] = BK_REASON_EXPIRED};
    const struct bk_read_loss *losses = (const struct bk_read_loss *)(const void *)read->losses.data;
    size_t at = 0;
    for (size_t i = 0; i < read->losses.len / sizeof(*losses); i++) {
        const struct bk_read_loss *loss = &losses[i];
        const struct bk_position *position = range_position(sub, &read->ranges[loss->range], &at);
        at = position != NULL ? (size_t)(position - sub->positions) : 0; /* it may have more losses */
        if (position != NULL && loss->to > bk_account_settled(&position->account)) {
            struct bk_move move = {position->channel, loss->to,
                                   loss->reason == BK_LOSS_TRIMMED ? BK_NO_NUMBER : loss->count, 0,
                                   reasons[loss->reason]};
            bb_buf_append(&core->moves, &move, sizeof(move));
        }
    }
}

/* What brings a position on, with events or without: the client is told, since ranges join. */
static void add_ranges(struct bk_core *core, struct bk_sub *sub, const struct bk_read *read)
{
    size_t at = 0;
    for (size_t i = 0; i < read->n_ranges; i++) {
        const struct bk_read_range *range = &read->ranges[i];
        const struct bk_position *position = range_position(sub, range, &at);
        if (position != NULL &&
            (range->events > 0 || range->reached > bk_account_settled(&position->account))) {
            const struct bk_range news = {
                .channel = position->channel,
                .to = range->reached,
                .last = range->reached,
                .events = range->events,
                .bytes = range->bytes,
            };
            bb_buf_append(&core->ranges, &news, sizeof(news));
        }
    }
}

static void note_ends(struct bk_sub *sub, const struct bk_read *read)
{
    size_t at = 0;
    for (size_t i = 0; i < read->n_ranges; i++) {
        struct bk_position *position = range_position(sub, &read->ranges[i], &at);
        if (position != NULL) {
            note_end(sub, position, &read->ranges[i]);
        }
    }
}

/* Events of several channels come in the order of their ids, also when the ring goes on. */
static void note_newest(struct bk_sub *sub, const struct bk_read *read)
{
    struct bb_slice rest = sub->n_cold > 1 && read->n_events > 0 ? bb_slice(read->body->data, read->body->len)
                                                                 : (struct bb_slice){0};
    struct bb_block block;
    while (rest.len > 0 && bb_block_read(&rest, &block) == 0 && block.length <= rest.len) {
        sub->log_session = block.session;
        sub->log_instance = block.instance + block.count - 1;
        rest = bb_slice(rest.data + block.length, rest.len - (size_t)block.length);
    }
}

static int send_read(struct bk_core *core, struct bk_sub *sub, const struct bk_read *read)
{
    bb_buf_reset(&core->moves);
    bb_buf_reset(&core->ranges);
    add_moves(core, sub, read);
    add_ranges(core, sub, read);
    if (core->moves.error != 0 || core->ranges.error != 0) {
        return BB_ENOMEM;
    }
    struct bk_part part = {0};
    struct bk_delivery delivery = {
        .source = BK_SOURCE_LOG,
        .moves = (const struct bk_move *)(const void *)core->moves.data,
        .n_moves = core->moves.len / sizeof(struct bk_move),
        .ranges = (const struct bk_range *)(const void *)core->ranges.data,
        .n_ranges = core->ranges.len / sizeof(struct bk_range),
        .parts = &part,
    };
    if (read->n_events > 0) {
        part = (struct bk_part){read->body, read->body->data, read->body->len};
        delivery.n_parts = 1;
        delivery.events = read->n_events;
        delivery.bytes = read->body->len;
    }
    int r = bk_deliver(core, sub, &delivery);
    if (r == 0) {
        note_ends(sub, read);
        note_newest(sub, read);
    }
    return r;
}

int bk_cold_step(struct bk_core *core, struct bk_sub *sub)
{
    struct bk_sub_read *reading = sub->read;
    int r = 0;
    if (sub->is_reading) {
        return 0;
    }
    if (reading != NULL && core->monotonic > reading->done_at + WAIT_MAX_US) {
        bk_cold_abandon(sub); /* some of it may have expired since */
        reading = NULL;
    }
    if (reading != NULL) {
        r = reading->read.request.error;
        r = r == 0 ? send_read(core, sub, &reading->read) : r;
        if (r == BB_EAGAIN || r == BB_ECLOSED) {
            return 0; /* tried again, or doomed already */
        }
        sub->read_hint = reading->read.hint;
        sub->read = NULL;
        read_free(reading);
    }
    if (r == 0) {
        r = warm_up(core, sub);
    }
    if (r == 0 && sub->n_cold > 0 && bk_sub_has_credit(sub) && bk_client_has_room(core, sub->client)) {
        r = start_read(core, sub);
    }
    return r;
}
