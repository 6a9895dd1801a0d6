/* SPDX-License-Identifier: Apache-2.0 */
/* What time brings: heartbeats, expiry, deadlines (PROTOCOL 8). */
#include "broker/core/clients/client.h"
#include "broker/core/deliver/fanout.h"
#include "broker/core/deliver/until.h"
#include "broker/core/log/durable.h"
#include "broker/core/requests/requests.h"
#include "broker/core/state.h"
#include "broker/core/subs/ready.h"

/* PROTOCOL 8: silent for this many intervals, a client is gone. */
#define HEARTBEATS_MISSED 3

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return BB_MIN(a, b);
}

/* Who comes late has not listened either: silence since the last look, @late for @since, is nobody's. Returns how long @client was. */
static uint64_t silence(const struct bk_core *core, struct bk_client *client, uint64_t late, uint64_t since)
{
    if (late > client->heartbeat_us / 4) {
        client->heard_at = BB_MIN(client->heard_at + since, core->monotonic);
    }
    return core->monotonic - client->heard_at;
}

static void probe_after(struct bk_core *core, struct bk_client *client, uint64_t interval)
{
    if (core->monotonic - client->pinged_at >= interval) {
        bk_client_probe(core, client);
    }
}

/* When this client next needs a look, in us from now. */
static uint64_t tick_client(struct bk_core *core, struct bk_client *client, uint64_t late, uint64_t since)
{
    if (client->is_stuck) { /* the transport may have room again; the next send will tell */
        client->is_stuck = false;
        bk_subs_set_ready(core, client);
    }
    bk_client_probe_if_due(core,
                           client); /* there was no room for it, or what it may have on its way shrank */
    uint64_t interval = client->heartbeat_us;
    if (interval == 0) {
        return UINT64_MAX;
    }
    uint64_t silent = silence(core, client, late, since);
    if (client->input == BK_INPUT_PAUSED) { /* it cannot be heard, but must hear that we are there */
        probe_after(core, client, interval);
        return interval;
    }
    if (silent >= HEARTBEATS_MISSED * interval) {
        bk_count(core, BK_COUNTER_clients_expired, client->state == BK_CLIENT_READY);
        bk_client_doom(core, client, true);
        return UINT64_MAX;
    }
    if (silent >= interval) {
        probe_after(core, client, interval);
    }
    uint64_t next = silent < interval ? interval - silent : interval;
    /* Looking an eighth late at some lets many be looked at together: a burst of pings costs far less than
     * the same pings one by one. */
    return BB_MAX(BB_MIN(next, HEARTBEATS_MISSED * interval - silent), interval / 8);
}

static uint64_t tick_clients(struct bk_core *core, uint64_t late, uint64_t since)
{
    uint64_t next = UINT64_MAX;
    for (struct bk_client *client = core->clients; client != NULL; client = client->next) {
        if (!bk_client_is_doomed(client)) {
            next = sooner(next, tick_client(core, client, late, since));
        }
    }
    return next;
}

uint64_t bk_core_tick(struct bk_core *core)
{
    uint64_t next = core->config.heartbeat_us;
    uint64_t late = core->monotonic - BB_MIN(core->tick_at, core->monotonic);
    uint64_t since = core->monotonic - core->ticked_at;
    core->tick_at = UINT64_MAX;
    core->ticked_at = core->monotonic;
    bk_fan_out(core);
    next = sooner(next, tick_clients(core, late, since));
    next = sooner(next, bk_until_tick(core));
    next = sooner(next, bk_waiters_check(core));
    bk_stage_retry(core);
    bk_core_flush(core);
    bk_tick_by(core, next);
    return core->tick_at - core->monotonic;
}

uint64_t bk_core_tick_at(const struct bk_core *core)
{
    return core->tick_at;
}
