/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fan-out. What came since the last one is taken in rounds of limited size. A round's events are sorted into
 * the sets of subscriptions they go to, each set keeping a chain of items; a parcel is made once for each
 * combination of sets that some subscription is in, and goes to all of those by reference. So the work is in the number of
 * matches, not of subscriptions times events.
 */
#include "broker/core/deliver/fanout.h"

#include "broker/core/clients/client.h"
#include "broker/core/deliver/early.h"
#include "broker/core/deliver/overflow.h"
#include "broker/core/deliver/parcel.h"
#include "broker/core/deliver/send.h"
#include "broker/core/keep/ring.h"
#include "broker/core/state.h"
#include "broker/core/subs/account.h"
#include "broker/core/subs/ready.h"
#include "broker/core/subs/route.h"
#include "broker/core/subs/sub.h"
#include "broker/core/subs/wanted.h"

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

/* Keys find a parcel; whether it is the right one is decided by the sets themselves. */
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
    core->round_is_old = false;
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
        core->round_is_old = core->round_is_old || bk_block_is_old(core, block);
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

static void fill_from_one(struct bk_fan *fan, struct bk_parcel *parcel, const struct bk_set *set)
{
    for (size_t i = set->round_first; i != NO_ITEM; i = item_at(fan, i)->next) {
        bk_parcel_add(parcel, &item_at(fan, i)->item);
    }
}

/* The items of several sets in the order of the ring, those that lie side by side in a block joined. */
static void fill_from_order(struct bk_fan *fan, struct bk_parcel *parcel)
{
    size_t n = fan->order.len / sizeof(size_t);
    size_t *order = (size_t *)(void *)fan->order.data;
    qsort(order, n, sizeof(size_t), by_index);
    for (size_t i = 0; i < n; i++) {
        struct bk_item item = item_at(fan, order[i])->item;
        while (i + 1 < n) {
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

static void fill_parcel(struct bk_fan *fan, struct bk_parcel *parcel, const struct bk_sub *sub)
{
    if (sub->round_sets == 1) {
        bb_buf_append(&parcel->sets, &sub->round_set, sizeof(struct bk_set *));
        fill_from_one(fan, parcel, sub->round_set);
        return;
    }
    bb_buf_reset(&fan->order);
    uint32_t found = 0;
    for (size_t i = 0; i < n_sets(fan) && found < sub->round_sets; i++) {
        const struct bk_set *set = set_at(fan, i);
        if (bk_set_has(set, sub)) {
            bb_buf_append(&parcel->sets, &set, sizeof(struct bk_set *));
            gather(fan, set);
            found++;
        }
    }
    if (fan->order.error != 0 || parcel->sets.error != 0) {
        parcel->error = BB_ENOMEM;
        return;
    }
    fill_from_order(fan, parcel);
}

/* Whether @sub is in just the sets that @parcel was made for: equal keys alone do not say so. */
static bool is_for(const struct bk_parcel *parcel, const struct bk_sub *sub)
{
    size_t n = parcel->sets.len / sizeof(struct bk_set *);
    struct bk_set *const *sets = (struct bk_set *const *)(const void *)parcel->sets.data;
    if (parcel->key != sub->round_key || n != sub->round_sets) {
        return false;
    }
    if (n == 1) {
        return sets[0] == sub->round_set;
    }
    for (size_t i = 0; i < n; i++) {
        if (!bk_set_has(sets[i], sub)) {
            return false;
        }
    }
    return true;
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
        if (is_for(&fan->parcels[fan->by_key[slot] - 1], sub)) {
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

/* Count one by one what of the round waits for @sub. */
static int arrive_one_by_one(struct bk_core *core, struct bk_sub *sub, uint64_t end)
{
    const struct bk_block *block = NULL;
    int r = 0;
    for (uint64_t pos = core->fanned_pos;
         r == 0 && (block = bk_ring_at(&core->ring, &pos)) != NULL && pos < end; pos++) {
        r = bk_wanted_arrive(core, sub, block);
    }
    return r;
}

/* Whether @sub wants all of @parcel, none of which it has had: then the parcel's sums are its own. */
static bool wants_all(const struct bk_sub *sub, const struct bk_parcel *parcel)
{
    bool wants = sub->until != BK_UNTIL_TIME;
    for (size_t i = 0; i < parcel->n_ranges && wants; i++) {
        const struct bk_range *range = &parcel->ranges[i];
        const struct bk_position *position = bk_sub_find_position(sub, range->channel);
        wants = position != NULL && range->from > bk_account_settled(&position->account) &&
                range->from >= range->channel->first && range->to <= position->stop;
    }
    return wants;
}

/* What came waits for a subscription that lags. Return: 0 or BB_ENOMEM. */
static int arrive(struct bk_core *core, struct bk_sub *sub, const struct bk_parcel *parcel, uint64_t end)
{
    for (size_t i = 0; i < parcel->n_ranges; i++) {
        if (bk_sub_position(sub, parcel->ranges[i].channel) == NULL) {
            return BB_ENOMEM;
        }
    }
    if (!wants_all(sub, parcel)) {
        return arrive_one_by_one(core, sub, end);
    }
    for (size_t i = 0; i < parcel->n_ranges; i++) {
        const struct bk_range *range = &parcel->ranges[i];
        struct bk_position *position = bk_sub_find_position(sub, range->channel);
        if (!position->is_cold) {
            bk_account_arrive(&position->account, range->last, range->events, range->bytes);
            sub->lag_bytes += range->bytes;
        }
    }
    return 0;
}

static void let_wait(struct bk_core *core, struct bk_sub *sub, const struct bk_parcel *parcel, uint64_t end)
{
    if (arrive(core, sub, parcel, end) < 0) {
        bk_client_send_away(core, sub->client, BB_ENOMEM, NULL);
        return;
    }
    if (sub->until != BK_UNTIL_NONE || sub->is_early || sub->is_ahead) {
        bk_sub_set_ready(core, sub);
    }
    if (sub->lag_bytes > sub->budget) {
        bk_overflow_arrived(core, sub, end);
    }
}

/* Return: whether @sub has had or is sent all of @parcel. */
static bool deliver_live(struct bk_core *core, struct bk_sub *sub, const struct bk_parcel *parcel)
{
    if (sub->is_early || sub->is_ahead) {
        bool some = false;
        if (bk_early_has_seen(sub, parcel, &some)) {
            return true;
        }
        if (some) { /* the rest comes one by one */
            return false;
        }
    }
    if (core->round_is_old || !bk_sub_has_credit(sub) || !bk_client_has_room(core, sub->client)) {
        return false;
    }
    struct bk_delivery delivery = bk_delivery_of(parcel, BK_SOURCE_LIVE);
    return bk_deliver(core, sub, &delivery) == 0;
}

static void give(struct bk_core *core, struct bk_sub *sub, uint64_t end)
{
    if (bk_client_is_doomed(sub->client)) {
        return;
    }
    struct bk_parcel *parcel = parcel_for(core, sub);
    if (parcel == NULL || parcel->error != 0) {
        bk_client_send_away(core, sub->client, BB_ENOMEM, NULL);
        return;
    }
    if (bk_sub_is_live(sub)) {
        if (deliver_live(core, sub, parcel)) {
            return;
        }
        sub->cursor = core->fanned_pos;
        bk_sub_enter(core, sub, BK_SUB_LAGGING);
        bk_count(core, BK_COUNTER_live_leaves, 1);
    }
    let_wait(core, sub, parcel, end);
    if (core->round_is_old) {
        bk_sub_set_ready(core, sub); /* what has expired is sorted out there */
    }
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
}
