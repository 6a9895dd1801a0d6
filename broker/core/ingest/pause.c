/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/ingest/pause.h"

#include "proto/wire/path.h"

#include "broker/core/backend.h"
#include "broker/core/clients/client.h"
#include "broker/core/keep/channel.h"
#include "broker/core/log/append.h"
#include "broker/core/log/stage.h"
#include "broker/core/state.h"

/* Room for the heads of a batch of many channels. */
#define HEADS_BYTES ((size_t)64 << 10)

static bool is_logged(const struct bk_core *core, struct bb_slice name)
{
    const struct bk_channel *channel = bk_channels_find(&core->channels, name);
    return channel != NULL ? bk_store_of(core, channel) == BK_STORE_LOG : core->channels.defaults.logged;
}

static bool has_logged(const struct bk_core *core, struct bb_slice events)
{
    struct bb_event_view event;
    struct bb_slice name = {0};
    while (events.len > 0 && bb_event_read(&events, &event) == 0) {
        struct bb_slice channel = bb_path_channel(event.path);
        if (event.error == 0 && (name.data == NULL || !bb_slice_equal(channel, name))) {
            if (is_logged(core, channel)) {
                return true;
            }
            name = channel;
        }
    }
    return false;
}

/* The ticket that is being filled may be too full for @events, and the log too busy to take it. */
static bool ticket_is_full(struct bk_core *core, struct bb_slice events)
{
    const struct bk_stage *stage = &core->stage;
    size_t bytes = events.len + HEADS_BYTES;
    if (stage->ticket_bytes == 0 || bk_stage_has_room(core, bytes)) {
        return false;
    }
    bk_append_submit(core);
    return stage->ticket_bytes > 0 && !bk_stage_has_room(core, bytes);
}

bool bk_pause_is_due(struct bk_core *core, struct bb_slice events)
{
    const struct bk_stage *stage = &core->stage;
    return stage->state == BK_BACKEND_OK && !core->shutting_down &&
           (stage->is_behind || ticket_is_full(core, events)) && has_logged(core, events);
}

static void set_stopped(const struct bk_core *core, struct bk_client *client, bool is_stopped)
{
    if (core->out->pause != NULL && client->is_stopped != is_stopped) {
        core->out->pause(core->out->context, client->peer, is_stopped);
    }
    client->is_stopped = is_stopped;
}

static void unlink_paused(struct bk_core *core, struct bk_client *client)
{
    struct bk_stage *stage = &core->stage;
    *(client->prev_paused != NULL ? &client->prev_paused->next_paused : &stage->paused_first) =
        client->next_paused;
    *(client->next_paused != NULL ? &client->next_paused->prev_paused : &stage->paused_last) =
        client->prev_paused;
}

/* Behind @prev, NULL: in front of all. */
static void link_paused(struct bk_core *core, struct bk_client *client, struct bk_client *prev)
{
    struct bk_stage *stage = &core->stage;
    client->prev_paused = prev;
    client->next_paused = prev != NULL ? prev->next_paused : stage->paused_first;
    *(prev != NULL ? &prev->next_paused : &stage->paused_first) = client;
    *(client->next_paused != NULL ? &client->next_paused->prev_paused : &stage->paused_last) = client;
}

static void pause_behind(struct bk_core *core, struct bk_client *client, struct bk_client *prev)
{
    client->input = BK_INPUT_PAUSED;
    core->stage.is_behind = true;
    link_paused(core, client, prev);
    bk_count(core, BK_COUNTER_clients_paused, 1);
    set_stopped(core, client, true);
    if (client->heartbeat_us != 0) {
        bk_tick_by(core, client->heartbeat_us);
    }
}

void bk_pause(struct bk_core *core, struct bk_client *client)
{
    pause_behind(core, client, core->stage.paused_last);
}

bool bk_pause_can_drain(const struct bk_core *core)
{
    return core->stage.state == BK_BACKEND_OK && !core->shutting_down;
}

/* In front: if publishers went on first, a channel that is always written to would never be free. */
void bk_pause_first(struct bk_core *core, struct bk_client *client)
{
    pause_behind(core, client, NULL);
}

void bk_pause_drain(struct bk_core *core, struct bk_client *client)
{
    core->stage.drains = true;
    bk_pause_first(core, client);
}

void bk_pause_forget(struct bk_core *core, struct bk_client *client)
{
    if (client->input == BK_INPUT_PAUSED) {
        unlink_paused(core, client);
    }
}

/* Half of the bound is free before anyone goes on: pausing costs, and should not be done for each message. */
bool bk_pause_is_over(const struct bk_core *core)
{
    const struct bk_stage *stage = &core->stage;
    bool is_done = bk_stage_has_caught_up(core) && stage->n_going == 0;
    return stage->is_behind && (is_done || stage->state != BK_BACKEND_OK);
}

struct bk_client *bk_pause_next(struct bk_core *core)
{
    struct bk_client *client = core->stage.paused_first;
    if (client != NULL && !core->stage.is_behind) {
        unlink_paused(core, client);
        client->input = BK_INPUT_TAKEN;
        client->heard_at = core->monotonic;
        return client;
    }
    return NULL;
}

void bk_pause_end(const struct bk_core *core, struct bk_client *client)
{
    if (client->input != BK_INPUT_PAUSED && !bk_client_is_doomed(client)) {
        set_stopped(core, client, false);
    }
}
