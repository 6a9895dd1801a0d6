/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Back-pressure: while too much waits for the log, clients that publish to it are paused. The message that is too much waits,
 * with all that came behind it, and the client's peer is not read, until the log has caught up. Everybody else goes on.
 */
#include "proto/wire/path.h"

#include "broker/core/state.h"

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

bool bk_pause_is_due(const struct bk_core *core, struct bb_slice events)
{
    const struct bk_stage *stage = &core->stage;
    return stage->is_behind && stage->state == BK_BACKEND_OK && !core->shutting_down &&
           has_logged(core, events);
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
    client->is_paused = false;
}

void bk_pause(struct bk_core *core, struct bk_client *client)
{
    struct bk_stage *stage = &core->stage;
    client->is_deferring = true;
    client->is_paused = true;
    client->next_paused = NULL;
    client->prev_paused = stage->paused_last;
    *(stage->paused_last != NULL ? &stage->paused_last->next_paused : &stage->paused_first) = client;
    stage->paused_last = client;
    bk_count(core, BK_COUNTER_clients_paused, 1);
    set_stopped(core, client, true);
    if (client->heartbeat_us != 0) {
        bk_tick_by(core, client->heartbeat_us);
    }
}

void bk_pause_forget(struct bk_core *core, struct bk_client *client)
{
    if (client->is_paused) {
        unlink_paused(core, client);
    }
}

/* Half of the bound is free before anyone goes on: pausing costs, and should not be done for each message. */
static bool has_caught_up(const struct bk_core *core)
{
    const struct bk_stage *stage = &core->stage;
    return stage->state != BK_BACKEND_OK ||
           (!stage->is_stalled && stage->bytes <= core->config.stage_bytes / 2);
}

bool bk_pause_is_over(const struct bk_core *core)
{
    return core->stage.is_behind && has_caught_up(core);
}

/* Who has waited longest comes first. It may be paused again, and is the last one then. */
void bk_pause_end(struct bk_core *core)
{
    struct bk_stage *stage = &core->stage;
    if (!bk_pause_is_over(core)) {
        return;
    }
    stage->is_behind = false;
    while (stage->paused_first != NULL && !stage->is_behind) {
        struct bk_client *client = stage->paused_first;
        unlink_paused(core, client);
        client->heard_at = core->monotonic;
        bk_deferred_resume(core, client);
        if (client->state != BK_CLIENT_GONE && !client->doomed && !client->is_paused) {
            set_stopped(core, client, false);
        }
    }
}
