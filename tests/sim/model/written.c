/* SPDX-License-Identifier: Apache-2.0 */
/* Events by who wrote them: each appears once at most, unchanged, and in the order of its writer (PROTOCOL
 * 6.2). */
#include "proto/wire/event.h"
#include "proto/wire/mp.h"

#include "tests/sim/model/published.h"
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdlib.h>

#define WRITERS_MAX (WORLD_PEERS_MAX + 1)

struct written_list {
    struct written *list;
    size_t n;
    size_t n_slots;
};

static struct written_list *lists_of(struct world *world)
{
    if (world->judge.written == NULL) {
        world->judge.written = calloc(WRITERS_MAX, sizeof(struct written_list));
        if (world->judge.written == NULL) {
            abort();
        }
    }
    return world->judge.written;
}

uint64_t written_next(const struct world *world, uint64_t writer)
{
    return world->judge.written != NULL ? world->judge.written[writer].n : 0;
}

uint64_t
written_add(struct world *world, uint64_t writer, struct bb_slice raw, const char *refusal, bool is_numbered)
{
    struct written_list *list = &lists_of(world)[writer];
    list->list = sim_grown(list->list, list->n, &list->n_slots, sizeof(struct written));
    struct written *written = &list->list[list->n];
    *written = (struct written){
        .raw = malloc(raw.len + 1), .len = raw.len, .refusal = refusal, .is_numbered = is_numbered};
    if (written->raw == NULL) {
        abort();
    }
    memcpy(written->raw, raw.data, raw.len);
    return list->n++;
}

struct written *written_at(struct world *world, uint64_t writer, uint64_t serial)
{
    static struct written none = {.refusal = "?"};
    struct written_list *lists = lists_of(world);
    return writer < WRITERS_MAX && serial < lists[writer].n ? &lists[writer].list[serial] : &none;
}

void written_fini(struct world *world)
{
    struct written_list *lists = lists_of(world);
    for (size_t i = 0; i < WRITERS_MAX; i++) {
        for (size_t j = 0; j < lists[i].n; j++) {
            free(lists[i].list[j].raw);
        }
        free(lists[i].list);
    }
    free(lists);
}

/* The same event: byte for byte, or, when it has been JSON, in all that it says. */
static bool is_same(const struct written *written, const struct truth_event *event)
{
    struct bb_slice rest = bb_slice(written->raw, written->len);
    struct bb_event_view view;
    struct bb_attributes a = {0};
    struct bb_attributes b = {0};
    if (written->len == event->len && memcmp(written->raw, event->raw, event->len) == 0) {
        return true;
    }
    struct bb_slice other = bb_slice(event->raw, event->len);
    struct bb_event_view theirs;
    if (bb_event_read(&rest, &view) < 0 || bb_event_read(&other, &theirs) < 0 ||
        bb_event_attributes(view.attributes, &a) != 0 || bb_event_attributes(theirs.attributes, &b) != 0) {
        return false;
    }
    bool ids = a.id.len == 0 ? b.id.len == 0 : bb_mp_is_equal(a.id, b.id);
    bool headers = a.headers.len == 0 ? b.headers.len == 0 : bb_mp_is_equal(a.headers, b.headers);
    return bb_slice_equal(view.path, event->path) && bb_mp_is_equal(view.payload, event->payload) && ids &&
           headers && bb_slice_equal(a.payload_type, b.payload_type) && a.priority == b.priority &&
           a.has_source_time == b.has_source_time && a.source_time == b.source_time && a.ttl_ms == b.ttl_ms &&
           a.has_ttl == b.has_ttl;
}

/* What comes in another epoch is counted anew. */
static const char *judge_order(struct world *world, const struct truth_event *event)
{
    uint64_t epoch = written_at(world, event->writer, event->serial)->epoch;
    const struct truth_inc *inc = event->inc;
    for (size_t i = inc->n - 1; i > 0; i--) {
        const struct truth_event *before = inc->events[i - 1];
        const struct written *written = written_at(world, before->writer, before->serial);
        if (before->writer == event->writer && written->is_numbered) {
            return before->serial >= event->serial && written->event_epoch == epoch
                       ? "out of the order of its publisher"
                       : NULL;
        }
    }
    return NULL;
}

void judge_written(struct world *world, struct truth_event *event)
{
    struct written *written = written_at(world, event->writer, event->serial);
    const char *why = NULL;
    if (written->raw == NULL) {
        why = "by nobody";
    } else if (!is_same(written, event)) {
        why = "changed";
    } else if (written->refusal != NULL || (written->refused_run == world->run && written->event == NULL)) {
        why = "though it must be, or was, refused";
    } else if (written->event != NULL && !written->event->is_gone && written->event_epoch == written->epoch &&
               (!written->event->inc->is_ended || written->run == world->run)) {
        why = "twice";
    } else if (written->has_claim && written->claim != event->sequence && written->run == world->run) {
        why = "at another sequence than was acknowledged";
    } else if (written->is_numbered) {
        why = judge_order(world, event);
    }
    if (why != NULL) {
        world_fail(world, "published",
                   "event %" PRIu64 " of writer %" PRIu64 " was published %s: %" PRIu64 " of '%s'",
                   event->serial, event->writer, why, event->sequence,
                   world->truth.names[event->inc->channel].text);
    }
    written->event = event;
    written->event_epoch = written->epoch;
    written->run = world->run;
    written->n_refusers_moved = world->judge.n_refusers_moved;
}

void judge_unwritten(struct world *world, struct truth_event *event)
{
    struct written *written = written_at(world, event->writer, event->serial);
    if (written->event == event) {
        written->has_claim = false;
    }
}

/* --- producers -------------------------------------------------------------------------------- */

struct producer *producer_of(struct world *world, const uint8_t *id, uint64_t epoch)
{
    struct producer *producer = world->judge.producers;
    while (producer != NULL &&
           (producer->epoch != epoch || memcmp(producer->id, id, sizeof(producer->id)) != 0)) {
        producer = producer->next;
    }
    if (producer == NULL) {
        producer = calloc(1, sizeof(*producer));
        if (producer == NULL) {
            abort();
        }
        memcpy(producer->id, id, sizeof(producer->id));
        producer->epoch = epoch;
        producer->next = world->judge.producers;
        world->judge.producers = producer;
    }
    return producer;
}

/* Who has not published, as far as this broker knows, may be forgotten when it goes. */
static bool is_remembered(const struct world *world, const uint8_t *id, uint64_t epoch)
{
    bool is_one = false;
    for (const struct producer *producer = world->judge.producers; producer != NULL;
         producer = producer->next) {
        bool is_known = producer->last_durable > 0 || (producer->is_sure && producer->last > 0);
        is_one = is_one || (is_known && memcmp(producer->id, id, sizeof(producer->id)) == 0);
    }
    for (const struct sim_link *link = world->links; link != NULL; link = link->next) {
        is_one = is_one ||
                 (link->judged.has_id && link->judged.is_ready && link->core != NULL &&
                  link->judged.epoch == epoch && memcmp(link->judged.id, id, sizeof(link->judged.id)) == 0);
    }
    return is_one;
}

uint64_t producer_newest_epoch(const struct world *world, const uint8_t *id)
{
    uint64_t epoch = 0;
    for (const struct producer *producer = world->judge.producers; producer != NULL;
         producer = producer->next) {
        if (producer->is_sure && memcmp(producer->id, id, sizeof(producer->id)) == 0) {
            epoch = BB_MAX(epoch, producer->epoch);
        }
    }
    return is_remembered(world, id, epoch) ? epoch : 0;
}

void producers_broker_ended(struct world *world, bool has_log)
{
    for (struct producer *producer = world->judge.producers; producer != NULL; producer = producer->next) {
        producer->is_sure = false;
        producer->last_durable = has_log ? producer->last_durable : 0;
    }
}

void producers_fini(struct world *world)
{
    while (world->judge.producers != NULL) {
        struct producer *producer = world->judge.producers;
        world->judge.producers = producer->next;
        free(producer);
    }
}
