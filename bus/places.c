/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a subscription is in each channel. Ranges and gaps must join without a hole (PROTOCOL 7.4); a hole
 * is told to the application as a gap, and a reconnection resumes after these places.
 */
#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include "bus/subscription.h"

#include <stdlib.h>

#define REASON_RESTART   "restart"
#define REASON_RETRACTED "retracted"

int bb_places_get(struct bb_subscription *sub, struct bb_slice channel, struct bb_place **ret_place)
{
    struct bb_place *place = bb_map_find(&sub->places, channel);
    if (place == NULL) {
        place = calloc(1, sizeof(*place) + channel.len + 1);
        if (place == NULL) {
            return BB_ENOMEM;
        }
        place->len = channel.len;
        if (channel.len > 0) {
            memcpy(place->channel, channel.data, channel.len);
        }
        int r = bb_map_add(&sub->places, bb_slice(place->channel, place->len), place);
        if (r < 0) {
            free(place);
            return r;
        }
    }
    *ret_place = place;
    return 0;
}

static void skip_fields(struct bb_mp_reader *reader, uint32_t from, uint32_t n)
{
    for (uint32_t i = from; i < n; i++) {
        bb_mp_skip(reader);
    }
}

static void forget_sequences(struct bb_subscription *sub)
{
    struct bb_place *place;
    size_t at = 0;
    while ((place = bb_map_next(&sub->places, &at, NULL)) != NULL) {
        place->sequence = 0;
    }
}

int bb_places_begin(struct bb_subscription *sub, struct bb_slice positions, uint64_t run)
{
    struct bb_mp_reader reader = bb_mp_reader(positions);
    bool is_first = !sub->has_started;
    bool is_other_run = !is_first && run != sub->run;
    if (is_other_run) {
        forget_sequences(sub);
    }
    sub->run = run;
    uint32_t n = bb_mp_read_array(&reader);
    for (uint32_t i = 0; i < n && reader.error == 0; i++) {
        struct bb_place *place;
        uint32_t fields = bb_mp_read_array(&reader);
        struct bb_slice channel = bb_mp_read_str(&reader);
        uint64_t sequence = bb_mp_read_uint(&reader);
        skip_fields(&reader, 2, fields);
        if (reader.error != 0) {
            break;
        }
        int r = bb_places_get(sub, channel, &place);
        if (r < 0) {
            return r;
        }
        if (is_first) {
            place->start = sequence;
            place->has_start = true;
        }
        /* A resumed channel stays where it was: what is lost in between comes as a gap, or is a hole. */
        if (is_first || is_other_run) {
            place->sequence = sequence;
        }
    }
    return reader.error;
}

/* --- deliveries ------------------------------------------------------------------------------------- */

/*
 * What a message says of places is staged first and counts once the message as a whole is on its way to the
 * application: what is dropped is asked for again by the next connection.
 */
static int place_stage(struct bb_subscription *sub, struct bb_slice channel, struct bb_place **ret_place)
{
    struct bb_place *place;
    int r = bb_places_get(sub, channel, &place);
    if (r < 0) {
        return r;
    }
    if (!place->is_staged) {
        place->is_staged = true;
        place->staged = place->sequence;
        place->next_staged = sub->staged;
        sub->staged = place;
    }
    *ret_place = place;
    return 0;
}

static int note_hole(struct bb_delivery *delivery, const struct bb_place *place, uint64_t to)
{
    return bb_delivery_add_gap(delivery, bb_slice(place->channel, place->len), place->staged + 1, to,
                               BB_UNKNOWN, bb_slice_str(BB_REASON_TRANSPORT));
}

static uint64_t read_uint_or_nil(struct bb_mp_reader *reader)
{
    if (bb_mp_peek_type(reader) == BB_MP_NIL) {
        bb_mp_read_nil(reader);
        return BB_UNKNOWN;
    }
    return bb_mp_read_uint(reader);
}

static int stage_gap(struct bb_subscription *sub, struct bb_mp_reader *reader, struct bb_delivery *delivery)
{
    struct bb_place *place;
    uint32_t fields = bb_mp_read_array(reader);
    struct bb_slice channel = bb_mp_read_str(reader);
    uint64_t from = bb_mp_read_uint(reader);
    uint64_t to = read_uint_or_nil(reader);
    uint64_t count = read_uint_or_nil(reader);
    struct bb_slice reason = bb_mp_read_str(reader);
    skip_fields(reader, 5, fields);
    if (reader->error != 0) {
        return BB_EMALFORMED;
    }
    bool is_restart = bb_slice_equal(reason, bb_slice_str(REASON_RESTART));
    bool is_retracted = bb_slice_equal(reason, bb_slice_str(REASON_RETRACTED));
    int r = place_stage(sub, channel, &place);
    if (r == 0 && !is_restart && from > place->staged + 1) {
        r = note_hole(delivery, place, from - 1);
    }
    r = r < 0 ? r : bb_delivery_add_gap(delivery, channel, from, to, count, reason);
    /* What was taken back will be other events with the same sequences. */
    if (r == 0 && is_retracted && from > 0) {
        place->staged = BB_MIN(place->staged, from - 1);
        return 0;
    }
    /* The sequences of a restart are those of another run. */
    if (r == 0 && !is_restart && to != BB_UNKNOWN && to > place->staged) {
        place->staged = to;
    }
    return r;
}

static int stage_range(struct bb_subscription *sub, struct bb_mp_reader *reader, struct bb_delivery *delivery)
{
    struct bb_place *place;
    uint32_t fields = bb_mp_read_array(reader);
    struct bb_slice channel = bb_mp_read_str(reader);
    uint64_t from = bb_mp_read_uint(reader);
    uint64_t to = bb_mp_read_uint(reader);
    skip_fields(reader, 3, fields);
    if (reader->error != 0) {
        return BB_EMALFORMED;
    }
    int r = place_stage(sub, channel, &place);
    if (r == 0 && from > place->staged) {
        r = note_hole(delivery, place, from);
    }
    if (r == 0 && to > place->staged) {
        place->staged = to;
    }
    return r;
}

typedef int stage_fn(struct bb_subscription *sub, struct bb_mp_reader *reader, struct bb_delivery *delivery);

static int stage_all(struct bb_subscription *sub,
                     struct bb_slice array,
                     stage_fn *stage_one,
                     struct bb_delivery *delivery)
{
    struct bb_mp_reader reader = bb_mp_reader(array);
    if (array.len == 0 || bb_mp_peek_type(&reader) == BB_MP_NIL) {
        return 0;
    }
    uint32_t n = bb_mp_read_array(&reader);
    int r = reader.error;
    for (uint32_t i = 0; i < n && r == 0; i++) {
        r = stage_one(sub, &reader, delivery);
    }
    return r;
}

/* Where a durable subscription will be when the application is done with @delivery. */
static int note_moves(struct bb_subscription *sub, struct bb_delivery *delivery)
{
    size_t n = 0;
    for (const struct bb_place *place = sub->staged; place != NULL; place = place->next_staged) {
        n++;
    }
    delivery->moves = n > 0 ? calloc(n, sizeof(delivery->moves[0])) : NULL;
    if (n > 0 && delivery->moves == NULL) {
        return BB_ENOMEM;
    }
    for (struct bb_place *place = sub->staged; place != NULL; place = place->next_staged) {
        delivery->moves[delivery->n_moves++] = (struct bb_move){place, place->staged};
    }
    return 0;
}

int bb_places_stage(struct bb_subscription *sub,
                    struct bb_slice gaps,
                    struct bb_slice ranges,
                    struct bb_delivery *delivery)
{
    int r = stage_all(sub, gaps, stage_gap, delivery);
    r = r < 0 ? r : stage_all(sub, ranges, stage_range, delivery);
    r = r < 0 || sub->options.durable == NULL ? r : note_moves(sub, delivery);
    if (r < 0) {
        bb_places_revert(sub);
    }
    return r;
}

static struct bb_place *unstage(struct bb_subscription *sub)
{
    struct bb_place *place = sub->staged;
    if (place != NULL) {
        sub->staged = place->next_staged;
        place->is_staged = false;
    }
    return place;
}

void bb_places_commit(struct bb_subscription *sub, const struct bb_delivery *delivery)
{
    struct bb_place *place;
    while ((place = unstage(sub)) != NULL) {
        place->sequence = place->staged;
    }
    for (const struct bb_gap_node *node = delivery->gaps; node != NULL; node = node->next) {
        sub->counts.gaps++;
        sub->counts.lost += node->gap.count != BB_UNKNOWN ? node->gap.count : 0;
    }
}

void bb_places_revert(struct bb_subscription *sub)
{
    while (unstage(sub) != NULL) {
    }
}

/* --- resuming --------------------------------------------------------------------------------------- */

void bb_places_write(const struct bb_subscription *sub, struct bb_buf *out)
{
    const struct bb_place *place;
    size_t at = 0;
    bb_mp_write_map(out, 2);
    bb_mp_write_str(out, bb_slice_str("run"));
    bb_mp_write_uint(out, sub->run);
    bb_mp_write_str(out, bb_slice_str("after"));
    bb_mp_write_map(out, (uint32_t)bb_map_count(&sub->places));
    while ((place = bb_map_next(&sub->places, &at, NULL)) != NULL) {
        bb_mp_write_str(out, bb_slice(place->channel, place->len));
        bb_mp_write_uint(out, place->sequence);
    }
}

void bb_places_fini(struct bb_subscription *sub)
{
    struct bb_place *place;
    size_t at = 0;
    while ((place = bb_map_next(&sub->places, &at, NULL)) != NULL) {
        free(place);
    }
    bb_map_fini(&sub->places);
}

static int
list_places(struct bb_subscription *sub, bool at_start, struct bb_position **ret_positions, size_t *ret_n)
{
    (void)pthread_mutex_lock(&sub->bus->lock);
    const struct bb_place *place;
    size_t at = 0;
    size_t n = 0;
    size_t bytes = sizeof(struct bb_position);
    while ((place = bb_map_next(&sub->places, &at, NULL)) != NULL) {
        bytes += sizeof(struct bb_position) + place->len + 1;
    }
    struct bb_position *positions = sub->has_started ? malloc(bytes) : NULL;
    int r = sub->has_started ? BB_ENOMEM : BB_EAGAIN;
    if (positions != NULL) {
        char *text = (char *)(positions + bb_map_count(&sub->places));
        at = 0;
        while ((place = bb_map_next(&sub->places, &at, NULL)) != NULL) {
            if (!at_start || place->has_start) {
                memcpy(text, place->channel, place->len + 1);
                positions[n++] = (struct bb_position){text, at_start ? place->start : place->sequence};
                text += place->len + 1;
            }
        }
        *ret_positions = positions;
        *ret_n = n;
        r = 0;
    }
    (void)pthread_mutex_unlock(&sub->bus->lock);
    return r;
}

int bb_subscription_start(bb_subscription *sub, struct bb_position **ret_positions, size_t *ret_n)
{
    return list_places(sub, true, ret_positions, ret_n);
}

int bb_subscription_positions(bb_subscription *sub, struct bb_position **ret_positions, size_t *ret_n)
{
    return list_places(sub, false, ret_positions, ret_n);
}
