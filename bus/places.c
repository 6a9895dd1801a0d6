/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a subscription is in each channel. Ranges and gaps must join without a hole (PROTOCOL 7.4); a hole
 * is told to the application as a gap, and a reconnection resumes after these places.
 */
#include "bus/places.h"

#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include <stdlib.h>

#define REASON_RESTART   "restart"
#define REASON_RETRACTED "retracted"

/* A new one is where a channel begins that the broker did not name. */
static int place_get(struct bb_subscription *sub, struct bb_slice channel, struct bb_place **ret_place)
{
    struct bb_place *place = bb_map_find(&sub->places, channel);
    if (place == NULL) {
        place = calloc(1, sizeof(*place) + channel.len + 1);
        if (place == NULL) {
            return BB_ENOMEM;
        }
        place->has_answer = true;
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

static uint64_t read_uint_or_nil(struct bb_mp_reader *reader)
{
    if (bb_mp_peek_type(reader) == BB_MP_NIL) {
        bb_mp_read_nil(reader);
        return BB_UNKNOWN;
    }
    return bb_mp_read_uint(reader);
}

/* The life at index @at of an array of @fields, of which that many are read; 0 if there is none. */
static uint64_t read_life(struct bb_mp_reader *reader, uint32_t at, uint32_t fields)
{
    uint64_t life = fields > at ? read_uint_or_nil(reader) : 0;
    skip_fields(reader, at + 1, fields);
    return life != BB_UNKNOWN ? life : 0;
}

/* --- where the broker begins ------------------------------------------------------------------------ */

/*
 * A place that the application has reached stays what it is when the subscription resumes elsewhere, until a
 * gap says so: if the connection breaks before the gap comes, the next one asks for it again. Without lives
 * the run says which positions are void, and the gap comes at most once.
 */
static void begin_all(struct bb_subscription *sub, bool is_first, bool is_other_run)
{
    struct bb_place *place;
    size_t at = 0;
    while ((place = bb_map_next(&sub->places, &at, NULL)) != NULL) {
        place->answer = (struct bb_spot){0};
        place->has_answer = !is_first && (!is_other_run || place->at.life != 0);
        if (!place->has_answer) {
            place->at = (struct bb_spot){0};
        }
    }
}

static int begin_one(struct bb_subscription *sub, struct bb_mp_reader *reader, bool is_first)
{
    struct bb_place *place;
    uint32_t fields = bb_mp_read_array(reader);
    struct bb_slice channel = bb_mp_read_str(reader);
    uint64_t sequence = bb_mp_read_uint(reader);
    struct bb_spot spot = {sequence, read_life(reader, 2, fields)};
    int r = reader->error != 0 ? BB_EMALFORMED : place_get(sub, channel, &place);
    if (r < 0) {
        return r;
    }
    if (is_first) {
        place->start = sequence;
        place->has_start = true;
        place->has_answer = false;
    }
    if (place->has_answer) {
        place->answer = spot;
    } else {
        place->at = spot;
    }
    return 0;
}

int bb_places_begin(struct bb_subscription *sub, struct bb_slice positions, uint64_t run)
{
    struct bb_mp_reader reader = bb_mp_reader(positions);
    bool is_first = !sub->has_started;
    begin_all(sub, is_first, run != sub->run);
    uint32_t n = bb_mp_read_array(&reader);
    int r = reader.error;
    for (uint32_t i = 0; i < n && r == 0; i++) {
        r = begin_one(sub, &reader, is_first);
    }
    sub->run = run;
    return r;
}

/* --- deliveries ------------------------------------------------------------------------------------- */

/*
 * What a message says of places is staged first and counts once the message as a whole is on its way to the
 * application: what is dropped is asked for again by the next connection.
 */
static int place_stage(struct bb_subscription *sub, struct bb_slice channel, struct bb_place **ret_place)
{
    struct bb_place *place;
    int r = place_get(sub, channel, &place);
    if (r < 0) {
        return r;
    }
    if (!place->is_staged) {
        place->is_staged = true;
        place->is_settled = !place->has_answer;
        place->ends = place->is_over;
        place->staged = place->at;
        place->next_staged = sub->staged;
        sub->staged = place;
    }
    *ret_place = place;
    return 0;
}

static int note_hole(struct bb_delivery *delivery, const struct bb_place *place, uint64_t to)
{
    return bb_delivery_add_gap(delivery, bb_slice(place->channel, place->len), place->staged.sequence + 1, to,
                               BB_UNKNOWN, bb_slice_str(BB_REASON_TRANSPORT));
}

/* The broker went back to @spot and did not say so. */
static int note_void(struct bb_delivery *delivery, struct bb_place *place, struct bb_spot spot)
{
    int r = bb_delivery_add_gap(delivery, bb_slice(place->channel, place->len), place->staged.sequence + 1,
                                BB_UNKNOWN, BB_UNKNOWN, bb_slice_str(REASON_RESTART));
    place->staged = spot;
    return r;
}

/*
 * What comes first after a resume, and says nothing of the place being void, shows that the broker went on
 * there.
 */
static int settle(struct bb_place *place, struct bb_delivery *delivery)
{
    if (place->is_settled) {
        return 0;
    }
    place->is_settled = true;
    if (place->answer.sequence < place->staged.sequence) {
        return note_void(delivery, place, place->answer);
    }
    place->staged.life = place->answer.life != 0 ? place->answer.life : place->staged.life;
    return 0;
}

/*
 * A gap that makes the place void: it goes back to @sequence, in the life that the gap or `subscribed` gave.
 */
static void go_back(struct bb_place *place, uint64_t sequence, uint64_t life, uint64_t otherwise)
{
    if (life == 0) {
        life = !place->is_settled && place->answer.life != 0 ? place->answer.life : otherwise;
    }
    place->staged = (struct bb_spot){sequence, life};
    place->is_settled = true;
}

/*
 * The channel is gone. With an end in sequences nothing of the next one is wanted (PROTOCOL 7.1): the place
 * stays the void one that it is, which says so to the broker at each resume.
 */
static void void_place(const struct bb_subscription *sub, struct bb_place *place, uint64_t life)
{
    struct bb_spot was = place->staged;
    go_back(place, 0, life, 0);
    if (sub->options.until == BB_UNTIL_SEQUENCE) {
        place->ends = true;
        place->next_taken = place->staged;
        place->staged = was;
    }
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
    uint64_t life = read_life(reader, 5, fields);
    if (reader->error != 0) {
        return BB_EMALFORMED;
    }
    bool is_restart = bb_slice_equal(reason, bb_slice_str(REASON_RESTART));
    bool is_retracted = bb_slice_equal(reason, bb_slice_str(REASON_RETRACTED));
    int r = place_stage(sub, channel, &place);
    if (r == 0 && is_restart && place->is_over) {
        place->is_settled = true; /* it was told before */
        return 0;
    }
    if (r == 0 && !is_restart && !is_retracted) {
        r = settle(place, delivery);
    }
    if (r == 0 && !is_restart && from > place->staged.sequence + 1) {
        r = note_hole(delivery, place, from - 1);
    }
    r = r < 0 ? r : bb_delivery_add_gap(delivery, channel, from, to, count, reason);
    if (r < 0) {
        return r;
    }
    if (is_restart) {
        void_place(sub, place, life);
    } else if (is_retracted) { /* what was taken back will be other events with the same sequences */
        go_back(place, from > 0 ? from - 1 : 0, life, place->staged.life);
    } else {
        place->staged.sequence =
            to != BB_UNKNOWN ? BB_MAX(to, place->staged.sequence) : place->staged.sequence;
        place->staged.life = life != 0 ? life : place->staged.life;
    }
    return 0;
}

static int stage_range(struct bb_subscription *sub, struct bb_mp_reader *reader, struct bb_delivery *delivery)
{
    struct bb_place *place;
    uint32_t fields = bb_mp_read_array(reader);
    struct bb_slice channel = bb_mp_read_str(reader);
    uint64_t from = bb_mp_read_uint(reader);
    uint64_t to = bb_mp_read_uint(reader);
    uint64_t life = read_life(reader, 3, fields);
    if (reader->error != 0) {
        return BB_EMALFORMED;
    }
    int r = place_stage(sub, channel, &place);
    r = r < 0 ? r : settle(place, delivery);
    if (r == 0 && life != 0 && life != place->staged.life) {
        bool is_void = place->staged.life != 0 && from < place->staged.sequence;
        r = is_void ? note_void(delivery, place, (struct bb_spot){from, life}) : 0;
        place->staged.life = life;
    }
    if (r == 0 && from > place->staged.sequence) {
        r = note_hole(delivery, place, from);
    }
    if (r == 0 && to > place->staged.sequence) {
        place->staged.sequence = to;
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
        bool is_end = place->ends && !place->is_over;
        delivery->moves[delivery->n_moves++] =
            (struct bb_move){place, is_end ? place->next_taken : place->staged};
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
        place->at = place->staged;
        place->is_over = place->ends;
        place->has_answer = place->has_answer && !place->is_settled;
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

/* False if some place was reached with a broker that gave no lives. */
static bool have_lives(const struct bb_subscription *sub, uint32_t *ret_n)
{
    const struct bb_place *place;
    size_t at = 0;
    *ret_n = 0;
    while ((place = bb_map_next(&sub->places, &at, NULL)) != NULL) {
        if (place->at.life == 0 && place->at.sequence > 0) {
            return false;
        }
        *ret_n += place->at.life != 0;
    }
    return true;
}

/* Channels without a life are at their beginning, as are those that are not named. */
static void write_lives(const struct bb_subscription *sub, uint32_t n, struct bb_buf *out)
{
    const struct bb_place *place;
    size_t at = 0;
    bb_mp_write_map(out, 1);
    bb_mp_write_str(out, bb_slice_str("after"));
    bb_mp_write_map(out, n);
    while ((place = bb_map_next(&sub->places, &at, NULL)) != NULL) {
        if (place->at.life != 0) {
            bb_mp_write_str(out, bb_slice(place->channel, place->len));
            bb_mp_write_array(out, 2);
            bb_mp_write_uint(out, place->at.sequence);
            bb_mp_write_uint(out, place->at.life);
        }
    }
}

static void write_run(const struct bb_subscription *sub, struct bb_buf *out)
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
        bb_mp_write_uint(out, place->at.sequence);
    }
}

void bb_places_write(const struct bb_subscription *sub, bool with_lives, struct bb_buf *out)
{
    uint32_t n;
    if (with_lives && have_lives(sub, &n)) {
        write_lives(sub, n, out);
    } else {
        write_run(sub, out);
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
