/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is published and not acknowledged: the open batch that events are written into, batches that wait to
 * be sent, and batches that were sent and are kept until the broker answers, since they are sent again after
 * a reconnection. Bounded by bytes. Decides when a batch leaves: at once while nothing is unacknowledged,
 * half full while one batch is or a few wait for the disk, else when it is full; acknowledgements are the
 * clock, there are no timers.
 *
 * Sends nothing itself and takes no lock: the caller holds the lock of the bus.
 */
#pragma once

#include "proto/base/buf.h"

#include "bus/batch.h"
#include "bus/busbar.h"

#include <stdbool.h>
#include <stdint.h>

struct bb_outbox {
    struct bb_pool pool;
    struct bb_batch *first; /* the oldest unacknowledged or unsent batch */
    struct bb_batch *last;
    struct bb_batch *unsent; /* from here on in the list */
    struct bb_batch *open;
    size_t batch_bytes;
    size_t queue_bytes;
    size_t bytes; /* charged against queue_bytes */
    uint32_t in_flight;
    uint32_t max_in_flight;
    bool unbatched;
    uint64_t next_number;  /* of what was never sent; never given twice */
    uint64_t first_number; /* that was sent by this connection, 0: none yet */
    uint64_t front; /* the broker has all up to here: it took them, or they were sent by this connection */
    struct bb_batch *filler; /* to be sent before `unsent`; see bb_outbox_next() */
    bool is_halted; /* the broker ends and takes nothing more: what is left is for the next connection */
    uint64_t last_ticket;
    unsigned n_callbacks;  /* on_ack of events that were not called yet; who calls them counts them off */
    struct bb_batch *done; /* answered; someone waited for their events */
    struct bb_batch **done_end;
    int refusal;          /* the first since bb_outbox_take_refusal() */
    uint64_t n_published; /* events */
    uint64_t repeated;
    uint64_t refused;
    uint64_t dropped;
};

void bb_outbox_init(struct bb_outbox *outbox, size_t batch_bytes, size_t queue_bytes, bool unbatched);

/** bb_outbox_fini() - free all; bb_outbox_fail() and the callbacks come first. */
void bb_outbox_fini(struct bb_outbox *outbox);

/**
 * bb_outbox_room() - where to write the next event of at most @need bytes
 * @level:   of the event: the open batch is left to itself if the two must not go together
 * @options: of the publish, MessagePack; not empty: the event begins a new batch, and bb_outbox_seal()
 *           follows
 * @ret_to:  room of @need bytes; bb_outbox_commit() says how many were written
 *
 * Return: 0, BB_EFULL, BB_ENOMEM.
 */
BB_MUST_CHECK int bb_outbox_room(struct bb_outbox *outbox,
                                 size_t need,
                                 uint32_t level,
                                 struct bb_slice options,
                                 uint8_t **ret_to);

/** bb_outbox_seal() - no further event comes into the open batch, which is not empty. */
void bb_outbox_seal(struct bb_outbox *outbox);

/**
 * bb_outbox_commit() - the event was written
 * @tracked: copied: who wants to know, with the ticket; NULL if nobody does. There is room for it
 *           (bb_batch_track()).
 */
static inline void
bb_outbox_commit(struct bb_outbox *outbox, size_t len, uint32_t level, const struct bb_tracked *tracked)
{
    struct bb_batch *batch = outbox->open;
    batch->len += len;
    outbox->bytes += len;
    if (tracked != NULL) {
        struct bb_tracked *to = &batch->tracked[batch->n_tracked++];
        *to = *tracked;
        to->index = batch->count;
        outbox->n_callbacks += tracked->on_ack != NULL;
    }
    batch->count++;
    outbox->n_published++;
    batch->level = level > batch->level ? level : batch->level;
}

/*
 * Whether events of these levels can share a batch, which is acknowledged at the higher one: no level stands
 * for what the channel is set to, and levels from synced on are refused where the others are not.
 */
static inline bool bb_levels_mix(uint32_t a, uint32_t b)
{
    return a == b || (BB_MIN(a, b) > BB_LEVEL_NONE && BB_MAX(a, b) < BB_LEVEL_SYNCED);
}

/*
 * So many on their way that are to be on disk, which takes the broker time but no work: what follows need not
 * wait for one of them to leave half full, and is on disk with the next.
 */
#define BB_EAGER_SYNCED 7

/* Whether the open batch leaves before it is full. */
static inline bool bb_outbox_is_eager(const struct bb_outbox *outbox)
{
    const struct bb_batch *open = outbox->open;
    if (outbox->in_flight == 0 || outbox->unbatched) {
        return true;
    }
    return open != NULL && open->len >= outbox->batch_bytes / 2 &&
           outbox->in_flight <= (open->level == BB_LEVEL_SYNCED ? BB_EAGER_SYNCED : 1);
}

/** bb_outbox_wants_out() - may bb_outbox_next() have something? Cheap enough for each event. */
static inline bool bb_outbox_wants_out(const struct bb_outbox *outbox)
{
    return outbox->unsent != NULL || bb_outbox_is_eager(outbox);
}

/**
 * bb_outbox_next() - the batch to be sent now, numbered; NULL for none. bb_outbox_sent() follows.
 *
 * A connection begins with any number and goes on without a hole. Where a batch in between was answered
 * already, an empty one takes its number.
 */
struct bb_batch *bb_outbox_next(struct bb_outbox *outbox);

/** bb_outbox_sent() - what bb_outbox_next() gave was sent. */
void bb_outbox_sent(struct bb_outbox *outbox);

/** bb_outbox_has_unacked() - is anything published and not answered? */
static inline bool bb_outbox_has_unacked(const struct bb_outbox *outbox)
{
    return outbox->first != NULL || (outbox->open != NULL && outbox->open->count > 0);
}

/** bb_outbox_ack() - one entry of an ack (PROTOCOL 6.2), distrusted. Return: 0 or BB_EMALFORMED. */
BB_MUST_CHECK int bb_outbox_ack(struct bb_outbox *outbox, struct bb_slice entry);

/**
 * bb_outbox_refuse() - the broker refused the whole batch @number
 *
 * It is answered with @error, but for BB_ESHUTDOWN: then it stays, and nothing is sent before the next
 * connection.
 *
 * Return: 0; BB_ESEQUENCE: the broker counts differently, which a new connection mends. It stays as well.
 */
BB_MUST_CHECK int bb_outbox_refuse(struct bb_outbox *outbox, uint64_t number, int error);

/**
 * bb_outbox_resume() - a new connection: everything unacknowledged is to be sent again, under the same
 * numbers
 * @last:        highest number that the broker took
 * @max_message: what the broker takes; larger batches are refused here
 *
 * A number belongs to one batch for ever, whichever brokers it was sent to: so the one that took it, and
 * comes back later, knows it again.
 */
void bb_outbox_resume(struct bb_outbox *outbox, uint64_t last, size_t max_message);

/** bb_outbox_drop_oldest() - drop the oldest batch that was never sent; false if there is none. */
bool bb_outbox_drop_oldest(struct bb_outbox *outbox);

/**
 * bb_outbox_fail() - the bus ends: @unsent_error for what was never sent, the reason for what the broker gave
 * back, BB_EUNKNOWNRESULT for the rest
 */
void bb_outbox_fail(struct bb_outbox *outbox, int unsent_error);

/** bb_outbox_forget() - nobody waits with @waiter any more. */
void bb_outbox_forget(struct bb_outbox *outbox, const struct bb_waiter *waiter);

/** bb_outbox_answered() - so many events, counted from the first that was published, are all answered. */
uint64_t bb_outbox_answered(const struct bb_outbox *outbox);

/**
 * bb_outbox_take_done() - answered batches with events that someone waited for, oldest first; the caller's
 * reference.
 */
struct bb_batch *bb_outbox_take_done(struct bb_outbox *outbox);

/** bb_outbox_ack_of() - the answer to an event of an answered batch. */
static inline struct bb_ack bb_outbox_ack_of(const struct bb_batch *batch, const struct bb_tracked *tracked)
{
    struct bb_ack ack = batch->answer;
    ack.ticket = tracked->ticket;
    ack.error = tracked->error;
    ack.sequence = tracked->sequence;
    return ack;
}

/** bb_outbox_take_refusal() - the first refusal since the last call, 0 if there was none. */
int bb_outbox_take_refusal(struct bb_outbox *outbox);
