/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fan-out. What came since the last one is taken in rounds of limited size. A round's events are sorted into
 * the sets of subscriptions they go to, each set keeping a chain of items; a parcel is made once for each
 * combination of sets that some subscription is in, and goes to all of those by reference. So the work is in the number of
 * matches, not of subscriptions times events.
 */
#include "broker/core/state.h"

#include <stdlib.h>

#define NO_ITEM SIZE_MAX

struct fan_item {
    struct bk_item item;
    size_t next; /* of the same set */
};

struct bk_fan {
    struct bb_buf items; /* struct fan_item */
    struct bb_buf sets;  /* struct bk_set * */
    struct bb_buf subs;  /* struct bk_sub *, those met */
    struct bb_buf order; /* size_t, items of several sets being sorted */
    struct bk_parcel *parcels;
    size_t n_parcels;
    size_t n_slots;
    size_t *by_key; /* open addressing: index of a parcel + 1 */
    size_t n_keys;
};

struct bk_fan *bk_fan_new(void)
{
    return calloc(1, sizeof(struct bk_fan));
}

void bk_fan_free(struct bk_fan *fan)
{
    if (fan == NULL) {
        return;
    }
    for (size_t i = 0; i < fan->n_slots; i++) {
        bk_parcel_fini(&fan->parcels[i]);
    }
    free(fan->parcels);
    free(fan->by_key);
    bb_buf_fini(&fan->items);
    bb_buf_fini(&fan->sets);
    bb_buf_fini(&fan->subs);
    bb_buf_fini(&fan->order);
    free(fan);
}

static size_t n_items(const struct bk_fan *fan)
{
    return fan->items.len / sizeof(struct fan_item);
}

static struct fan_item *item_at(const struct bk_fan *fan, size_t i)
{
    return (struct fan_item *)(void *)fan->items.data + i;
}

static size_t n_sets(const struct bk_fan *fan)
{
    return fan->sets.len / sizeof(struct bk_set *);
}

static struct bk_set *set_at(const struct bk_fan *fan, size_t i)
{
    return ((struct bk_set **)(void *)fan->sets.data)[i];
}

/* --- sorting a round's events into sets -------------------------------------------------------------- */

/* Keys are random enough that sums of different combinations differ; equal sums would only be met by luck and
 * are compared again by number of sets. */
static uint64_t key_of(uint64_t seed, uint64_t index)
{
    uint64_t x = index + seed + UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static void set_meet(struct bk_core *core, struct bk_set *set)
{
    struct bk_fan *fan = core->fan;
    if (set->round == core->round) {
        return;
    }
    set->round = core->round;
    set->round_key = key_of(core->config.seed, n_sets(fan));
    set->round_first = set->round_last = NO_ITEM;
    bb_buf_append(&fan->sets, &set, sizeof(struct bk_set *));
    for (uint32_t i = 0; i < set->n_subs; i++) {
        struct bk_sub *sub = set->subs[i];
        if (sub->round != core->round) {
            sub->round = core->round;
            sub->round_key = 0;
            sub->round_sets = 0;
            bb_buf_append(&fan->subs, &sub, sizeof(struct bk_sub *));
        }
        sub->round_key += set->round_key;
        sub->round_sets++;
        sub->round_set = set;
    }
}

static void item_add(struct bk_core *core, struct bk_set *set, const struct bk_item *item)
{
    struct bk_fan *fan = core->fan;
    if (set->n_subs == 0) {
        return;
    }
    set_meet(core, set);
    size_t index = n_items(fan);
    struct fan_item *last = set->round_last != NO_ITEM ? item_at(fan, set->round_last) : NULL;
    if (last != NULL && set->round_last == index - 1 && last->item.block == item->block &&
        last->item.first + last->item.count == item->first) {
        last->item.count += item->count;
        last->item.len += item->len;
        return;
    }
    struct fan_item added = {*item, NO_ITEM};
    bb_buf_append(&fan->items, &added, sizeof(added));
    if (fan->items.error != 0) {
        return;
    }
    if (set->round_last != NO_ITEM) {
        item_at(fan, set->round_last)->next = index;
    } else {
        set->round_first = index;
    }
    set->round_last = index;
}

static int path_set(struct bk_core *core, struct bb_slice text, struct bk_set **ret_set)
{
    struct bk_path *path = NULL;
    int r = bk_route_find(&core->route, text, &path);
    if (r == 0) {
        *ret_set = path->set;
    }
    return r;
}

static int sort_block(struct bk_core *core, const struct bk_block *block)
{
    struct bb_slice rest = bb_slice(block->body, block->body_len);
    struct bb_event_view event;
    struct bk_set *set = NULL;
    struct bb_slice last = {0};
    for (uint32_t i = 0; rest.len > 0; i++) {
        int r = bb_event_read(&rest, &event);
        if (r == 0 && (set == NULL || !bb_slice_equal(event.path, last))) {
            r = path_set(core, event.path, &set);
            last = event.path;
        }
        if (r != 0) {
            return r;
        }
        bool whole = block->uniform;
        struct bk_item item = {
            .block = block,
            .data = event.raw.data,
            .len = whole ? block->body_len : (uint32_t)event.raw.len,
            .first = i,
            .count = whole ? block->count : 1,
        };
        item_add(core, set, &item);
        if (whole) {
            break;
        }
    }
    return 0;
}

/* Take blocks until the round is full; where it ends. */
static uint64_t sort_round(struct bk_core *core, int *ret_error)
{
    struct bk_fan *fan = core->fan;
    uint64_t pos = core->fanned_pos;
    size_t bytes = 0;
    const struct bk_block *block = NULL;
    core->round++;
    bb_buf_reset(&fan->items);
    bb_buf_reset(&fan->sets);
    bb_buf_reset(&fan->subs);
    while ((block = bk_ring_at(&core->ring, &pos)) != NULL && bytes < BK_ROUND_BYTES) {
        if (bytes > 0 && bytes + block->body_len > BK_ROUND_BYTES) {
            break;
        }
        int r = sort_block(core, block);
        if (r < 0) {
            *ret_error = r;
        }
        bytes += block->body_len;
        pos++;
    }
    if (fan->items.error != 0 || fan->sets.error != 0 || fan->subs.error != 0) {
        *ret_error = BB_ENOMEM;
    }
    return pos;
}

/* --- parcels of a round --------------------------------------------------------------------------- */

static int by_index(const void *a, const void *b)
{
    size_t left = *(const size_t *)a;
    size_t right = *(const size_t *)b;
    return left < right ? -1 : left > right;
}

static void gather(struct bk_fan *fan, const struct bk_set *set)
{
    for (size_t i = set->round_first; i != NO_ITEM; i = item_at(fan, i)->next) {
        bb_buf_append(&fan->order, &i, sizeof(i));
    }
}

static void fill_parcel(struct bk_fan *fan, struct bk_parcel *parcel, const struct bk_sub *sub)
{
    if (sub->round_sets == 1) {
        for (size_t i = sub->round_set->round_first; i != NO_ITEM; i = item_at(fan, i)->next) {
            bk_parcel_add(parcel, &item_at(fan, i)->item);
        }
        return;
    }
    bb_buf_reset(&fan->order);
    uint32_t found = 0;
    for (size_t i = 0; i < n_sets(fan) && found < sub->round_sets; i++) {
        if (bk_set_has(set_at(fan, i), sub)) {
            gather(fan, set_at(fan, i));
            found++;
        }
    }
    if (fan->order.error != 0) {
        parcel->error = fan->order.error;
        return;
    }
    size_t n = fan->order.len / sizeof(size_t);
    size_t *order = (size_t *)(void *)fan->order.data;
    qsort(order, n, sizeof(size_t), by_index);
    for (size_t i = 0; i < n; i++) {
        struct bk_item item = item_at(fan, order[i])->item;
        while (i + 1 < n) { /* join what lies side by side in a block */
            const struct bk_item *next = &item_at(fan, order[i + 1])->item;
            if (next->block != item.block || next->first != item.first + item.count) {
                break;
            }
            item.count += next->count;
            item.len += next->len;
            i++;
        }
        bk_parcel_add(parcel, &item);
    }
}

static struct bk_parcel *parcel_new(struct bk_fan *fan)
{
    if (fan->n_parcels == fan->n_slots) {
        size_t n = fan->n_slots > 0 ? 2 * fan->n_slots : 8;
        struct bk_parcel *parcels = realloc(fan->parcels, n * sizeof(*parcels));
        if (parcels == NULL) {
            return NULL;
        }
        memset(parcels + fan->n_slots, 0, (n - fan->n_slots) * sizeof(*parcels));
        fan->parcels = parcels;
        fan->n_slots = n;
    }
    return &fan->parcels[fan->n_parcels++];
}

static int keys_reserve(struct bk_fan *fan)
{
    if (2 * (fan->n_parcels + 1) <= fan->n_keys) {
        return 0;
    }
    size_t n = fan->n_keys > 0 ? 2 * fan->n_keys : 64;
    size_t *by_key = calloc(n, sizeof(size_t));
    if (by_key == NULL) {
        return BB_ENOMEM;
    }
    for (size_t i = 0; i < fan->n_parcels; i++) {
        size_t slot = (size_t)fan->parcels[i].key & (n - 1);
        while (by_key[slot] != 0) {
            slot = (slot + 1) & (n - 1);
        }
        by_key[slot] = i + 1;
    }
    free(fan->by_key);
    fan->by_key = by_key;
    fan->n_keys = n;
    return 0;
}

/* The parcel for all that are in the same sets as @sub, NULL without memory. */
static struct bk_parcel *parcel_for(struct bk_core *core, const struct bk_sub *sub)
{
    struct bk_fan *fan = core->fan;
    if (keys_reserve(fan) < 0) {
        return NULL;
    }
    size_t slot = (size_t)sub->round_key & (fan->n_keys - 1);
    for (; fan->by_key[slot] != 0; slot = (slot + 1) & (fan->n_keys - 1)) {
        if (fan->parcels[fan->by_key[slot] - 1].key == sub->round_key) {
            return &fan->parcels[fan->by_key[slot] - 1];
        }
    }
    struct bk_parcel *parcel = parcel_new(fan);
    if (parcel == NULL) {
        return NULL;
    }
    bk_parcel_reset(parcel);
    parcel->key = sub->round_key;
    fan->by_key[slot] = fan->n_parcels;
    fill_parcel(fan, parcel, sub);
    (void)bk_parcel_finish(parcel, &core->meter);
    return parcel;
}

static void parcels_reset(struct bk_fan *fan)
{
    for (size_t i = 0; i < fan->n_parcels; i++) {
        bk_parcel_reset(&fan->parcels[i]);
    }
    if (fan->n_parcels > 0) {
        memset(fan->by_key, 0, fan->n_keys * sizeof(size_t));
    }
    fan->n_parcels = 0;
}

/* --- to the subscriptions ------------------------------------------------------------------------- */

/* How far @range brings the position: what comes after the last event wanted is none of its business. */
static uint64_t reached(const struct bk_position *position, const struct bk_range *range)
{
    return BB_MAX(BB_MIN(range->to, position->stop), position->covered);
}

static void write_ranges(struct bk_core *core, struct bk_sub *sub, const struct bk_parcel *parcel)
{
    bb_mp_write_array(&core->scratch, (uint32_t)parcel->n_ranges);
    for (size_t i = 0; i < parcel->n_ranges; i++) {
        const struct bk_range *range = &parcel->ranges[i];
        struct bk_position *position = bk_sub_position(sub, range->channel);
        if (position == NULL) {
            core->scratch.error = BB_ENOMEM;
            return;
        }
        bb_mp_write_array(&core->scratch, 3);
        bb_mp_write_str(&core->scratch, range->channel->name);
        bb_mp_write_uint(&core->scratch, position->covered);
        bb_mp_write_uint(&core->scratch, reached(position, range));
    }
}

static void count_delivered(struct bk_core *core, struct bk_sub *sub, const struct bk_parcel *parcel)
{
    for (size_t i = 0; i < parcel->n_ranges; i++) {
        const struct bk_range *range = &parcel->ranges[i];
        struct bk_position *position = bk_sub_position(sub, range->channel); /* write_ranges() made it */
        position->covered = reached(position, range);
        range->channel->n_delivered += range->events;
        if (!sub->live) {
            position->pending -= BB_MIN(range->events, position->pending);
            sub->lag_bytes -= BB_MIN(range->bytes, sub->lag_bytes);
        }
    }
    sub->sent_bytes += parcel->bytes;
    sub->sent_events += parcel->events;
    sub->client->events_out += parcel->events;
    bk_count(core, BK_COUNTER_events_out, parcel->events);
    bk_count(core, BK_COUNTER_bytes_out, parcel->bytes);
}

int bk_deliver(struct bk_core *core, struct bk_sub *sub, struct bk_parcel *parcel)
{
    struct bk_part parts[BK_PARTS_MAX];
    bb_buf_reset(&core->scratch);
    bb_mp_write_array(&core->scratch, core->n_gaps > 0 ? 4 : 3);
    bb_mp_write_uint(&core->scratch, BB_MSG_DELIVER);
    bb_mp_write_uint(&core->scratch, sub->id);
    write_ranges(core, sub, parcel);
    (void)bk_gaps_take(core, &core->scratch);
    size_t n = 1;
    if (parcel->n_parts == 1 && parcel->parts[0].owner == parcel->copy) {
        bb_buf_append(&core->scratch, parcel->parts[0].data, parcel->parts[0].len); /* one small frame */
    } else {
        memcpy(parts + 1, parcel->parts, parcel->n_parts * sizeof(parts[0]));
        n += parcel->n_parts;
    }
    if (core->scratch.error != 0) {
        bk_client_send_away(core, sub->client, BB_ENOMEM, NULL);
        return BB_ECLOSED;
    }
    parts[0] = (struct bk_part){NULL, core->scratch.data, core->scratch.len};
    int r = bk_client_send(core, sub->client, parts, n);
    if (r == 0) {
        count_delivered(core, sub, parcel);
    }
    return r;
}

/* What came waits for a subscription that lags. */
static void wait_for(struct bk_core *core, struct bk_sub *sub, const struct bk_parcel *parcel, uint64_t end)
{
    for (size_t i = 0; i < parcel->n_ranges; i++) {
        struct bk_position *position = bk_sub_position(sub, parcel->ranges[i].channel);
        if (position == NULL) {
            bk_client_send_away(core, sub->client, BB_ENOMEM, NULL);
            return;
        }
        if (!position->cold) {
            position->pending += parcel->ranges[i].events;
            sub->lag_bytes += sub->dropping ? 0 : parcel->ranges[i].bytes;
        }
    }
    if (sub->until != BK_UNTIL_NONE || sub->early) {
        bk_sub_set_ready(core, sub);
    }
    if (sub->dropping || sub->lag_bytes <= sub->budget) {
        return;
    }
    if (sub->overflow == BK_OVERFLOW_DROP_NEWEST) {
        sub->dropping = true;
        sub->skip_pos = end;
    } else if (sub->overflow == BK_OVERFLOW_DISCONNECT && !sub->client->doomed) {
        bk_count(core, BK_COUNTER_clients_overflowed, 1);
        bk_client_send_away(core, sub->client, BB_EOVERFLOW, NULL);
    }
}

static void give(struct bk_core *core, struct bk_sub *sub, uint64_t end)
{
    struct bk_parcel *parcel = parcel_for(core, sub);
    if (parcel == NULL || parcel->error != 0) {
        bk_client_send_away(core, sub->client, BB_ENOMEM, NULL);
        return;
    }
    if (sub->early && sub->live) {
        bool some = false;
        if (bk_early_has_seen(sub, parcel, &some)) {
            return;
        }
        if (some) { /* the rest comes one by one */
            bk_sub_leave_live(core, sub, core->fanned_pos);
        }
    }
    if (sub->live && bk_sub_has_credit(sub) && bk_client_has_room(core, sub->client) &&
        bk_deliver(core, sub, parcel) == 0) {
        return;
    }
    if (sub->live) {
        bk_sub_leave_live(core, sub, core->fanned_pos);
    }
    wait_for(core, sub, parcel, end);
}

/* Without memory for a round nobody can be given what came: they are told, and resume. */
void bk_send_all_away(struct bk_core *core)
{
    for (struct bk_client *client = core->clients; client != NULL; client = client->next) {
        if (client->subs != NULL) {
            bk_client_send_away(core, client, BB_ENOMEM, NULL);
        }
    }
}

static void show_windows(struct bk_core *core, uint64_t from, uint64_t end)
{
    const struct bk_block *block = NULL;
    if (core->out->window == NULL || !*core->out->window_is_open) {
        return;
    }
    for (uint64_t pos = from; (block = bk_ring_at(&core->ring, &pos)) != NULL && pos < end; pos++) {
        struct bb_slice rest = bb_slice(block->body, block->body_len);
        struct bb_event_view event;
        for (uint32_t i = 0; rest.len > 0 && bb_event_read(&rest, &event) == 0; i++) {
            struct bk_window_event shown = {
                .raw = event.raw,
                .server = core->config.server,
                .session = block->session,
                .instance = (uint64_t)block->instance + i,
                .sequence = block->sequence + i,
                .time = block->time,
                .source = block->source,
            };
            core->out->window(core->out->context, &shown);
        }
    }
}

void bk_fan_out(struct bk_core *core)
{
    struct bk_fan *fan = core->fan;
    if (core->fanning || core->fanned_pos == bk_ring_end(&core->ring)) {
        return;
    }
    core->fanning = true;
    while (core->fanned_pos != bk_ring_end(&core->ring)) {
        int error = 0;
        bk_route_trim(&core->route);
        uint64_t end = sort_round(core, &error);
        if (error != 0) {
            bk_send_all_away(core);
        } else {
            for (size_t i = 0; i < fan->subs.len / sizeof(struct bk_sub *); i++) {
                give(core, ((struct bk_sub **)(void *)fan->subs.data)[i], end);
            }
        }
        parcels_reset(fan);
        show_windows(core, core->fanned_pos, end);
        core->fanned_pos = core->ring.keep_pos = end;
    }
    core->fanned_bytes = 0;
    bk_fanning_end(core);
}

void bk_fan_out_if_due(struct bk_core *core)
{
    if (core->fanned_bytes >= BK_ROUND_BYTES) {
        bk_fan_out(core);
    }
    bk_route_trim(&core->route);
}
