/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/outbox.h"

#include "proto/base/error.h"
#include "proto/wire/message.h"

#include "bus/answer.h"

#include <stdlib.h>

#define IN_FLIGHT_MAX 64
/* Without batching a message is small, and the bytes are what bounds. */
#define IN_FLIGHT_MAX_UNBATCHED 256 /* the outcomes that a broker keeps (PROTOCOL 6.2) */

/* What a batch costs beside its events and options. */
#define BATCH_CHARGE (sizeof(struct bb_batch) + BB_BATCH_HEAD_MAX)

static size_t charge(const struct bb_batch *batch)
{
    return BATCH_CHARGE + batch->options_len;
}

void bb_outbox_init(struct bb_outbox *outbox, size_t batch_bytes, size_t queue_bytes, bool unbatched)
{
    *outbox = (struct bb_outbox){
        .batch_bytes = batch_bytes,
        .queue_bytes = queue_bytes,
        .unbatched = unbatched,
        .max_in_flight = unbatched ? IN_FLIGHT_MAX_UNBATCHED : IN_FLIGHT_MAX,
        .next_number = 1,
    };
    outbox->done_end = &outbox->done;
    outbox->pool.usual = batch_bytes;
}

void bb_outbox_fini(struct bb_outbox *outbox)
{
    bb_outbox_fail(outbox, BB_ECLOSED);
    bb_batches_unref(bb_outbox_take_done(outbox));
    bb_batch_unref(outbox->open);
    bb_batch_unref(outbox->filler);
    bb_pool_fini(&outbox->pool);
}

/* The open batch goes to the end of the list. */
void bb_outbox_seal(struct bb_outbox *outbox)
{
    struct bb_batch *batch = outbox->open;
    outbox->open = NULL;
    if (outbox->last != NULL) {
        outbox->last->next = batch;
    } else {
        outbox->first = batch;
    }
    outbox->last = batch;
    if (outbox->unsent == NULL) {
        outbox->unsent = batch;
    }
}

static int open_batch(struct bb_outbox *outbox, size_t need, struct bb_slice options)
{
    bool is_alone = outbox->unbatched || options.len > 0;
    size_t cap = is_alone || need > outbox->batch_bytes ? need : outbox->batch_bytes;
    outbox->open = bb_batch_new(&outbox->pool, cap, options);
    if (outbox->open == NULL) {
        return BB_ENOMEM;
    }
    outbox->open->begin = outbox->n_published;
    outbox->bytes += charge(outbox->open);
    return 0;
}

int bb_outbox_room(struct bb_outbox *outbox,
                   size_t need,
                   uint32_t level,
                   struct bb_slice options,
                   uint8_t **ret_to)
{
    struct bb_batch *open = outbox->open;
    if (BB_UNLIKELY(outbox->bytes + need + BATCH_CHARGE > outbox->queue_bytes) &&
        bb_outbox_has_unacked(outbox)) {
        return BB_EFULL;
    }
    if (BB_UNLIKELY(open == NULL || need > open->cap - open->len || open->count == BB_EVENTS_MAX ||
                    options.len + open->options_len > 0 ||
                    (open->count > 0 && !bb_levels_mix(open->level, level)))) {
        if (open != NULL && open->count > 0) {
            bb_outbox_seal(outbox);
        } else if (open != NULL) {
            outbox->bytes -= charge(open);
            bb_batch_unref(open);
            outbox->open = NULL;
        }
        int r = open_batch(outbox, need, options);
        if (r < 0) {
            return r;
        }
        open = outbox->open;
    }
    *ret_to = bb_batch_events(open) + open->len;
    return 0;
}

/* An empty batch for the number behind the front, which nothing is to be sent under any more. */
static struct bb_batch *fill_hole(struct bb_outbox *outbox)
{
    if (outbox->filler == NULL) {
        outbox->filler = bb_batch_new(&outbox->pool, 0, (struct bb_slice){0});
    }
    if (outbox->filler != NULL) {
        bb_batch_number(outbox->filler, outbox->front + 1);
    }
    return outbox->filler;
}

struct bb_batch *bb_outbox_next(struct bb_outbox *outbox)
{
    if (outbox->in_flight >= outbox->max_in_flight || outbox->is_halted) {
        return NULL;
    }
    if (outbox->unsent == NULL) {
        if (!bb_outbox_is_eager(outbox) || outbox->open == NULL || outbox->open->count == 0) {
            return NULL;
        }
        bb_outbox_seal(outbox);
    }
    struct bb_batch *batch = outbox->unsent;
    if (batch->number == 0) {
        bb_batch_number(batch, outbox->next_number);
    }
    bool is_hole = outbox->first_number != 0 && batch->number > outbox->front + 1;
    return BB_LIKELY(!is_hole) ? batch : fill_hole(outbox);
}

void bb_outbox_sent(struct bb_outbox *outbox)
{
    struct bb_batch *batch = outbox->unsent;
    if (BB_UNLIKELY(outbox->filler != NULL)) {
        outbox->front = outbox->filler->number;
        bb_batch_unref(outbox->filler);
        outbox->filler = NULL;
        return;
    }
    outbox->next_number = BB_MAX(outbox->next_number, batch->number + 1);
    outbox->front = BB_MAX(outbox->front, batch->number);
    outbox->first_number = outbox->first_number != 0 ? outbox->first_number : batch->number;
    outbox->unsent = batch->next;
    outbox->in_flight++;
    batch->returned = 0;
}

/* --- answers ------------------------------------------------------------------------------------ */

static void answer_tracked(struct bb_batch *batch, struct bb_answer *answer)
{
    batch->answer =
        (struct bb_ack){.level = answer->level, .matches = answer->matches, .repeated = answer->repeated};
    for (uint32_t i = 0; i < batch->n_tracked; i++) {
        struct bb_tracked *tracked = &batch->tracked[i];
        tracked->error = bb_answer_event(answer, tracked->index, &tracked->sequence);
        if (tracked->waiter != NULL) {
            tracked->waiter->ack = bb_outbox_ack_of(batch, tracked);
            tracked->waiter->is_done = true;
        }
    }
}

static void
note_refusals(struct bb_outbox *outbox, const struct bb_batch *batch, const struct bb_answer *answer)
{
    int error = 0;
    outbox->refused += bb_answer_refusals(answer, batch->count, &error);
    if (outbox->refusal == 0) {
        outbox->refusal = error;
    }
}

/* Takes the batch at @at out of the list and answers its events. */
static void
finish(struct bb_outbox *outbox, struct bb_batch **at, struct bb_batch *before, struct bb_answer *answer)
{
    struct bb_batch *batch = *at;
    *at = batch->next;
    if (outbox->last == batch) {
        outbox->last = before;
    }
    if (outbox->unsent == batch) {
        outbox->unsent = batch->next;
    }
    outbox->bytes -= batch->len + charge(batch);
    note_refusals(outbox, batch, answer);
    if (batch->n_tracked == 0) {
        bb_batch_unref(batch);
        return;
    }
    answer_tracked(batch, answer);
    batch->next = NULL;
    *outbox->done_end = batch;
    outbox->done_end = &batch->next;
}

/*
 * The place in the list of the batch that was sent as @number, NULL if there is none. Answers come in the
 * order of the numbers, so this looks at the first batch nearly always.
 */
static struct bb_batch **find_sent(struct bb_outbox *outbox, uint64_t number, struct bb_batch **ret_before)
{
    struct bb_batch *before = NULL;
    for (struct bb_batch **at = &outbox->first; *at != outbox->unsent; at = &(*at)->next) {
        if ((*at)->number == number) {
            *ret_before = before;
            return at;
        }
        before = *at;
    }
    return NULL;
}

static void answer_number(struct bb_outbox *outbox, uint64_t number, struct bb_answer *answer)
{
    struct bb_batch *before;
    struct bb_batch **at = find_sent(outbox, number, &before);
    if (at != NULL) {
        outbox->in_flight--;
        finish(outbox, at, before, answer);
    }
}

int bb_outbox_ack(struct bb_outbox *outbox, struct bb_slice entry)
{
    struct bb_answer answer;
    uint64_t number;
    int r = bb_answer_read(entry, &number, &answer);
    if (r == 0) {
        answer_number(outbox, number, &answer);
    }
    return r;
}

/*
 * Neither answer uses the number up (PROTOCOL 6.2). What follows a batch that was given back is out of
 * sequence.
 */
static void give_back(struct bb_outbox *outbox, uint64_t number, int error)
{
    struct bb_batch *before;
    struct bb_batch **at = find_sent(outbox, number, &before);
    outbox->is_halted = true;
    if (at != NULL) {
        (*at)->returned = error;
    }
}

int bb_outbox_refuse(struct bb_outbox *outbox, uint64_t number, int error)
{
    bool is_first = number == outbox->first_number; /* which a broker takes whatever it is */
    if (error == BB_ESHUTDOWN || (error == BB_ESEQUENCE && outbox->is_halted)) {
        give_back(outbox, number, BB_ESHUTDOWN);
        return 0;
    }
    if (error == BB_ESEQUENCE && !is_first) {
        give_back(outbox, number, BB_ESEQUENCE);
        return BB_ESEQUENCE;
    }
    answer_number(outbox, number, &(struct bb_answer){.error = error, .matches = BB_UNKNOWN});
    return 0;
}

void bb_outbox_resume(struct bb_outbox *outbox, uint64_t last, size_t max_message)
{
    struct bb_answer too_big = {.error = BB_ETOOBIG, .matches = BB_UNKNOWN};
    struct bb_batch *before = NULL;
    struct bb_batch **at = &outbox->first;
    outbox->unsent = outbox->first;
    outbox->in_flight = 0;
    outbox->is_halted = false;
    outbox->first_number = 0;
    outbox->front = last;
    outbox->next_number = BB_MAX(outbox->next_number, last + 1);
    bb_batch_unref(outbox->filler);
    outbox->filler = NULL;
    while (*at != NULL) {
        struct bb_batch *batch = *at;
        if (batch->len + batch->options_len + BB_BATCH_HEAD_MAX > max_message) {
            finish(outbox, at, before, &too_big);
            continue;
        }
        outbox->repeated += batch->number != 0;
        before = batch;
        at = &batch->next;
    }
}

/* --- the rest ----------------------------------------------------------------------------------- */

bool bb_outbox_drop_oldest(struct bb_outbox *outbox)
{
    struct bb_answer dropped = {.error = BB_EFULL, .matches = BB_UNKNOWN};
    struct bb_batch *before = NULL;
    for (struct bb_batch **at = &outbox->first; *at != NULL; at = &(*at)->next) {
        if ((*at)->number == 0) {
            outbox->dropped += (*at)->count;
            outbox->refused -= (*at)->count; /* finish() counts them as refused, which they are not */
            int refusal = outbox->refusal;
            finish(outbox, at, before, &dropped);
            outbox->refusal = refusal;
            return true;
        }
        before = *at;
    }
    return false;
}

void bb_outbox_fail(struct bb_outbox *outbox, int unsent_error)
{
    if (outbox->open != NULL && outbox->open->count > 0) {
        bb_outbox_seal(outbox);
    }
    while (outbox->first != NULL) {
        const struct bb_batch *first = outbox->first;
        int error = first->number == 0     ? unsent_error
                    : first->returned != 0 ? first->returned
                                           : BB_EUNKNOWNRESULT;
        finish(outbox, &outbox->first, NULL, &(struct bb_answer){.error = error, .matches = BB_UNKNOWN});
    }
    outbox->in_flight = 0;
}

static void forget_in(struct bb_batch *batch, const struct bb_waiter *waiter)
{
    for (uint32_t i = 0; i < batch->n_tracked; i++) {
        if (batch->tracked[i].waiter == waiter) {
            batch->tracked[i].waiter = NULL;
        }
    }
}

void bb_outbox_forget(struct bb_outbox *outbox, const struct bb_waiter *waiter)
{
    for (struct bb_batch *batch = outbox->first; batch != NULL; batch = batch->next) {
        forget_in(batch, waiter);
    }
    if (outbox->open != NULL) {
        forget_in(outbox->open, waiter);
    }
}

uint64_t bb_outbox_answered(const struct bb_outbox *outbox)
{
    if (outbox->first != NULL) {
        return outbox->first->begin;
    }
    return outbox->open != NULL ? outbox->open->begin : outbox->n_published;
}

struct bb_batch *bb_outbox_take_done(struct bb_outbox *outbox)
{
    struct bb_batch *done = outbox->done;
    outbox->done = NULL;
    outbox->done_end = &outbox->done;
    return done;
}

int bb_outbox_take_refusal(struct bb_outbox *outbox)
{
    int refusal = outbox->refusal;
    outbox->refusal = 0;
    return refusal;
}
