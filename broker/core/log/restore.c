/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/log/restore.h"

#include "broker/core/backend.h"
#include "broker/core/clients/producer.h"
#include "broker/core/keep/channel.h"
#include "broker/core/keep/life.h"
#include "broker/core/keep/settings.h"
#include "broker/core/log/cursor.h"
#include "broker/core/state.h"

#include <string.h>

/* The life of channels in a log that is older than lives are. */
#define LIFE_BEFORE_LIVES 1

static int read_settings(const struct bk_core *core, struct bk_channel *channel, struct bb_slice map)
{
    struct bb_buf err = BB_BUF_INIT;
    int r = bk_settings_read(map, &core->channels.defaults, &channel->settings, &err);
    bb_buf_fini(&err);
    return r;
}

/* What bk_log_channel_write() wrote, or the settings alone. */
static int read_written(const struct bk_core *core, struct bk_channel *channel, struct bb_slice written)
{
    struct bb_mp_reader reader = bb_mp_reader(written);
    channel->lives.now = LIFE_BEFORE_LIVES;
    if (bb_mp_peek_type(&reader) != BB_MP_ARRAY) {
        return read_settings(core, channel, written);
    }
    uint32_t n = bb_mp_read_array(&reader);
    struct bb_slice settings = bb_mp_read_raw(&reader);
    struct bb_slice lives = bb_mp_read_raw(&reader);
    if (reader.error != 0 || n < 2) {
        return BB_ECORRUPT;
    }
    int r = read_settings(core, channel, settings);
    return r == 0 ? bk_lives_read(lives, &channel->lives) : r;
}

/* What is in memory begins anew with each run, whatever the log says of its settings. */
static void begin_anew(struct bk_channel *channel)
{
    bk_lives_fini(&channel->lives);
    channel->taken = channel->last = channel->shown = 0;
    channel->first = channel->log_first = 1;
}

static int load_channel(void *context, const struct bk_log_channel *entry)
{
    struct bk_core *core = context;
    struct bk_channel *channel = NULL;
    core->channels.last_id = BB_MAX(core->channels.last_id, entry->id);
    if (entry->removed) {
        return 0;
    }
    int r = bk_channels_get(&core->channels, entry->name, &channel);
    if (r == 0) {
        r = read_written(core, channel, entry->settings);
    }
    if (r < 0) {
        return r;
    }
    channel->id = entry->id;
    channel->is_known[BK_STORE_LOG] = channel->is_named = true;
    channel->ring_max = channel->settings.ring_bytes;
    channel->taken = channel->last = channel->shown = entry->last;
    channel->first = entry->last + 1;
    channel->log_first = BB_MAX(entry->first, 1);
    channel->is_loaded = channel->settings.logged;
    channel->stored_life = channel->settings.logged ? channel->lives.now : 0;
    if (!channel->settings.logged) {
        begin_anew(channel);
        return 0;
    }
    bk_channels_raise_run(&core->channels, channel->lives.now);
    return 0;
}

static void read_notes(struct bk_producer *producer, struct bb_slice notes)
{
    struct bb_mp_reader reader = bb_mp_reader(notes);
    uint32_t n = notes.len > 0 ? bb_mp_read_array(&reader) : 0;
    for (uint32_t i = 0; i + 1 < n; i += 2) {
        uint64_t number = bb_mp_read_uint(&reader);
        int64_t outcome = bb_mp_read_int(&reader);
        if (reader.error == 0 && number <= producer->last && outcome < 0 && outcome >= INT8_MIN) {
            bk_producer_note(producer, number, (int)outcome);
        }
    }
}

/* Of several epochs of one client the newest counts. */
static int load_producer(void *context, const struct bk_log_producer *entry)
{
    struct bk_core *core = context;
    uint64_t epoch = 0;
    memcpy(&epoch, entry->key + BB_CLIENT_ID_LEN, sizeof(epoch));
    struct bk_producer *producer = bk_producer_get(core, entry->key, epoch);
    if (producer == NULL) {
        return BB_ENOMEM;
    }
    if (epoch < producer->epoch) {
        return 0;
    }
    if (epoch > producer->epoch) {
        memset(producer->outcomes, 0, sizeof(producer->outcomes));
        producer->refused = 0;
        producer->epoch = epoch;
    }
    producer->last = entry->last;
    read_notes(producer, entry->notes);
    return 0;
}

/* Ids of events have one order only where all are of one server. */
static int check_server(struct bk_core *core, uint64_t session)
{
    for (size_t i = 0; i < core->channels.n_channels; i++) {
        if (core->channels.list[i]->settings.logged && core->channels.list[i]->last > 0 && session == 0) {
            bk_note(
                core, BK_LOG_ERROR, "BB-SERVER-ID",
                "the events in the log are of a broker with another number than %llu: start it with the --server-id "
                "that wrote them",
                (unsigned long long)core->config.server);
            return BB_EINVAL;
        }
    }
    return 0;
}

int bk_restore(struct bk_core *core, struct bk_backend *backend)
{
    const struct bk_backend_loader loader = {core, load_channel, load_producer, bk_cursor_load};
    struct bk_event_id id = {0};
    core->stage.backend = backend;
    core->channels.defaults.logged = true;
    int r = backend->ops->load(backend, &loader);
    backend->ops->get_last_event_id(backend, core->config.server, &id, &core->session_time);
    core->session = BB_MAX(core->session, id.session);
    r = r == 0 ? check_server(core, id.session) : r;
    for (size_t i = 0; i < core->channels.n_channels; i++) { /* their lives began now, above all others */
        struct bk_channel *channel = core->channels.list[i];
        channel->lives.now = channel->settings.logged ? channel->lives.now : core->channels.run;
    }
    return r;
}
