/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The invariants. They are held after each call in simulations, fuzzing and debug builds. The work grows with
 * subscriptions times what waits for them: in a large world they are held after so many calls that the work of
 * one stays bounded.
 */
#include "broker/core/clients/ack.h"
#include "broker/core/clients/client.h"
#include "broker/core/clients/producer.h"
#include "broker/core/keep/channel.h"
#include "broker/core/keep/life.h"
#include "broker/core/keep/policy.h"
#include "broker/core/keep/ring.h"
#include "broker/core/log/stage.h"
#include "broker/core/state.h"
#include "broker/core/subs/account.h"
#include "broker/core/subs/gap.h"
#include "broker/core/subs/route.h"
#include "broker/core/subs/sub.h"
#include "broker/core/subs/wanted.h"

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                          \
    do {                                          \
        if (!(condition)) {                       \
            fail(__FILE__, __LINE__, #condition); \
        }                                         \
    } while (0)

_Noreturn static void fail(const char *file, int line, const char *condition)
{
    (void)fprintf(stderr, "%s:%d: an invariant of the broker does not hold: %s\n", file, line, condition);
    abort();
}

/* --- keep --------------------------------------------------------------------------------------------------- */

static void check_lives(const struct bk_channels *channels, const struct bk_lives *lives)
{
    CHECK(lives->n_past <= BK_LIVES_MAX && lives->now <= channels->last_life);
    for (uint32_t i = 0; i < lives->n_past; i++) {
        uint64_t next = i + 1 < lives->n_past ? lives->past[i + 1].life : lives->now;
        CHECK(lives->past[i].life < next);
        CHECK(i + 1 == lives->n_past || lives->past[i].upto <= lives->past[i + 1].upto);
    }
}

static void check_channels(const struct bk_core *core)
{
    const struct bk_channels *channels = &core->channels;
    for (size_t i = 0; i < channels->n_channels; i++) {
        const struct bk_channel *channel = channels->list[i];
        CHECK(channel->index == i && channel->refs > 0);
        CHECK(bk_channels_find(channels, channel->name) == channel);
        CHECK(channel->id > 0 && channel->id <= channels->last_id);
        CHECK(channel->last <= channel->taken && channel->shown <= channel->taken);
        CHECK(channel->last <= channel->shown && channel->first <= channel->last + 1);
        CHECK((channel->ring_bytes > 0) == (channel->first <= channel->last));
        check_lives(channels, &channel->lives);
    }
}

static void check_ring(const struct bk_core *core)
{
    const struct bk_block *block = NULL;
    size_t bytes = 0;
    for (uint64_t pos = 0; (block = bk_ring_at(&core->ring, &pos)) != NULL; pos++) {
        const struct bk_channel *channel = block->channel;
        bytes += sizeof(*block) + block->head_len + block->body_len;
        CHECK(block->count > 0 && block->sequence + block->count > channel->first);
        CHECK(block->sequence + block->count - 1 <= channel->last);
    }
    CHECK(bytes == core->ring.bytes && core->fanned_pos <= bk_ring_end(&core->ring));
}

/* --- the stage ------------------------------------------------------------------------------------------------ */

static void check_stage(const struct bk_core *core)
{
    const struct bk_stage *stage = &core->stage;
    size_t bytes = 0;
    size_t ticket_bytes = 0;
    uint64_t ticket = 0;
    for (size_t i = stage->first; i < bk_stage_end(stage); i++) {
        const struct bk_staged *staged = bk_stage_at(stage, i);
        const struct bk_block *block = &staged->block;
        CHECK(staged->ticket >= ticket && staged->ticket > stage->durable && staged->ticket <= stage->ticket);
        CHECK(block->sequence > block->channel->last);
        CHECK(block->sequence + block->count - 1 <= block->channel->taken);
        ticket = staged->ticket;
        bytes += sizeof(*staged) + block->head_len + block->body_len;
        ticket_bytes += ticket == stage->ticket ? BK_ENTRY_SIZE + block->body_len : 0;
    }
    CHECK(bytes == stage->bytes && ticket_bytes == stage->ticket_bytes);
}

/* A channel that is being removed takes nothing: publishers to the log wait, or are refused. */
static void check_going(const struct bk_core *core)
{
    const struct bk_stage *stage = &core->stage;
    size_t n_going = 0;
    for (size_t i = 0; i < core->channels.n_channels; i++) {
        const struct bk_channel *channel = core->channels.list[i];
        n_going += channel->is_going;
        CHECK(!channel->is_going || channel->taken == channel->last);
        CHECK(!channel->is_going || stage->removed.len > 0);
        CHECK(!channel->is_going || stage->is_behind || stage->state != BK_BACKEND_OK);
    }
    CHECK(n_going == stage->n_going);
}

static void check_waiting(const struct bk_client *client)
{
    uint64_t number = 0;
    for (const struct bk_waiting *waiting = client->waiting_first; waiting != NULL; waiting = waiting->next) {
        CHECK(waiting->number > number || waiting->is_repeated);
        CHECK(waiting->next != NULL || waiting == client->waiting_last);
        number = BB_MAX(number, waiting->number);
    }
}

/* --- subscriptions ---------------------------------------------------------------------------------------------- */

struct counting {
    const struct bk_sub *sub;
    uint64_t *waiting; /* by position */
};

static int count_item(void *context, const struct bk_item *item)
{
    const struct counting *counting = context;
    const struct bk_position *position = bk_sub_find_position(counting->sub, item->block->channel);
    CHECK(position != NULL);
    counting->waiting[position - counting->sub->positions] += item->count;
    return 0;
}

/* What is counted as waiting is what waits. */
static void check_accounts(struct bk_core *core, struct bk_sub *sub)
{
    uint64_t *waiting = calloc(sub->n_positions + 1, sizeof(*waiting));
    struct counting counting = {sub, waiting};
    const struct bk_block *block = NULL;
    int r = waiting != NULL ? 0 : BB_ENOMEM;
    size_t n_positions = sub->n_positions;
    for (uint64_t pos = sub->cursor;
         r == 0 && (block = bk_ring_at(&core->ring, &pos)) != NULL && pos < core->fanned_pos; pos++) {
        bk_route_trim(&core->route);
        r = bk_wanted_each(core, sub, block, UINT64_MAX, count_item, &counting);
        CHECK(sub->n_positions == n_positions);
    }
    for (size_t i = 0; i < sub->n_positions && r == 0; i++) {
        CHECK(sub->positions[i].account.waiting == waiting[i]);
    }
    free(waiting);
}

static void check_positions(const struct bk_core *core, const struct bk_sub *sub)
{
    size_t n_cold = 0;
    size_t n_losing = 0;
    uint64_t bytes = 0;
    for (size_t i = 0; i < sub->n_positions; i++) {
        const struct bk_position *position = &sub->positions[i];
        const struct bk_channel *channel = position->channel;
        CHECK(bk_channels_find(&core->channels, channel->name) == channel);
        CHECK(i == 0 || sub->positions[i - 1].channel->id < channel->id);
        CHECK(bk_account_is_sound(&position->account));
        CHECK(bk_account_settled(&position->account) <= channel->taken);
        CHECK(!position->is_cold ||
              (position->account.waiting == 0 && bk_store_of(core, channel) == BK_STORE_LOG));
        n_cold += position->is_cold;
        n_losing += position->account.n_losses > 0;
        bytes += position->account.waiting_bytes;
    }
    CHECK(n_cold == sub->n_cold && n_losing == sub->n_losing && bytes == sub->lag_bytes);
}

static void check_sub(struct bk_core *core, const struct bk_client *client, struct bk_sub *sub)
{
    CHECK(sub->client == client);
    CHECK(bb_map_find(&client->subs_by_id, bb_slice(&sub->id, sizeof(sub->id))) == sub);
    CHECK((sub->retained != NULL) == (sub->state == BK_SUB_RETAINED));
    CHECK((sub->beginning != NULL) == (sub->state == BK_SUB_BEGINNING));
    CHECK(!sub->is_ready || sub->state == BK_SUB_LAGGING || sub->state == BK_SUB_RETAINED);
    CHECK(!sub->is_dropping || (sub->overflow == BK_OVERFLOW_DROP_NEWEST && !bk_sub_is_live(sub)));
    check_positions(core, sub);
    if (bk_sub_is_live(sub)) {
        CHECK(sub->n_cold == 0 && sub->n_losing == 0 && sub->lag_bytes == 0 && sub->until == BK_UNTIL_NONE);
    } else if (sub->state != BK_SUB_BEGINNING) {
        check_accounts(core, sub);
    }
}

struct sums {
    size_t n_clients;
    size_t n_subs;
    size_t n_patterns;
    size_t n_lagging;
    size_t n_early;
    size_t n_until;
};

static void check_client(struct bk_core *core, struct bk_client *client, struct sums *sums)
{
    uint64_t n_subs = 0;
    uint64_t n_early = 0;
    for (struct bk_sub *sub = client->subs; sub != NULL; sub = sub->next) {
        bool has_begun = sub->state != BK_SUB_BEGINNING;
        check_sub(core, client, sub);
        n_subs++;
        n_early += has_begun && sub->is_early;
        sums->n_patterns += sub->n_patterns;
        sums->n_lagging += has_begun && !bk_sub_is_live(sub);
        sums->n_until += has_begun && sub->until != BK_UNTIL_NONE;
    }
    CHECK(!bk_client_is_doomed(client));
    CHECK(n_subs == client->n_subs && n_early == client->n_early);
    CHECK(!client->has_id ||
          bb_map_find(&core->clients_by_id, bb_slice(client->id, sizeof(client->id))) == client);
    CHECK(client->producer == NULL || client->producer->client == client);
    CHECK(client->deferred_first == NULL || client->input != BK_INPUT_TAKEN);
    check_waiting(client);
    sums->n_subs += n_subs;
    sums->n_early += n_early;
    sums->n_clients++;
}

static void check_clients(struct bk_core *core)
{
    struct sums sums = {0};
    for (struct bk_client *client = core->clients; client != NULL; client = client->next) {
        check_client(core, client, &sums);
    }
    CHECK(sums.n_clients == core->n_clients && sums.n_subs == core->n_subs);
    CHECK(sums.n_patterns == core->n_patterns && sums.n_lagging == core->n_lagging);
    CHECK(sums.n_early == core->n_early && sums.n_until == core->n_until);
}

void bk_core_check(struct bk_core *core)
{
    size_t each = core->ring.n_blocks + core->channels.n_channels + 1;
    core->check_turn += core->config.check;
    if ((core->n_subs + 1) * each + core->n_patterns + core->n_clients > core->check_turn) {
        return;
    }
    core->check_turn = 0;
    CHECK(core->doomed == NULL && !bk_gaps_any(core));
    check_channels(core);
    check_ring(core);
    check_stage(core);
    check_going(core);
    check_clients(core);
}
