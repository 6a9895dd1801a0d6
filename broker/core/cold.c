/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the log for subscriptions. When what follows a position is in the log and not in the ring, all positions of the
 * subscription in logged channels become cold: events of several channels come in the order of their sessions, which only one
 * source can give. One piece at a time is asked of the backend, with the paths already chosen there, and goes out as it comes;
 * when the ring has the rest of all, they are warm again and the cursor goes back to where it follows. Nothing comes twice,
 * since whatever is taken from the ring is held against the position first.
 */
#include "broker/core/state.h"

#include <stdlib.h>

/* A piece of the log under way to a subscription. */
struct bk_sub_read {
    struct bk_read read;
    struct bk_core *core;
    struct bk_sub *sub; /* NULL: it has ended */
    bool is_done;
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
    reading->is_done = true;
    if (reading->sub == NULL) {
        read_free(reading);
    } else {
        bk_sub_set_ready(reading->core, reading->sub);
    }
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
        if (position->cold) {
            reading->ranges[reading->read.n_ranges++] = (struct bk_read_range){
                .channel = position->channel->id,
                .after = position->covered,
                .stop = BB_MIN(position->stop, position->channel->last),
                .stop_time = sub->until_time,
                .reached = position->covered,
            };
        }
    }
    sub->read = reading;
    bk_count(core, BK_COUNTER_log_reads, 1);
    core->stage.backend->ops->submit(core->stage.backend, &reading->read.request);
    return 0;
}

/* --- going cold and getting warm ------------------------------------------------------------------- */

void bk_sub_set_cold(struct bk_core *core, struct bk_sub *sub)
{
    for (size_t i = 0; i < sub->n_positions; i++) {
        struct bk_position *position = &sub->positions[i];
        if (!position->cold && bk_store_of(core, position->channel) == BK_STORE_LOG) {
            position->cold = true;
            position->pending = 0;
            sub->n_cold++;
            sub->read_hint = 0;
            bk_count(core, BK_COUNTER_cold_begins, 1);
        }
    }
}

/* The log says that @range is over before its end: what comes after it is later than the subscription wants. */
static void note_end(struct bk_sub *sub, struct bk_position *position, const struct bk_read_range *range)
{
    if (sub->until == BK_UNTIL_TIME && range->at_end && range->reached < range->stop) {
        position->stop = BB_MIN(position->stop, position->covered);
    }
}

/* The position in the ring from where it has what follows all cold positions, found in one walk however many they are. */
static uint64_t ring_pos_of_rest(const struct bk_core *core, const struct bk_sub *sub)
{
    uint64_t pos = bk_ring_end(&core->ring);
    uint64_t found = pos;
    uint64_t left = 0; /* events that are to be met */
    const struct bk_block *block = NULL;
    for (size_t i = 0; i < sub->n_positions; i++) {
        const struct bk_position *position = &sub->positions[i];
        left +=
            position->cold ? position->channel->last - BB_MIN(position->covered, position->channel->last) : 0;
    }
    while (left > 0 && (block = bk_ring_before(&core->ring, &pos)) != NULL) {
        const struct bk_position *position = bk_sub_find_position(sub, block->channel);
        uint64_t last = block->sequence + block->count - 1;
        if (position != NULL && position->cold && last > position->covered) {
            left -= BB_MIN(left, last - BB_MAX(position->covered, block->sequence - 1));
            found = block->pos;
        }
    }
    return found;
}

static bool ring_has_rest(const struct bk_position *position)
{
    const struct bk_channel *channel = position->channel;
    return position->covered + 1 >= channel->first ||
           position->covered >= BB_MIN(channel->last, position->stop);
}

/* Back to the ring, when it has the rest of all. Return: 0 or BB_ENOMEM. */
static int warm_up(struct bk_core *core, struct bk_sub *sub)
{
    for (size_t i = 0; i < sub->n_positions; i++) {
        if (sub->positions[i].cold && !ring_has_rest(&sub->positions[i])) {
            return 0;
        }
    }
    sub->cursor = BB_MIN(sub->cursor, ring_pos_of_rest(core, sub));
    sub->read_hint = 0;
    sub->lag_bytes = 0;
    for (size_t i = 0; i < sub->n_positions; i++) {
        struct bk_position *position = &sub->positions[i];
        bk_count(core, BK_COUNTER_cold_ends, position->cold);
        position->cold = false;
        position->pending = 0;
    }
    sub->n_cold = 0;
    return bk_count_waiting(core, sub);
}

/* --- sending ------------------------------------------------------------------------------------------ */

/*
 * The position that @range was made of, or NULL if the subscription has it no more. Ranges are in the order of positions, so the
 * search begins at *@at, behind the one found before: with nothing changed meanwhile all ranges together cost one walk.
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
            return &sub->positions[i];
        }
    }
    return NULL;
}

/* What the log did not have any more, and what has expired there. */
static void add_gaps(struct bk_core *core, struct bk_sub *sub, const struct bk_read *read)
{
    const struct bk_read_loss *losses = (const struct bk_read_loss *)(const void *)read->losses.data;
    size_t at = 0;
    for (size_t i = 0; i < read->losses.len / sizeof(*losses); i++) {
        bool is_trimmed = losses[i].reason == BK_LOSS_TRIMMED;
        struct bk_position *position = range_position(sub, &read->ranges[losses[i].range], &at);
        if (position == NULL || !position->cold || losses[i].to <= position->covered) {
            continue;
        }
        bk_gap_add(core, sub,
                   &(struct bk_gap){.channel = position->channel,
                                    .from = BB_MAX(losses[i].from, position->covered + 1),
                                    .to = losses[i].to,
                                    .count = is_trimmed ? BK_GAP_NO_NUMBER : losses[i].count,
                                    .reason = is_trimmed ? BK_COUNTER_gap_trimmed : BK_COUNTER_gap_expired});
        position->covered = losses[i].to;
    }
}

/* Whether the read has brought the position on, with events or without: the client is told, since ranges join. A gap of what has
 * expired may have moved it already; the events lie inside. */
static bool is_news(const struct bk_position *position, const struct bk_read_range *range)
{
    return position != NULL && position->cold && (range->reached > position->covered || range->events > 0);
}

static uint32_t count_news(struct bk_sub *sub, const struct bk_read *read)
{
    uint32_t n = 0;
    size_t at = 0;
    for (size_t i = 0; i < read->n_ranges; i++) {
        n += is_news(range_position(sub, &read->ranges[i], &at), &read->ranges[i]);
    }
    return n;
}

static void write_ranges(struct bk_core *core, struct bk_sub *sub, const struct bk_read *read)
{
    size_t at = 0;
    bb_mp_write_array(&core->scratch, count_news(sub, read));
    for (size_t i = 0; i < read->n_ranges; i++) {
        const struct bk_read_range *range = &read->ranges[i];
        const struct bk_position *position = range_position(sub, range, &at);
        if (is_news(position, range)) {
            bb_mp_write_array(&core->scratch, 3);
            bb_mp_write_str(&core->scratch, position->channel->name);
            bb_mp_write_uint(&core->scratch, position->covered);
            bb_mp_write_uint(&core->scratch, BB_MAX(range->reached, position->covered));
        }
    }
}

static int send_body(struct bk_core *core, struct bk_sub *sub, const struct bk_read *read)
{
    bb_buf_reset(&core->scratch);
    bb_mp_write_array(&core->scratch, core->n_gaps > 0 ? 4 : 3);
    bb_mp_write_uint(&core->scratch, BB_MSG_DELIVER);
    bb_mp_write_uint(&core->scratch, sub->id);
    write_ranges(core, sub, read);
    (void)bk_gaps_take(core, &core->scratch);
    if (core->scratch.error != 0) {
        return BB_ENOMEM;
    }
    struct bk_part parts[2] = {{NULL, core->scratch.data, core->scratch.len}};
    if (read->n_events > 0) {
        parts[1] = (struct bk_part){read->body, read->body->data, read->body->len};
    }
    return bk_client_send(core, sub->client, parts, read->n_events > 0 ? 2 : 1);
}

static void move_positions(struct bk_core *core, struct bk_sub *sub, const struct bk_read *read)
{
    size_t at = 0;
    for (size_t i = 0; i < read->n_ranges; i++) {
        const struct bk_read_range *range = &read->ranges[i];
        struct bk_position *position = range_position(sub, range, &at);
        if (position != NULL && position->cold) {
            position->covered = BB_MAX(position->covered, range->reached);
            note_end(sub, position, range);
            position->channel->n_delivered += range->events;
        }
    }
    if (read->body != NULL) {
        sub->sent_bytes += read->body->len;
        bk_count(core, BK_COUNTER_bytes_out, read->body->len);
    }
    sub->sent_events += read->n_events;
    sub->client->events_out += read->n_events;
    bk_count(core, BK_COUNTER_events_out, read->n_events);
}

static int send_read(struct bk_core *core, struct bk_sub *sub, const struct bk_read *read)
{
    int r = 0;
    add_gaps(core, sub, read);
    bool has_gaps = core->n_gaps > 0;
    if (count_news(sub, read) > 0) {
        r = send_body(core, sub, read);
    } else {
        bk_gaps_send(core, sub);
    }
    if (r == BB_EAGAIN && has_gaps) {
        return BB_EOVERFLOW; /* its positions have moved: it must come again */
    }
    if (r == 0) {
        move_positions(core, sub, read);
    }
    return r;
}

bool bk_cold_is_waiting(const struct bk_core *core, const struct bk_sub *sub)
{
    return sub->n_cold > 0 && sub->read != NULL && !sub->read->is_done && sub->cursor >= core->fanned_pos;
}

int bk_cold_step(struct bk_core *core, struct bk_sub *sub)
{
    struct bk_sub_read *reading = sub->read;
    int r = 0;
    if (reading != NULL && !reading->is_done) {
        return 0;
    }
    if (reading != NULL) {
        r = reading->read.request.error;
        if (r == 0) {
            r = send_read(core, sub, &reading->read);
        }
        if (r == BB_EAGAIN || r == BB_ECLOSED) {
            return 0; /* tried again, or gone already */
        }
        sub->read_hint = reading->read.hint;
        sub->read = NULL;
        read_free(reading);
    }
    if (r == 0 && sub->n_cold > 0) {
        r = warm_up(core, sub);
    }
    if (r == 0 && sub->n_cold > 0 && bk_sub_has_credit(sub) && !sub->client->doomed) {
        r = start_read(core, sub);
    }
    return r;
}

void bk_cold_end(struct bk_sub *sub)
{
    struct bk_sub_read *reading = sub->read;
    if (reading != NULL && reading->is_done) {
        read_free(reading);
    } else if (reading != NULL) {
        reading->sub = NULL;
    }
    sub->read = NULL;
}
