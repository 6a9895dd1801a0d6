/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/query.h"

#include "proto/wire/event.h"
#include "proto/wire/mp.h"
#include "proto/wire/path.h"

#include "tests/sim/client_act.h"
#include "tests/sim/world.h"

#include <inttypes.h>

void query_ask(struct sim_client *client, const char *pattern)
{
    struct sim_rng *rng = &client->world->rng;
    struct sim_query *query = &client->query;
    struct bb_buf map = BB_BUF_INIT;
    if (query->corr != 0) {
        return;
    }
    *query = (struct sim_query){
        .corr = ++client->corr,
        .pattern = pattern,
        .ascending = sim_chance(rng, 500),
        .t_from = sim_chance(rng, 500) ? world_wall(client->world) - sim_below(rng, 2000000) : 0,
        .max = sim_chance(rng, 500) ? sim_between(rng, 1, 20) : 1000,
    };
    bb_mp_write_map(&map, 4);
    bb_mp_write_str(&map, bb_slice_str("types"));
    bb_mp_write_array(&map, 1);
    bb_mp_write_str(&map, bb_slice_str(pattern));
    bb_mp_write_str(&map, bb_slice_str("order"));
    bb_mp_write_str(&map, bb_slice_str(query->ascending ? "ascending" : "descending"));
    bb_mp_write_str(&map, bb_slice_str("t_from"));
    bb_mp_write_uint(&map, query->t_from);
    bb_mp_write_str(&map, bb_slice_str("max"));
    bb_mp_write_uint(&map, query->max);
    client_send_msg(client,
                    &(struct bb_msg){.type = BB_MSG_QUERY, .corr = query->corr, .query = bb_buf_slice(&map)});
    bb_buf_fini(&map);
}

void query_note(struct sim_client *client, uint64_t corr)
{
    for (size_t i = 0; i < SIM_CHANNELS && client->query.corr == corr; i++) {
        client->query.last_then[i] = ledger_last(&client->world->ledger, i);
    }
}

/* --- the answer by the ledger ------------------------------------------------------------------------ */

/* Walks through the events of all channels in the order of their ids. */
struct walk {
    const struct ledger *ledger;
    const struct sim_query *query;
    uint64_t at[SIM_CHANNELS]; /* the sequence that is next */
};

static void walk_start(struct walk *walk, const struct ledger *ledger, const struct sim_query *query)
{
    *walk = (struct walk){.ledger = ledger, .query = query};
    for (size_t i = 0; i < SIM_CHANNELS; i++) {
        walk->at[i] = query->ascending ? 1 : ledger_last(ledger, i);
    }
}

static bool is_before(const struct ledger_event *a, const struct ledger_event *b)
{
    return a->session != b->session ? a->session < b->session : a->instance < b->instance;
}

/* The next event that the query wants, NULL at the end. */
static const struct ledger_event *walk_next(struct walk *walk, size_t *ret_channel, uint64_t *ret_sequence)
{
    bool ascending = walk->query->ascending;
    for (;;) {
        const struct ledger_event *best = NULL;
        for (size_t i = 0; i < SIM_CHANNELS; i++) {
            const struct ledger_event *event = ledger_at(walk->ledger, i, walk->at[i]);
            if (event != NULL && (best == NULL || (is_before(event, best) == ascending))) {
                best = event;
                *ret_channel = i;
            }
        }
        if (best == NULL) {
            return NULL;
        }
        *ret_sequence = walk->at[*ret_channel];
        walk->at[*ret_channel] += ascending ? 1 : UINT64_MAX;
        if (best->time >= walk->query->t_from &&
            bb_pattern_matches(bb_slice_str(walk->query->pattern), best->path)) {
            return best;
        }
    }
}

struct checked {
    struct walk walk;
    uint64_t n;
};

/* One event of the answer: the next one of the ledger; newer ones than there were when the query came may be left out in front. */
static bool
check_event(struct checked *checked, const struct bb_block *block, uint64_t i, struct bb_slice raw)
{
    const struct sim_query *query = checked->walk.query;
    for (;;) {
        size_t channel = 0;
        uint64_t sequence = 0;
        const struct ledger_event *event = walk_next(&checked->walk, &channel, &sequence);
        if (event == NULL) {
            return false;
        }
        if (event->session == block->session && event->instance == block->instance + i &&
            sequence == block->sequence + i) {
            checked->n++;
            return event->len == raw.len && memcmp(event->raw, raw.data, raw.len) == 0 &&
                   event->time == block->time && event->source == block->source;
        }
        if (query->ascending || checked->n > 0 || sequence <= query->last_then[channel]) {
            return false;
        }
    }
}

/* After the last event of an answer that is complete nothing is left but what came later. */
static bool check_end(struct checked *checked)
{
    const struct sim_query *query = checked->walk.query;
    size_t channel = 0;
    uint64_t sequence = 0;
    const struct ledger_event *event = NULL;
    while ((event = walk_next(&checked->walk, &channel, &sequence)) != NULL) {
        if (sequence <= query->last_then[channel]) {
            return false;
        }
    }
    return true;
}

static bool check_answer(struct checked *checked, const struct bb_msg *msg)
{
    struct bb_slice rest = msg->body;
    struct bb_block block;
    struct bb_event_view event;
    while (rest.len > 0) {
        if (bb_block_read(&rest, &block) < 0) {
            return false;
        }
        struct bb_slice events = bb_slice(rest.data, (size_t)block.length);
        rest = bb_slice(rest.data + block.length, rest.len - (size_t)block.length);
        for (uint64_t i = 0; i < block.count; i++) {
            if (bb_event_read(&events, &event) < 0 || !check_event(checked, &block, i, event.raw)) {
                return false;
            }
        }
    }
    return checked->n <= checked->walk.query->max && (msg->more != 0 || check_end(checked));
}

void query_answer(struct sim_client *client, const struct bb_msg *msg)
{
    struct world *world = client->world;
    struct checked checked = {0};
    if (client->query.corr != msg->corr) {
        world_fail(world, "an answer to a query that was not asked");
        return;
    }
    walk_start(&checked.walk, &world->ledger, &client->query);
    if (!check_answer(&checked, msg)) {
        world_fail(world,
                   "the answer to the query for \"%s\" is not what was published, behind %" PRIu64 " events",
                   client->query.pattern, checked.n);
    }
    client->query.corr = 0;
}
