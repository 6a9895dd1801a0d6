/* SPDX-License-Identifier: Apache-2.0 */
/* Cursors (PROTOCOL 15.3): what each may be, after saves that were answered and saves that were not yet. */
#include "proto/wire/mp.h"

#include "tests/sim/model/account.h"
#include "tests/sim/world.h"

#include <stdlib.h>

struct saved_position {
    size_t channel;
    uint64_t sequence;
    uint64_t life; /* 0: that of the channel when it was saved */
    struct truth_inc *inc;
    size_t cut;
    bool is_beyond; /* of what was seen: then it may be of an older life */
};

/* One save; newest first. */
struct saved {
    struct saved *next;
    char name[24];
    bool is_removal;
    bool is_done;    /* answered: those before it do not count any more */
    bool is_logged;  /* it outlives the broker */
    bool is_made;    /* by the broker, where a subscription began: no answer says that it is on the disk */
    bool is_unknown; /* and where it began was never told */
    uint64_t generation; /* of the log: one that was wiped may come back as an older copy */
    struct sim_link *link;
    uint64_t corr;
    struct saved_position positions[NAMES_MAX];
    size_t n;
};

static void read_positions(struct world *world, struct saved *saved, struct bb_slice positions)
{
    struct bb_mp_reader reader = bb_mp_reader(positions);
    uint32_t n = bb_mp_read_array(&reader);
    for (uint32_t i = 0; i < n && reader.error == 0 && saved->n < NAMES_MAX; i++) {
        struct saved_position *position = &saved->positions[saved->n++];
        uint32_t fields = bb_mp_read_array(&reader);
        position->channel = truth_name(world, bb_mp_read_str(&reader));
        position->sequence = bb_mp_read_uint(&reader);
        position->life = fields > 2 ? bb_mp_read_uint(&reader) : 0;
        position->inc = world->truth.names[position->channel].inc;
        position->cut = position->inc != NULL ? position->inc->n_cuts : 0;
        position->is_beyond = position->inc != NULL && position->sequence > position->inc->visible;
    }
}

void cursor_ask(struct world *world, struct sim_link *link, const struct bb_msg *msg)
{
    struct saved *saved = calloc(1, sizeof(*saved));
    if (saved == NULL) {
        abort();
    }
    memcpy(saved->name, msg->name.data, BB_MIN(msg->name.len, sizeof(saved->name) - 1));
    saved->link = link;
    saved->corr = msg->corr;
    saved->is_logged = world->has_log;
    saved->generation = world->disk.generation;
    struct bb_mp_reader reader = bb_mp_reader(msg->positions);
    saved->is_removal = msg->positions.len == 0 || bb_mp_peek_type(&reader) != BB_MP_ARRAY;
    if (!saved->is_removal) {
        read_positions(world, saved, msg->positions);
    }
    saved->next = world->judge.saved;
    world->judge.saved = saved;
}

void cursor_made(struct world *world, struct bb_slice name, struct bb_slice positions, bool is_sure)
{
    const struct bb_msg msg = {.name = name, .positions = positions};
    for (const struct saved *saved = world->judge.saved; saved != NULL;
         saved = saved->next) { /* they may come after it */
        is_sure = is_sure &&
                  (saved->link == NULL || saved->is_done || !bb_slice_equal(bb_slice_str(saved->name), name));
    }
    cursor_ask(world, NULL, &msg);
    world->judge.saved->is_made = true;
    world->judge.saved->is_done = is_sure;
}

void cursor_may_be_made(struct world *world, struct bb_slice name)
{
    cursor_made(world, name, bb_slice("\x90", 1), false);
    world->judge.saved->is_unknown = true;
}

void cursor_answer(struct world *world, struct sim_link *link, uint64_t corr, bool is_done)
{
    struct saved **at = &world->judge.saved;
    while (*at != NULL && ((*at)->link != link || (*at)->corr != corr)) {
        at = &(*at)->next;
    }
    struct saved *saved = *at;
    if (saved != NULL && is_done) {
        saved->is_done = true;
    } /* refused: it may have been taken all the same and be lost later */
}

void cursor_broker_ended(struct world *world, bool is_wiped, bool is_older)
{
    for (struct saved **at = &world->judge.saved; *at != NULL;) {
        struct saved *saved = *at;
        if ((is_wiped && !world->disk.has_copy) || !saved->is_logged) {
            *at = saved->next;
            free(saved);
            continue;
        }
        saved->link = NULL;
        /* An older copy may have any of them, or none. */
        saved->is_done = saved->is_done && !is_older && !saved->is_made;
        at = &saved->next;
    }
}

void cursor_fini(struct world *world)
{
    world->disk.has_copy = false;
    cursor_broker_ended(world, true, false);
}

static enum truth_verdict
judge_position(struct world *world, const struct saved_position *position, uint64_t *ret_end)
{
    if (position->life != 0) {
        return truth_judge_life(world, position->channel, position->sequence, position->life, ret_end);
    }
    enum truth_verdict verdict =
        truth_judge_inc(world, position->inc, position->cut, position->sequence, ret_end);
    return verdict == POSITION_VALID && position->is_beyond ? POSITION_UNSURE : verdict;
}

static void give(struct world *world, const struct saved *saved, struct saved_place *places, size_t *ret_n)
{
    *ret_n = saved->is_unknown ? world->truth.n_names : saved->n;
    for (size_t i = 0; i < *ret_n && saved->is_unknown; i++) {
        places[i] = (struct saved_place){i, 0, POSITION_UNSURE, 0};
    }
    for (size_t i = 0; i < saved->n; i++) {
        places[i] =
            (struct saved_place){saved->positions[i].channel, saved->positions[i].sequence, POSITION_VOID, 0};
        places[i].verdict = judge_position(world, &saved->positions[i], &places[i].end);
    }
}

bool cursor_lookup(struct world *world,
                   struct bb_slice name,
                   size_t n,
                   struct saved_place places[NAMES_MAX],
                   size_t *ret_n,
                   bool *ret_is_there)
{
    bool is_over = false;
    for (const struct saved *saved = world->judge.saved; saved != NULL && !is_over; saved = saved->next) {
        if (!bb_slice_equal(bb_slice_str(saved->name), name) || saved->is_logged != world->has_log ||
            (saved->is_logged && saved->generation != world->disk.generation)) {
            continue;
        }
        is_over = saved->is_done;
        if (n-- == 0) {
            give(world, saved, places, ret_n);
            *ret_is_there = !saved->is_removal;
            return true;
        }
    }
    *ret_is_there = false; /* nothing was saved for sure */
    return !is_over && n == 0;
}

void cursor_forget_link(struct world *world, const struct sim_link *link)
{
    for (struct saved *saved = world->judge.saved; saved != NULL; saved = saved->next) {
        saved->link = saved->link == link ? NULL : saved->link;
    }
}
