/* SPDX-License-Identifier: Apache-2.0 */
/* Requests about the broker itself: status and matches (PROTOCOL 5.2). */
#include "proto/wire/path.h"

#include "broker/core/state.h"

#include <stdlib.h>

/* Requests that wait, of all clients. */
#define WAITERS_MAX 4096
#define WAIT_MAX_MS ((uint64_t)3600000)

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
        {"run", core->config.run},
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
        if (bk_channel_is_gone(channel)) {
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
            lagging += !sub->live;
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
        bk_client_send_error(core, client, msg->type, msg->corr, BB_ENOMEM, NULL, (struct bb_slice){0});
        return;
    }
    bk_client_send_msg(
        core, client,
        &(struct bb_msg){.type = BB_MSG_RESULT, .corr = msg->corr, .value = bb_buf_slice(&core->nested)});
}

/* --- matches -------------------------------------------------------------------------------------- */

static int count_matches(struct bk_core *core, struct bb_slice text, uint64_t *ret_n)
{
    struct bk_path *path = NULL;
    bk_route_trim(&core->route);
    int r = bk_route_find(&core->route, text, &path);
    if (r == 0) {
        *ret_n = path->set->n_subs;
    }
    return r;
}

static void answer(struct bk_core *core, struct bk_client *client, uint64_t corr, uint64_t n)
{
    bb_buf_reset(&core->nested);
    bb_mp_write_map(&core->nested, 1);
    write_entry(&core->nested, "matches", n);
    bk_client_send_msg(
        core, client,
        &(struct bb_msg){.type = BB_MSG_RESULT, .corr = corr, .value = bb_buf_slice(&core->nested)});
}

static int wait_for_matches(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    if (core->n_waiters >= WAITERS_MAX) {
        return BB_ELIMIT;
    }
    struct bk_waiter *waiter = calloc(1, sizeof(*waiter) + msg->path.len);
    if (waiter == NULL) {
        return BB_ENOMEM;
    }
    waiter->client = client;
    waiter->corr = msg->corr;
    waiter->min = msg->min;
    waiter->deadline = core->monotonic + BB_MIN(msg->timeout, WAIT_MAX_MS) * 1000;
    bk_tick_by(core, waiter->deadline - core->monotonic);
    waiter->path_len = msg->path.len;
    if (msg->path.len > 0) {
        memcpy(waiter->path, msg->path.data, msg->path.len);
    }
    waiter->next = core->waiters;
    core->waiters = waiter;
    core->n_waiters++;
    return 0;
}

void bk_handle_matches(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    uint64_t n = 0;
    int r = bb_path_check(msg->path);
    if (r == 0) {
        bk_fan_out(core);
        if (client->state == BK_CLIENT_GONE) {
            return; /* the fan-out found out */
        }
        r = count_matches(core, msg->path, &n);
    }
    if (r == 0 && n >= msg->min) {
        answer(core, client, msg->corr, n);
        return;
    }
    if (r == 0) {
        r = msg->timeout > 0 ? wait_for_matches(core, client, msg) : BB_ETIMEOUT;
    }
    if (r < 0) {
        bk_client_send_error(core, client, msg->type, msg->corr, r, NULL, (struct bb_slice){0});
    }
}

static void waiter_free(struct bk_core *core, struct bk_waiter **at)
{
    struct bk_waiter *waiter = *at;
    *at = waiter->next;
    core->n_waiters--;
    free(waiter);
}

/* Whether it has been answered; its client may be gone then. */
static bool
waiter_answer(struct bk_core *core, const struct bk_waiter *waiter, uint64_t *ret_n, int *ret_error)
{
    *ret_n = 0;
    *ret_error = count_matches(core, bb_slice(waiter->path, waiter->path_len), ret_n);
    if (*ret_error == 0 && *ret_n < waiter->min) {
        *ret_error = core->monotonic >= waiter->deadline ? BB_ETIMEOUT : BB_EAGAIN;
    }
    return *ret_error != BB_EAGAIN;
}

void bk_waiters_check(struct bk_core *core)
{
    struct bk_waiter **at = &core->waiters;
    while (*at != NULL) {
        uint64_t n = 0;
        int error = 0;
        if (!waiter_answer(core, *at, &n, &error)) {
            at = &(*at)->next;
            continue;
        }
        struct bk_client *client = (*at)->client;
        uint64_t corr = (*at)->corr;
        waiter_free(core, at);
        bool fanning = core->fanning;
        core->fanning = true; /* a client that goes now must not take waiters from under this loop */
        if (error == 0) {
            answer(core, client, corr, n);
        } else {
            bk_client_send_error(core, client, BB_MSG_MATCHES, corr, error, NULL, (struct bb_slice){0});
        }
        core->fanning = fanning;
    }
    if (!core->fanning) {
        bk_fanning_end(core);
    }
}

void bk_waiters_remove(struct bk_core *core, const struct bk_client *client)
{
    struct bk_waiter **at = &core->waiters;
    while (*at != NULL) {
        if ((*at)->client == client) {
            waiter_free(core, at);
        } else {
            at = &(*at)->next;
        }
    }
}
