/* SPDX-License-Identifier: Apache-2.0 */
/* What the broker says of itself (PROTOCOL 5.2). */
#include "broker/core/clients/client.h"
#include "broker/core/keep/channel.h"
#include "broker/core/requests/requests.h"
#include "broker/core/state.h"
#include "broker/core/subs/sub.h"

/* --- status --------------------------------------------------------------------------------------- */

static const char *const counter_names[] = {
#define COUNTER(name, help) #name,
#include "broker/core/counters.def"
#undef COUNTER
};

static void write_entry(struct bb_buf *out, const char *key, uint64_t value)
{
    bb_mp_write_str(out, bb_slice_str(key));
    bb_mp_write_uint(out, value);
}

static void write_broker(struct bb_buf *out, const struct bk_core *core)
{
    const struct {
        const char *key;
        uint64_t value;
    } rows[] = {
        {"server", core->config.server},
        {"run", core->channels.run},
        {"uptime_us", core->monotonic - core->started_at},
        {"time", core->wall},
        {"session", core->session},
        {"clients", core->n_clients},
        {"subscriptions", core->n_subs},
        {"patterns", core->n_patterns},
        {"lagging", core->n_lagging},
        {"channels", bk_channels_count(&core->channels)},
        {"ring_bytes", core->ring.bytes},
        {"ring_blocks", core->ring.n_blocks - core->ring.n_holes},
        {"event_bytes", atomic_load_explicit(&core->meter.bytes, memory_order_relaxed)},
        {"pattern_bytes", bb_trie_bytes(core->route.trie)},
        {"paths_cached", bb_map_count(&core->route.paths)},
        {"path_hits", core->route.n_hits},
        {"path_misses", core->route.n_misses},
    };
    bb_mp_write_map(out, BB_COUNT(rows));
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        write_entry(out, rows[i].key, rows[i].value);
    }
}

static void write_channels(struct bb_buf *out, const struct bk_core *core)
{
    bb_mp_write_array(out, (uint32_t)bk_channels_count(&core->channels));
    for (size_t i = 0; i < core->channels.n_channels; i++) {
        const struct bk_channel *channel = core->channels.list[i];
        if (bk_channel_is_empty(channel)) {
            continue;
        }
        bb_mp_write_map(out, 8);
        bb_mp_write_str(out, bb_slice_str("name"));
        bb_mp_write_str(out, channel->name);
        write_entry(out, "first", channel->first);
        write_entry(out, "last", channel->last);
        write_entry(out, "ring_bytes", channel->ring_bytes);
        write_entry(out, "events", channel->n_events);
        write_entry(out, "bytes", channel->n_bytes);
        write_entry(out, "delivered", channel->n_delivered);
        write_entry(out, "lost", channel->n_gaps);
    }
}

static void write_clients(struct bb_buf *out, const struct bk_core *core)
{
    bb_mp_write_array(out, (uint32_t)core->n_clients);
    for (const struct bk_client *client = core->clients; client != NULL; client = client->next) {
        uint64_t lag_bytes = 0;
        uint64_t lagging = 0;
        for (const struct bk_sub *sub = client->subs; sub != NULL; sub = sub->next) {
            lag_bytes += sub->lag_bytes;
            lagging += !bk_sub_is_live(sub);
        }
        bb_mp_write_map(out, 11);
        bb_mp_write_str(out, bb_slice_str("name"));
        bb_mp_write_str(out, bb_slice_str(client->name));
        write_entry(out, "client", client->number);
        write_entry(out, "connected_us", core->monotonic - client->came_at);
        write_entry(out, "subscriptions", client->n_subs);
        write_entry(out, "patterns", client->n_patterns);
        write_entry(out, "lagging", lagging);
        write_entry(out, "lag_bytes", lag_bytes);
        write_entry(out, "inflight_bytes", client->sent_bytes - client->read_bytes);
        write_entry(out, "events_in", client->events_in);
        write_entry(out, "events_out", client->events_out);
        write_entry(out, "events_lost", client->events_lost);
    }
}

static void write_counters(struct bb_buf *out, const struct bk_core *core)
{
    bb_mp_write_map(out, BK_COUNTERS);
    for (size_t i = 0; i < BK_COUNTERS; i++) {
        write_entry(out, counter_names[i], core->counters[i]);
    }
}

typedef void section_fn(struct bb_buf *out, const struct bk_core *core);

static const struct {
    const char *name;
    section_fn *write;
} sections[] = {
    {"broker", write_broker},
    {"channels", write_channels},
    {"clients", write_clients},
    {"counters", write_counters},
};

static bool is_wanted(struct bb_slice what, const char *name)
{
    struct bb_mp_reader reader = bb_mp_reader(what);
    if (what.len == 0 || bb_mp_peek_type(&reader) == BB_MP_NIL) {
        return true;
    }
    uint64_t n = bb_mp_read_array(&reader);
    for (uint64_t i = 0; i < n && reader.error == 0; i++) {
        if (bb_slice_equal(bb_mp_read_str(&reader), bb_slice_str(name))) {
            return true;
        }
    }
    return false;
}

void bk_handle_status(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    uint32_t n = 0;
    for (size_t i = 0; i < BB_COUNT(sections); i++) {
        n += is_wanted(msg->what, sections[i].name);
    }
    bb_buf_reset(&core->nested);
    bb_mp_write_map(&core->nested, n);
    for (size_t i = 0; i < BB_COUNT(sections); i++) {
        if (is_wanted(msg->what, sections[i].name)) {
            bb_mp_write_str(&core->nested, bb_slice_str(sections[i].name));
            sections[i].write(&core->nested, core);
        }
    }
    if (core->nested.error != 0) {
        bk_client_refuse(core, client, msg, BB_ENOMEM, NULL);
        return;
    }
    bk_client_send_result(core, client, msg->corr, bb_buf_slice(&core->nested));
}
