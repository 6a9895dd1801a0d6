/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a cursor is follows what was worked off, not what was received, so that after a crash nothing is left
 * out.
 */
#include "bus/cursor.h"

#include "proto/base/error.h"
#include "proto/wire/mp.h"
#include "proto/wire/path.h"

#include "bus/conn.h"
#include "bus/signal.h"

/* A cursor is at most so far behind. */
#define SAVE_AFTER_MS    1000
#define SAVE_AFTER_BYTES ((uint64_t)1 << 20)

static bool is_durable(const struct bb_subscription *sub)
{
    return sub->options.durable != NULL;
}

/* Before all retained values are worked off a cursor would skip the others. */
static bool may_save(const struct bb_subscription *sub)
{
    return is_durable(sub) && sub->cursor.is_moved && (!sub->options.retained || sub->has_taken_retained);
}

static void write_positions(const struct bb_subscription *sub, struct bb_buf *out)
{
    const struct bb_place *place;
    size_t at = 0;
    bb_mp_write_array(out, (uint32_t)bb_map_count(&sub->places));
    while ((place = bb_map_next(&sub->places, &at, NULL)) != NULL) {
        bool has_life = sub->bus->has_lives && place->taken.life != 0;
        bb_mp_write_array(out, 2u + has_life);
        bb_mp_write_str(out, bb_slice(place->channel, place->len));
        bb_mp_write_uint(out, place->taken.sequence);
        if (has_life) {
            bb_mp_write_uint(out, place->taken.life);
        }
    }
}

struct bb_msg bb_cursor_message(struct bb_subscription *sub, struct bb_buf *positions)
{
    write_positions(sub, positions);
    sub->cursor.is_moved = false;
    sub->cursor.bytes = 0;
    return (struct bb_msg){
        .type = BB_MSG_CURSOR,
        .name = bb_slice_str(sub->cursor.name),
        .positions = bb_buf_slice(positions),
    };
}

int bb_cursor_send(struct bb_subscription *sub)
{
    struct bb_buf positions = BB_BUF_INIT;
    struct bb_msg msg = bb_cursor_message(sub, &positions);
    msg.corr = ++sub->bus->last_corr;
    int r = positions.error < 0 ? positions.error : bb_conn_send(sub->bus, &msg);
    if (r == 0) {
        sub->cursor.corr = msg.corr;
    }
    sub->cursor.is_moved = r < 0;
    sub->cursor.due = bb_now_ms() + SAVE_AFTER_MS; /* of the next, or of the next attempt */
    bb_buf_fini(&positions);
    return r;
}

/* Sends it if it is time, else sees to it that somebody looks when it is. */
static void consider(struct bb_subscription *sub)
{
    struct bb_bus *bus = sub->bus;
    if (!may_save(sub) || sub->cursor.corr != 0 || !bb_bus_is_ready(bus)) {
        return;
    }
    if (sub->cursor.bytes >= SAVE_AFTER_BYTES || bb_now_ms() >= sub->cursor.due) {
        (void)bb_cursor_send(sub); /* if it could not be sent, it is still to be */
    }
    if (sub->cursor.is_moved && sub->cursor.due < bus->save_at) {
        bus->save_at = sub->cursor.due;
        if (bus->run == BB_RUN_IDLE) {
            bb_bus_wake(bus); /* a step sets the timer */
        }
    }
}

static void moved(struct bb_subscription *sub, uint64_t bytes)
{
    sub->cursor.has_moved = true;
    if (!sub->cursor.is_moved) {
        sub->cursor.is_moved = true;
        sub->cursor.due = bb_now_ms() + SAVE_AFTER_MS;
    }
    sub->cursor.bytes += bytes;
}

/* --- what was worked off -------------------------------------------------------------------------------- */

void bb_cursor_begin(struct bb_subscription *sub, bool is_resumed)
{
    struct bb_place *place;
    size_t at = 0;
    if (!is_durable(sub) || sub->unread_bytes > 0) {
        return;
    }
    while ((place = bb_map_next(&sub->places, &at, NULL)) != NULL) {
        place->taken = place->has_answer ? place->taken : place->at; /* a resumed one moves as things come */
    }
    if (is_resumed && sub->cursor.has_moved) { /* this broker may not have it */
        moved(sub, 0);
        consider(sub);
    }
}

static void take(struct bb_subscription *sub, const struct bb_delivery *delivery)
{
    for (size_t i = 0; i < delivery->n_moves; i++) {
        delivery->moves[i].place->taken = delivery->moves[i].to;
    }
    if (delivery->retained == BB_RETAINED_LAST) {
        sub->has_taken_retained = true;
    }
    if (delivery->n_moves > 0 || delivery->retained == BB_RETAINED_LAST) {
        moved(sub, delivery->bytes);
    }
}

void bb_cursor_take(struct bb_subscription *sub, const struct bb_delivery *delivery)
{
    if (is_durable(sub)) {
        take(sub, delivery);
        consider(sub);
    }
}

static const struct bb_move *find_move(const struct bb_delivery *delivery, const struct bb_event *event)
{
    struct bb_slice channel = bb_path_channel(bb_slice(event->path, event->path_len));
    for (size_t i = 0; i < delivery->n_moves; i++) {
        const struct bb_place *place = delivery->moves[i].place;
        if (bb_slice_equal(channel, bb_slice(place->channel, place->len))) {
            return &delivery->moves[i];
        }
    }
    return NULL;
}

/*
 * The last of these events are of @delivery, which was read in part. Sequences of a channel rise inside a
 * message, but for gaps that its events lie in: where those lead is known when the whole message is worked
 * off.
 */
static void give_events(struct bb_subscription *sub,
                        const struct bb_delivery *delivery,
                        const struct bb_event *events,
                        size_t n)
{
    if (delivery->gaps != NULL) {
        return;
    }
    for (size_t i = n - BB_MIN(n, delivery->n_events); i < n; i++) {
        bool is_placed = !events[i].is_retained && !events[i].is_retained_end;
        const struct bb_move *move = is_placed ? find_move(delivery, &events[i]) : NULL;
        if (move != NULL) {
            move->place->given = (struct bb_spot){events[i].sequence, move->to.life};
            sub->cursor.has_given = true;
        }
    }
}

static void take_given(struct bb_subscription *sub)
{
    struct bb_place *place;
    size_t at = 0;
    if (!sub->cursor.has_given) {
        return;
    }
    while ((place = bb_map_next(&sub->places, &at, NULL)) != NULL) {
        bool is_ahead =
            place->given.life != place->taken.life || place->given.sequence > place->taken.sequence;
        place->taken = place->given.sequence > 0 && is_ahead ? place->given : place->taken;
        place->given = (struct bb_spot){0};
    }
    sub->cursor.has_given = false;
    moved(sub, 0);
}

void bb_cursor_take_events(struct bb_subscription *sub,
                           const struct bb_delivery *delivery,
                           const struct bb_event *events,
                           size_t n)
{
    if (is_durable(sub)) {
        give_events(sub, delivery, events, n);
        take_given(sub);
    }
}

void bb_cursor_take_read(struct bb_subscription *sub)
{
    if (!is_durable(sub)) {
        return;
    }
    for (const struct bb_delivery *delivery = sub->read; delivery != NULL; delivery = delivery->next) {
        take(sub, delivery);
    }
    take_given(sub);
    consider(sub);
}

void bb_cursor_note_partial(struct bb_subscription *sub, const struct bb_event *events, size_t n)
{
    give_events(sub, sub->reading, events, n);
}

/* --- saving --------------------------------------------------------------------------------------------- */

void bb_cursors_tick(struct bb_bus *bus)
{
    struct bb_subscription *sub;
    size_t at = 0;
    if (bus->save_at == BB_NEVER || bb_now_ms() < bus->save_at) {
        return;
    }
    bus->save_at = BB_NEVER;
    while ((sub = bb_map_next(&bus->subs, &at, NULL)) != NULL) {
        consider(sub);
    }
}

bool bb_cursors_answered(struct bb_bus *bus, uint64_t corr, int error)
{
    struct bb_subscription *sub;
    size_t at = 0;
    if (bus->n_durable == 0 || corr == 0) {
        return false;
    }
    while ((sub = bb_map_next(&bus->subs, &at, NULL)) != NULL && sub->cursor.corr != corr) {
    }
    if (sub == NULL) {
        return false;
    }
    sub->cursor.corr = 0;
    if (error == BB_ENOMEM || error == BB_ELOGFULL || error == BB_ELOGFAILED || error == BB_ESHUTDOWN) {
        sub->cursor.is_moved = true; /* it will pass: once more, a while later */
    }
    consider(sub);
    return true;
}

void bb_cursor_finish(struct bb_subscription *sub)
{
    if (is_durable(sub) && sub->has_started && bb_bus_is_ready(sub->bus)) {
        bb_cursor_take_read(sub);
        if (may_save(sub)) {
            (void)bb_cursor_send(sub); /* the subscription ends whatever comes */
        }
    }
}

void bb_cursors_finish(struct bb_bus *bus)
{
    struct bb_subscription *sub;
    size_t at = 0;
    while ((sub = bb_map_next(&bus->subs, &at, NULL)) != NULL) {
        bb_cursor_finish(sub);
    }
}

void bb_cursors_lost(struct bb_bus *bus)
{
    struct bb_subscription *sub;
    size_t at = 0;
    while ((sub = bb_map_next(&bus->subs, &at, NULL)) != NULL) {
        sub->cursor.is_moved = sub->cursor.is_moved || sub->cursor.corr != 0;
        sub->cursor.corr = 0;
    }
}

int bb_cursor_check(const struct bb_subscription *sub)
{
    if (!is_durable(sub)) {
        return BB_ESTATE;
    }
    return !sub->has_started || (sub->options.retained && !sub->has_taken_retained) ? BB_EAGAIN : 0;
}

void bb_cursor_unsaved(struct bb_subscription *sub)
{
    moved(sub, 0);
    consider(sub);
}
