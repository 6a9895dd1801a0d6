/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/disk/disk.h"

#include "proto/base/error.h"
#include "proto/wire/event.h"
#include "proto/wire/mp.h"

#include "broker/backend/lmdb/batch.h"
#include "tests/sim/model/published.h"
#include "tests/sim/world.h"

#include <stdlib.h>

#define NEVER UINT64_MAX

/* Retention by age is looked at so often. */
#define TIDY_US 20000

struct disk_ticket {
    struct disk_ticket *next;
    uint64_t ticket;
    struct bb_buf payload;
};

static struct sim_disk *of(struct bk_backend *backend)
{
    return BB_CONTAINER(backend, struct sim_disk, backend);
}

static void plan(struct sim_disk *disk)
{
    disk->next_at = BB_MIN(BB_MIN(disk->commit_at, disk->answer_at), BB_MIN(disk->state_at, disk->tidy_at));
}

static uint64_t commit_delay(struct sim_disk *disk)
{
    return disk->temper.is_slow ? sim_between(&disk->rng, 3000, 60000) : sim_between(&disk->rng, 50, 6000);
}

static uint64_t answer_delay(struct sim_disk *disk)
{
    return disk->temper.is_slow ? sim_between(&disk->rng, 1000, 30000) : sim_between(&disk->rng, 10, 3000);
}

/* --- the truth hears -------------------------------------------------------------------------- */

static struct truth_inc *inc_of(struct world *world, uint32_t id)
{
    for (size_t i = 0; i < world->truth.n_names; i++) {
        for (struct truth_inc *inc = world->truth.names[i].inc; inc != NULL; inc = inc->next) {
            if (inc->id == id && inc->generation == world->disk.generation) {
                return inc;
            }
        }
    }
    return NULL;
}

/* A removal has no name, only an id. */
static void tell_removal(struct world *world, uint32_t id)
{
    struct truth_inc *inc = inc_of(world, id);
    if (inc != NULL && !inc->is_ended && inc == world->truth.names[inc->channel].inc) {
        truth_remove(world, inc->channel, "the log is told so");
    }
}

/* By its settings, which are [settings, lives]. */
static bool is_set_to_log(struct bb_slice settings)
{
    struct bb_mp_reader reader = bb_mp_reader(settings);
    (void)bb_mp_read_array(&reader);
    uint32_t n = bb_mp_read_map(&reader);
    for (uint32_t i = 0; i < n && reader.error == 0; i++) {
        struct bb_slice key = bb_mp_read_str(&reader);
        struct bb_slice value = bb_mp_read_raw(&reader);
        if (bb_slice_equal(key, bb_slice_str("store"))) {
            struct bb_mp_reader word = bb_mp_reader(value);
            return bb_slice_equal(bb_mp_read_str(&word), bb_slice_str("log"));
        }
    }
    return false;
}

/* A channel that is kept here is there until its removal is on the disk. */
static bool goes_later(struct world *world, const struct bk_log_channel *entry)
{
    const struct truth_inc *inc = entry->removed ? inc_of(world, entry->id) : NULL;
    return inc != NULL && (inc->is_logged || (inc->n == 0 && inc->is_set_to_log));
}

static void tell_channel(struct world *world, const struct bk_log_channel *entry)
{
    if (entry->removed && !goes_later(world, entry)) {
        tell_removal(world, entry->id);
    }
    if (entry->removed) {
        return;
    }
    size_t channel = truth_name(world, entry->name);
    struct truth_inc *inc = inc_of(world, entry->id);
    inc = inc != NULL ? inc : truth_current(world, channel);
    inc->is_set_to_log = is_set_to_log(entry->settings);
    if (inc->id == 0) {
        inc->id = entry->id;
        inc->generation = world->disk.generation;
    }
}

static void tell_block(struct world *world, const struct bk_log_block *block)
{
    struct bb_slice rest = bb_slice(block->events, (size_t)block->head.length);
    struct bb_event_view view;
    for (uint64_t i = 0; i < block->head.count && !world->failed; i++) {
        if (bb_event_read(&rest, &view) < 0) {
            world_fail(world, "log", "an event is given to the log that cannot be read");
            return;
        }
        const struct truth_shown shown = {
            .raw = view.raw,
            .session = block->head.session,
            .instance = block->head.instance + i,
            .time = block->head.time,
            .source = block->head.source,
            .sequence = block->head.sequence + i,
            .id = block->channel,
        };
        struct truth_event *event = truth_take(world, &shown, true);
        if (event != NULL) {
            event->is_registered = true;
        }
    }
    if (rest.len != 0 && !world->failed) {
        world_fail(world, "log", "a block for the log holds more than it says");
    }
}

/* What was said so far in this call was said before the channel was removed. */
static bool has_removal(const struct bk_append *append)
{
    for (size_t i = 0; i < append->n_channels; i++) {
        if (append->channels[i].removed) {
            return true;
        }
    }
    return false;
}

static void tell_append(struct world *world, const struct bk_append *append)
{
    if (has_removal(append)) {
        judge_settle(world);
    }
    for (size_t i = 0; i < append->n_channels; i++) {
        tell_channel(world, &append->channels[i]);
    }
    for (size_t i = 0; i < append->n_blocks && !world->failed; i++) {
        tell_block(world, &append->blocks[i]);
    }
}

/* --- commits ---------------------------------------------------------------------------------- */

static void ticket_drop(struct sim_disk *disk)
{
    struct disk_ticket *ticket = disk->queue;
    disk->queue = ticket->next;
    bb_buf_fini(&ticket->payload);
    free(ticket);
}

static void keep(struct sim_disk *disk, struct bk_batch_entry *entry)
{
    struct truth_inc *inc = NULL;
    switch (entry->kind) {
    case BK_BATCH_CHANNEL:
        store_channel(&disk->store, &entry->channel);
        if (goes_later(disk->world, &entry->channel)) {
            judge_settle(disk->world);
            tell_removal(disk->world, entry->channel.id);
        }
        break;
    case BK_BATCH_BLOCK:
        store_block(&disk->store, &entry->block);
        inc = inc_of(disk->world, entry->block.channel);
        if (inc != NULL) {
            truth_durable(disk->world, inc, entry->block.head.sequence + entry->block.head.count - 1);
        }
        break;
    case BK_BATCH_PRODUCER:
        store_producer(&disk->store, &entry->producer);
        break;
    case BK_BATCH_CURSOR:
        store_cursor(&disk->store, &entry->cursor);
        break;
    }
}

/* Up to some tickets, together. Return: the last one. */
static uint64_t commit_some(struct sim_disk *disk)
{
    uint64_t last = 0;
    uint64_t n = sim_between(&disk->rng, 1, 6);
    bool lies = disk->lie == LIE_FLUSHED && !disk->has_lied && disk->n_commits > 20;
    for (; disk->queue != NULL && n > 0; n--) {
        struct bb_slice rest = bb_buf_slice(&disk->queue->payload);
        struct bk_batch_entry entry;
        while (!lies && bk_batch_next(&rest, &entry) > 0) {
            keep(disk, &entry);
        }
        last = disk->queue->ticket;
        ticket_drop(disk);
    }
    disk->has_lied = disk->has_lied || lies;
    disk->n_commits++;
    return last;
}

static void commit(struct sim_disk *disk)
{
    disk->commit_at = NEVER;
    if (disk->queue == NULL) {
        return;
    }
    uint64_t last = commit_some(disk);
    if (disk->queue != NULL) {
        disk->commit_at = disk->now + commit_delay(disk);
    }
    disk->listener->flushed(disk->listener->context, last, 0);
}

static void tell_state(struct sim_disk *disk, enum bk_backend_state state)
{
    struct world *world = disk->world;
    disk->listener->state(disk->listener->context, state, "simulated");
    world->judge.full_since = state == BK_BACKEND_FULL ? BB_MAX(world->now, 1) : 0;
    judge_meets(world, SIZE_MAX,
                state == BK_BACKEND_FULL     ? F(log_full)
                : state == BK_BACKEND_FAILED ? F(log_failed)
                                             : 0);
    disk->told = state;
}

/* A commit fails: some of what waits may be found on the disk when it is read again, the rest is lost.
 * Until then it refuses. */
static void fail(struct sim_disk *disk)
{
    disk->n_failures++;
    disk->state = BK_BACKEND_FAILED;
    disk->commit_at = NEVER;
    disk->state_at = disk->now + sim_between(&disk->rng, 100, 60000);
    if (sim_chance(&disk->rng, 500)) { /* else it is told when something is refused, or when it is over */
        tell_state(disk, BK_BACKEND_FAILED);
    }
}

static void cut_all(struct sim_disk *disk)
{
    struct world *world = disk->world;
    for (size_t i = 0; i < world->truth.n_names; i++) {
        for (struct truth_inc *inc = world->truth.names[i].inc; inc != NULL; inc = inc->next) {
            if (inc->is_logged && !inc->is_ended) {
                truth_cut(world, inc, inc->durable);
            }
        }
    }
}

static void recover(struct sim_disk *disk)
{
    if (disk->queue != NULL && sim_chance(&disk->rng, 500)) {
        uint64_t last = commit_some(disk);
        disk->listener->flushed(disk->listener->context, last, 0);
    }
    if (disk->queue != NULL) {
        uint64_t first = disk->queue->ticket;
        while (disk->queue != NULL) {
            ticket_drop(disk);
        }
        judge_meets(disk->world, SIZE_MAX, F(log_failed));
        cut_all(disk);
        disk->listener->flushed(disk->listener->context, first, BB_ELOGFAILED);
    }
}

static uint64_t next_change(struct sim_disk *disk)
{
    bool is_well = disk->is_calm || (!disk->temper.is_shaky && !disk->temper.fills_up);
    return is_well ? NEVER : disk->now + sim_between(&disk->rng, 10000, 300000);
}

static void change_state(struct sim_disk *disk)
{
    if (disk->state != BK_BACKEND_OK) {
        if (disk->state == BK_BACKEND_FAILED) {
            recover(disk);
        }
        disk->state = BK_BACKEND_OK;
        tell_state(disk, BK_BACKEND_OK);
        disk->state_at = next_change(disk);
    } else if (disk->temper.fills_up && (!disk->temper.is_shaky || sim_chance(&disk->rng, 400))) {
        disk->state = BK_BACKEND_FULL;
        disk->n_failures++;
        disk->state_at = disk->now + sim_between(&disk->rng, 1000, 60000);
        tell_state(disk, BK_BACKEND_FULL);
    } else {
        fail(disk);
    }
    if (disk->queue != NULL && disk->commit_at == NEVER && disk->state != BK_BACKEND_FAILED) {
        disk->commit_at = disk->now + commit_delay(disk);
    }
}

/* --- retention -------------------------------------------------------------------------------- */

static void tidy(struct sim_disk *disk)
{
    disk->tidy_at = disk->now + TIDY_US;
    for (size_t i = 0; i < disk->store.n_channels; i++) {
        const struct store_channel *channel = &disk->store.channels[i];
        const struct bk_retention *limits = &channel->retention;
        if (channel->removed || (limits->max_age_us == BK_NO_LIMIT && limits->max_bytes == BK_NO_LIMIT &&
                                 limits->max_events == BK_NO_LIMIT && limits->max_per_path == BK_NO_LIMIT)) {
            continue;
        }
        uint64_t first = store_first(&disk->store, channel);
        store_retain(&disk->store, channel, world_wall(disk->world));
        uint64_t now = store_first(&disk->store, channel);
        if (now != first) {
            disk->listener->trimmed(disk->listener->context, channel->id, now);
        }
    }
}

/* --- requests --------------------------------------------------------------------------------- */

/* One of the oldest; a flush waits for what was registered before it. */
static struct bk_request *take_request(struct sim_disk *disk)
{
    struct bk_request **at = &disk->requests;
    for (uint64_t n = sim_chance(&disk->rng, 300) ? sim_below(&disk->rng, 3) : 0;
         n > 0 && (*at)->next != NULL; n--) {
        at = &(*at)->next;
    }
    struct bk_request *request = *at;
    bool waits =
        request->kind == BK_REQUEST_FLUSH && disk->queue != NULL && disk->queue->ticket <= request->barrier;
    if (waits) {
        return NULL;
    }
    *at = request->next;
    return request;
}

static void note_wait(struct sim_disk *disk, const struct bk_read *read)
{
    uint64_t wait = disk->world->now - world_when(disk->world, read->now);
    disk->slowest_read = BB_MAX(disk->slowest_read, wait);
}

static void answer(struct sim_disk *disk)
{
    struct bk_request *request = take_request(disk);
    if (request != NULL && request->kind == BK_REQUEST_READ) {
        note_wait(disk, BB_CONTAINER(request, struct bk_read, request));
    }
    if (request != NULL) {
        disk_answer(disk, request); /* which may submit others */
    }
    disk->answer_at = disk->requests != NULL ? disk->now + answer_delay(disk) : NEVER;
}

/* --- the contract ----------------------------------------------------------------------------- */

/* A cursor's value with positions that are one too far, where the channel goes on. */
static void spoil_cursor(struct sim_disk *disk, struct bb_slice value, struct bb_buf *out)
{
    struct bb_mp_reader reader = bb_mp_reader(value);
    uint32_t n = disk->lie == LIE_CURSORS ? bb_mp_read_array(&reader) : 0;
    if (n == 0 || reader.error != 0) {
        bb_buf_append(out, value.data, value.len);
        return;
    }
    bb_mp_write_array(out, n);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t fields = bb_mp_read_array(&reader);
        struct bb_slice name = bb_mp_read_str(&reader);
        uint64_t position = bb_mp_read_uint(&reader);
        for (size_t j = 0; j < disk->store.n_channels; j++) {
            const struct store_channel *channel = &disk->store.channels[j];
            if (bb_slice_equal(bb_buf_slice(&channel->name), name) && !channel->removed &&
                position < channel->last) {
                position++;
                disk->has_lied = true;
                break;
            }
        }
        bb_mp_write_array(out, fields);
        bb_mp_write_str(out, name);
        bb_mp_write_uint(out, position);
        for (uint32_t j = 2; j < fields; j++) {
            struct bb_slice rest = bb_mp_read_raw(&reader);
            bb_buf_append(out, rest.data, rest.len);
        }
    }
}

static int load_rows(struct sim_disk *disk, const struct bk_backend_loader *loader)
{
    const struct store *store = &disk->store;
    bool lies = disk->lie == LIE_PRODUCERS && store->n_producers > 0;
    int r = 0;
    disk->has_lied = disk->has_lied || lies;
    for (size_t i = 0; i < store->n_producers && r == 0 && !lies; i++) {
        const struct store_row *row = &store->producers[i];
        struct bk_log_producer entry = {
            .last = row->last, .time = row->time, .notes = bb_buf_slice(&row->value)};
        memcpy(entry.key, row->key.data, sizeof(entry.key));
        r = row->removed ? 0 : loader->producer(loader->context, &entry);
    }
    for (size_t i = 0; i < store->n_cursors && r == 0; i++) {
        const struct store_row *row = &store->cursors[i];
        struct bb_buf value = BB_BUF_INIT;
        if (!row->removed) {
            spoil_cursor(disk, bb_buf_slice(&row->value), &value);
            r = loader->cursor(loader->context, &(struct bk_log_cursor){.name = bb_buf_slice(&row->key),
                                                                        .value = bb_buf_slice(&value)});
        }
        bb_buf_fini(&value);
    }
    return r;
}

static int op_load(struct bk_backend *backend, const struct bk_backend_loader *loader)
{
    struct sim_disk *disk = of(backend);
    int r = 0;
    for (size_t i = 0; i < disk->store.n_channels && r == 0; i++) {
        const struct store_channel *channel = &disk->store.channels[i];
        struct bk_log_channel entry = {
            .id = channel->id,
            .name = bb_buf_slice(&channel->name),
            .removed = channel->removed,
            .retention = channel->retention,
            .settings = bb_buf_slice(&channel->settings),
            .first = store_first(&disk->store, channel),
            .last = channel->last,
        };
        for (size_t j = 0; j < disk->store.n_events; j++) {
            const struct store_event *event = &disk->store.events[j];
            entry.events += event->channel == channel->id && !event->is_gone;
            entry.bytes += event->channel == channel->id && !event->is_gone ? event->head.length : 0;
        }
        r = loader->channel(loader->context, &entry);
    }
    return r == 0 ? load_rows(disk, loader) : r;
}

static int refuse(struct sim_disk *disk, size_t n_waiting, const struct bk_append *append)
{
    if (disk->state == BK_BACKEND_FAILED || (disk->state == BK_BACKEND_FULL && append->n_blocks > 0)) {
        if (disk->told != disk->state) {
            tell_state(disk, disk->state);
        }
        return disk->state == BK_BACKEND_FAILED ? BB_ELOGFAILED : BB_ELOGFULL;
    }
    return n_waiting >= disk->temper.queue ? BB_EFULL : 0;
}

static int op_register(struct bk_backend *backend, struct bk_append *append, uint64_t ticket)
{
    struct sim_disk *disk = of(backend);
    struct disk_ticket **end = &disk->queue;
    size_t n = 0;
    for (; *end != NULL; end = &(*end)->next) {
        n++;
    }
    int r = refuse(disk, n, append);
    if (r < 0) {
        return r;
    }
    if (ticket <= disk->ticket) {
        world_fail(disk->world, "log", "a ticket is not above the one before");
    }
    struct disk_ticket *added = calloc(1, sizeof(*added));
    if (added == NULL) {
        abort();
    }
    for (size_t i = 0; i < append->n_blocks; i++) {
        append->blocks[i].error = 0;
    }
    tell_append(disk->world, append);
    added->ticket = disk->ticket = ticket;
    if (bk_batch_encode(&added->payload, append) != 0) {
        abort();
    }
    *end = added;
    if (disk->commit_at == NEVER) {
        disk->commit_at = disk->now + commit_delay(disk);
    }
    plan(disk);
    disk->listener->registered(disk->listener->context, ticket);
    return 0;
}

static void
op_get_last(struct bk_backend *backend, uint64_t server, struct bk_event_id *ret_id, uint64_t *ret_time)
{
    const struct store *store = &of(backend)->store;
    *ret_id = (struct bk_event_id){.server = server};
    *ret_time = 0;
    for (size_t i = 0; i < store->n_events; i++) {
        if (store->events[i].server == server) {
            ret_id->session = store->events[i].head.session;
            ret_id->instance = store->events[i].head.instance;
            *ret_time = store->events[i].head.time;
        }
    }
}

static void op_submit(struct bk_backend *backend, struct bk_request *request)
{
    struct sim_disk *disk = of(backend);
    struct bk_request **end = &disk->requests;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    request->next = NULL;
    request->error = 0;
    request->barrier = disk->ticket;
    *end = request;
    if (disk->answer_at == NEVER) {
        disk->answer_at = disk->now + answer_delay(disk);
    }
    plan(disk);
}

static int op_fd(struct bk_backend *backend)
{
    (void)backend;
    return -1;
}

static void op_nothing(struct bk_backend *backend)
{
    (void)backend; /* disk_step() tells, disk_crash() ends it */
}

static void op_status(struct bk_backend *backend, struct bb_buf *out)
{
    (void)backend;
    bb_mp_write_map(out, 0);
}

static const struct bk_backend_ops ops = {
    .load = op_load,
    .register_ = op_register,
    .get_last_event_id = op_get_last,
    .submit = op_submit,
    .fd = op_fd,
    .dispatch = op_nothing,
    .status = op_status,
    .close = op_nothing,
};

/* --- the whole -------------------------------------------------------------------------------- */

void disk_init(struct sim_disk *disk, struct world *world, uint64_t seed)
{
    *disk = (struct sim_disk){.backend = {&ops, true, SIZE_MAX}, .world = world, .rng = {seed}};
    disk->next_at = disk->commit_at = disk->answer_at = disk->state_at = disk->tidy_at = NEVER;
}

void disk_fini(struct sim_disk *disk)
{
    store_fini(&disk->store);
    store_fini(&disk->copy);
}

void disk_open(struct sim_disk *disk,
               const struct bk_backend_listener *listener,
               const struct disk_temper *temper,
               uint64_t now)
{
    disk->listener = listener;
    disk->temper = *temper;
    disk->now = now;
    disk->state = disk->told = BK_BACKEND_OK;
    disk->ticket = 0;
    disk->commit_at = disk->answer_at = NEVER;
    disk->tidy_at = now + TIDY_US;
    disk->state_at = next_change(disk);
    plan(disk);
}

void disk_crash(struct sim_disk *disk)
{
    while (disk->requests != NULL) {
        struct bk_request *request = disk->requests;
        disk->requests = request->next;
        request->error = BB_ECLOSED;
        request->done(request->context, request);
    }
    while (disk->queue != NULL) {
        ticket_drop(disk);
    }
    disk->next_at = disk->commit_at = disk->answer_at = disk->state_at = disk->tidy_at = NEVER;
    disk->listener = NULL;
}

void disk_wipe(struct sim_disk *disk)
{
    store_fini(&disk->store);
    disk->generation = ++disk->n_generations;
}

void disk_restore(struct sim_disk *disk)
{
    store_copy(&disk->store, &disk->copy);
    disk->generation = disk->copy_generation;
}

void disk_step(struct sim_disk *disk, uint64_t now)
{
    disk->now = now;
    if (disk->commit_at <= now) {
        commit(disk);
    } else if (disk->answer_at <= now) {
        answer(disk);
    } else if (disk->state_at <= now) {
        change_state(disk);
    } else if (disk->tidy_at <= now) {
        tidy(disk);
    }
    plan(disk);
}

void disk_calm(struct sim_disk *disk)
{
    disk->is_calm = true;
    if (disk->state == BK_BACKEND_OK) {
        disk->state_at = NEVER;
        plan(disk);
    }
}

bool disk_is_quiet(const struct sim_disk *disk)
{
    return disk->queue == NULL && disk->requests == NULL && disk->state == BK_BACKEND_OK;
}
