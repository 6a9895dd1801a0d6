/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/outbox.h"

#include "proto/base/error.h"
#include "proto/wire/message.h"

#include "bus/answer.h"

#include <stdlib.h>

/* The number of a batch that was sent to a broker that is no more. */
#define NUMBER_VOID UINT64_MAX

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

/*
 * Numbers are given when a batch leaves; one below the next is a repetition of what the broker took. Nothing reads
 * the head that is written over: what was on its way by an older connection went with it.
 */
static void number_unsent(struct bb_outbox *outbox)
{
    uint64_t number = outbox->unsent->number;
    if (number == 0 || number > outbox->next_number) {
        bb_batch_number(outbox->unsent, outbox->next_number);
    }
}

struct bb_batch *bb_outbox_next(struct bb_outbox *outbox)
{
    if (outbox->in_flight >= outbox->max_in_flight) {
        return NULL;
    }
    if (outbox->unsent == NULL) {
        if (!bb_outbox_is_eager(outbox) || outbox->open == NULL || outbox->open->count == 0) {
            return NULL;
        }
        bb_outbox_seal(outbox);
    }
    number_unsent(outbox);
    return outbox->unsent;
}

void bb_outbox_sent(struct bb_outbox *outbox)
{
    outbox->next_number += outbox->unsent->number == outbox->next_number;
    outbox->unsent = outbox->unsent->next;
    outbox->in_flight++;
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

/* Answers come in the order of the numbers, so this looks at the first batch nearly always. */
static void answer_number(struct bb_outbox *outbox, uint64_t number, struct bb_answer *answer)
{
    struct bb_batch *before = NULL;
    for (struct bb_batch **at = &outbox->first; *at != outbox->unsent; at = &(*at)->next) {
        if ((*at)->number == number) {
            outbox->in_flight--;
            finish(outbox, at, before, answer);
            return;
        }
        before = *at;
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

void bb_outbox_refuse(struct bb_outbox *outbox, uint64_t number, int error)
{
    answer_number(outbox, number, &(struct bb_answer){.error = error, .matches = BB_UNKNOWN});
}

/* The number of the oldest batch that was sent, the next number if there is none. */
static uint64_t first_sent(const struct bb_outbox *outbox)
{
    for (const struct bb_batch *batch = outbox->first; batch != NULL; batch = batch->next) {
        if (batch->number != 0 && batch->number != NUMBER_VOID) {
            return batch->number;
        }
    }
    return outbox->next_number;
}

void bb_outbox_resume(struct bb_outbox *outbox, uint64_t last, enum bb_memory memory, size_t max_message)
{
    struct bb_answer too_big = {.error = BB_ETOOBIG, .matches = BB_UNKNOWN};
    struct bb_batch *before = NULL;
    struct bb_batch **at = &outbox->first;
    uint64_t next = memory == BB_MEMORY_LOG ? BB_MAX(last + 1, first_sent(outbox)) : last + 1;
    outbox->unsent = outbox->first;
    outbox->in_flight = 0;
    while (*at != NULL) {
        struct bb_batch *batch = *at;
        bool was_sent = batch->number != 0;
        if (batch->len + batch->options_len + BB_BATCH_HEAD_MAX > max_message) {
            finish(outbox, at, before, &too_big);
            continue;
        }
        if (was_sent && memory == BB_MEMORY_NONE) {
            batch->number = NUMBER_VOID;
        }
        outbox->repeated += was_sent;
        before = batch;
        at = &batch->next;
    }
    outbox->next_number = next;
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
        int error = outbox->first->number == 0 ? unsent_error : BB_EUNKNOWNRESULT;
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
