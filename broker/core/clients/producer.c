/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/clients/producer.h"

#include "broker/core/backend.h"
#include "broker/core/clients/client.h"
#include "broker/core/state.h"

#include <stdlib.h>

static struct bb_slice key_of(const uint8_t *id)
{
    return bb_slice(id, BB_CLIENT_ID_LEN);
}

struct bk_producer *bk_producer_find(const struct bk_core *core, const uint8_t *id)
{
    return bb_map_find(&core->producers, key_of(id));
}

/* --- those without a connection ------------------------------------------------------------------------ */

static void idle_remove(struct bk_core *core, struct bk_producer *producer)
{
    *(producer->prev != NULL ? &producer->prev->next : &core->idle_first) = producer->next;
    *(producer->next != NULL ? &producer->next->prev : &core->idle_last) = producer->prev;
    producer->next = producer->prev = NULL;
    core->n_idle--;
}

static void idle_add(struct bk_core *core, struct bk_producer *producer)
{
    producer->client = NULL;
    producer->next = NULL;
    producer->prev = core->idle_last;
    *(core->idle_last != NULL ? &core->idle_last->next : &core->idle_first) = producer;
    core->idle_last = producer;
    core->n_idle++;
}

static void unstage(struct bk_core *core, struct bk_producer *producer)
{
    for (struct bk_producer **at = &core->stage.producers; *at != NULL; at = &(*at)->next_staged) {
        if (*at == producer) {
            *at = producer->next_staged;
            break;
        }
    }
    producer->is_staged = false;
    producer->next_staged = NULL;
}

static void make_log_forget(struct bk_core *core, const struct bk_producer *producer)
{
    struct bk_log_producer entry = {.removed = true};
    if (core->stage.backend == NULL) {
        return;
    }
    memcpy(entry.key, producer->id, BB_CLIENT_ID_LEN);
    memcpy(entry.key + BB_CLIENT_ID_LEN, &producer->epoch, sizeof(producer->epoch));
    bb_buf_append(&core->stage.forgotten, &entry, sizeof(entry));
    core->stage.forgotten.error = 0; /* it may stay in the log without harm */
    core->stage.has_news = true;
}

static void forget(struct bk_core *core, struct bk_producer *producer)
{
    idle_remove(core, producer);
    unstage(core, producer);
    make_log_forget(core, producer);
    (void)bb_map_remove(&core->producers, key_of(producer->id));
    free(producer);
}

/* --- coming and going ------------------------------------------------------------------------------------ */

struct bk_producer *bk_producer_get(struct bk_core *core, const uint8_t *id, uint64_t epoch)
{
    struct bk_producer *producer = bk_producer_find(core, id);
    if (producer != NULL) {
        return producer;
    }
    producer = calloc(1, sizeof(*producer));
    if (producer == NULL) {
        return NULL;
    }
    memcpy(producer->id, id, BB_CLIENT_ID_LEN);
    producer->epoch = epoch;
    if (bb_map_add(&core->producers, key_of(producer->id), producer) < 0) {
        free(producer);
        return NULL;
    }
    idle_add(core, producer);
    return producer;
}

void bk_producer_raise(struct bk_core *core, struct bk_producer *producer, uint64_t epoch)
{
    make_log_forget(core, producer);
    producer->epoch = epoch;
    producer->last = producer->refused = 0;
    memset(producer->outcomes, 0, sizeof(producer->outcomes));
    bk_producer_stage(core, producer);
}

void bk_producer_attach(struct bk_core *core, struct bk_producer *producer, struct bk_client *client)
{
    idle_remove(core, producer);
    producer->client = client;
    client->producer = producer;
}

void bk_producer_detach(struct bk_core *core, struct bk_client *client)
{
    if (client->producer == NULL) {
        return;
    }
    idle_add(core, client->producer);
    client->producer = NULL;
    if (core->n_idle > BK_PRODUCERS_IDLE_MAX) {
        forget(core, core->idle_first);
    }
}

void bk_producer_stage(struct bk_core *core, struct bk_producer *producer)
{
    if (core->stage.backend == NULL) {
        return;
    }
    producer->staged_last = producer->last;
    if (!producer->is_staged) {
        producer->is_staged = true;
        producer->next_staged = core->stage.producers;
        core->stage.producers = producer;
    }
    core->stage.has_news = true;
}

void bk_producers_unstage(struct bk_core *core)
{
    while (core->stage.producers != NULL) {
        unstage(core, core->stage.producers);
    }
}

void bk_producers_fini(struct bk_core *core)
{
    size_t at = 0;
    struct bk_producer *producer = NULL;
    while ((producer = bb_map_next(&core->producers, &at, NULL)) != NULL) {
        free(producer);
    }
    bb_map_fini(&core->producers);
}

/* --- what became of numbers -------------------------------------------------------------------------------- */

void bk_producer_note(struct bk_producer *producer, uint64_t number, int outcome)
{
    producer->outcomes[number % BK_OUTCOMES] = (int8_t)outcome;
    if (outcome != 0) {
        producer->refused = BB_MAX(producer->refused, number);
    }
}

int bk_producer_outcome(const struct bk_producer *producer, uint64_t number)
{
    bool is_known = number != 0 && number <= producer->last && producer->last - number < BK_OUTCOMES;
    return is_known ? producer->outcomes[number % BK_OUTCOMES] : 0;
}
