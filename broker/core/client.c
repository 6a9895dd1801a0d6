/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/wire/path.h"

#include "broker/core/state.h"

#include <stdlib.h>

/* A client that has this many times its bound of unread answers is not reading (deliveries stop at one). */
#define UNREAD_FACTOR 4

#define PRODUCERS_IDLE_MAX ((size_t)65536)

/* When a send is tried again for which the transport had no room. */
#define STUCK_RETRY_US UINT64_C(10000)

#define HEARTBEAT_MIN_US UINT64_C(100000)
#define HEARTBEAT_MAX_US UINT64_C(60000000)

/* PROTOCOL 8: silent for this many intervals, a client is gone. */
#define HEARTBEATS_MISSED 3

/* --- coming and going ----------------------------------------------------------------------------- */

struct bk_client *bk_core_client_add(struct bk_core *core, void *peer)
{
    struct bk_client *client = NULL;
    if (core->n_clients < core->config.max_clients && !core->shutting_down) {
        client = calloc(1, sizeof(*client));
    }
    if (client == NULL) {
        bk_count(core, BK_COUNTER_clients_refused, 1);
        return NULL;
    }
    client->peer = peer;
    client->number = ++core->next_number;
    client->heartbeat_us = core->config.heartbeat_us;
    client->heard_at = client->came_at = core->monotonic;
    bb_map_init(&client->subs_by_id, core->config.seed, core->config.max_patterns);
    client->next = core->clients;
    if (client->next != NULL) {
        client->next->prev = client;
    }
    core->clients = client;
    core->n_clients++;
    return client;
}

static void acked_remove(struct bk_core *core, const struct bk_client *client)
{
    for (struct bk_client **at = &core->acked; *at != NULL; at = &(*at)->next_acked) {
        if (*at == client) {
            *at = client->next_acked;
            return;
        }
    }
}

static void idle_remove(struct bk_core *core, struct bk_producer *producer)
{
    *(producer->prev != NULL ? &producer->prev->next : &core->idle_first) = producer->next;
    *(producer->next != NULL ? &producer->next->prev : &core->idle_last) = producer->prev;
    producer->next = producer->prev = NULL;
}

static void idle_add(struct bk_core *core, struct bk_producer *producer)
{
    producer->client = NULL;
    producer->prev = core->idle_last;
    *(core->idle_last != NULL ? &core->idle_last->next : &core->idle_first) = producer;
    core->idle_last = producer;
    struct bk_producer *oldest = core->idle_first;
    if (bb_map_count(&core->producers) > PRODUCERS_IDLE_MAX && oldest != producer) {
        idle_remove(core, oldest);
        bk_stage_drop_producer(core, oldest);
        (void)bb_map_remove(&core->producers, bb_slice(oldest->key, sizeof(oldest->key)));
        free(oldest);
    }
}

struct bk_producer *bk_producer_get(struct bk_core *core, struct bb_slice id, uint64_t epoch)
{
    uint8_t key[BB_CLIENT_ID_LEN + 8];
    memcpy(key, id.data, BB_CLIENT_ID_LEN);
    memcpy(key + BB_CLIENT_ID_LEN, &epoch, sizeof(epoch));
    struct bk_producer *producer = bb_map_find(&core->producers, bb_slice(key, sizeof(key)));
    if (producer != NULL) {
        return producer;
    }
    producer = calloc(1, sizeof(*producer));
    if (producer == NULL) {
        return NULL;
    }
    memcpy(producer->key, key, sizeof(key));
    if (bb_map_add(&core->producers, bb_slice(producer->key, sizeof(producer->key)), producer) < 0) {
        free(producer);
        return NULL;
    }
    idle_add(core, producer);
    return producer;
}

void bk_client_remove(struct bk_core *core, struct bk_client *client, bool tell_plug)
{
    if (client->state == BK_CLIENT_GONE || client->doomed) {
        return;
    }
    if (core->fanning) {
        client->doomed = true;
        client->next_doomed = core->doomed;
        core->doomed = client;
        return;
    }
    client->doomed = true; /* nothing is sent to it any more */
    bk_fan_out(core);      /* nobody's subscription changes while blocks wait for fan-out */
    client->doomed = false;
    if (client->state == BK_CLIENT_READY) {
        bk_count(core, BK_COUNTER_clients_went, 1);
        bk_log(core, BK_LOG_DEBUG, "BB-CLIENT-WENT", "client %llu went", (unsigned long long)client->number);
    }
    client->state = BK_CLIENT_GONE;
    while (client->subs != NULL) {
        bk_sub_remove(core, client->subs);
    }
    bk_waiters_remove(core, client);
    bk_pause_forget(core, client);
    bk_stage_forget(core, client);
    bk_held_forget(core, client);
    bk_asks_forget(core, client);
    acked_remove(core, client);
    if (client->producer != NULL) {
        idle_add(core, client->producer);
        client->producer = NULL;
    }
    *(client->prev != NULL ? &client->prev->next : &core->clients) = client->next;
    if (client->next != NULL) {
        client->next->prev = client->prev;
    }
    core->n_clients--;
    client->next = core->gone;
    core->gone = client;
    if (tell_plug) {
        core->out->close(core->out->context, client->peer, client->shut_out);
    }
}

void bk_fanning_end(struct bk_core *core)
{
    core->fanning = false;
    while (core->doomed != NULL) {
        struct bk_client *client = core->doomed;
        core->doomed = client->next_doomed;
        client->doomed = false;
        bk_client_remove(core, client, true);
    }
}

/* --- sending -------------------------------------------------------------------------------------- */

static uint64_t inflight_max(const struct bk_core *core)
{
    size_t share = core->config.inflight_all / BB_MAX(core->n_clients, 1);
    return BB_MIN(BB_MAX(share, BK_INFLIGHT_MIN), core->config.inflight_bytes);
}

bool bk_client_has_room(const struct bk_core *core, const struct bk_client *client)
{
    return !client->stuck && !client->doomed && client->sent_bytes - client->read_bytes < inflight_max(core);
}

void bk_client_read(struct bk_core *core, struct bk_client *client, uint64_t bytes)
{
    if (bytes > client->probed_bytes || bytes <= client->read_bytes) {
        return;
    }
    bool had_room = bk_client_has_room(core, client);
    client->read_bytes = bytes;
    if (had_room) {
        return;
    }
    for (struct bk_sub *sub = client->subs; sub != NULL; sub = sub->next) {
        bk_sub_set_ready(core, sub);
    }
}

/* Ask how far the client has read. */
static void probe(struct bk_core *core, struct bk_client *client)
{
    struct bb_msg ping = {.type = BB_MSG_PING, .token = client->sent_bytes};
    uint8_t bytes[16];
    uint8_t *end =
        bb_mp_put_uint(bb_mp_put_uint(bb_mp_put_array_head(bytes, 2), (uint64_t)ping.type), ping.token);
    struct bk_part part = {NULL, bytes, (size_t)(end - bytes)};
    if (core->out->send(core->out->context, client->peer, &part, 1) == 0) {
        client->probed_bytes = ping.token;
        client->pinged_at = core->monotonic;
    }
}

int bk_client_send(struct bk_core *core,
                   struct bk_client *client,
                   const struct bk_part *parts,
                   size_t n_parts)
{
    if (client->state == BK_CLIENT_GONE || client->doomed) {
        return BB_ECLOSED;
    }
    int r = core->out->send(core->out->context, client->peer, parts, n_parts);
    if (r == BB_EAGAIN) {
        client->stuck = true;
        bk_tick_by(core, STUCK_RETRY_US);
        return r;
    }
    if (r < 0) {
        bk_client_remove(core, client, true);
        return BB_ECLOSED;
    }
    bk_count(core, BK_COUNTER_messages_out, 1);
    for (size_t i = 0; i < n_parts; i++) {
        client->sent_bytes += parts[i].len;
    }
    if (client->sent_bytes - client->probed_bytes >= inflight_max(core) / 4) {
        probe(core, client);
    }
    return 0;
}

void bk_client_send_msg(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    if (client->state == BK_CLIENT_GONE || client->doomed) {
        return;
    }
    bb_buf_reset(&core->scratch);
    bb_msg_encode(&core->scratch, msg);
    if (core->scratch.error != 0) {
        bk_log(core, BK_LOG_ERROR, "BB-MEMORY", "no memory for an answer");
        bk_client_send_away(core, client, BB_ENOMEM, NULL); /* for which there always is memory */
        return;
    }
    struct bk_part part = {NULL, core->scratch.data, core->scratch.len};
    bool unread = client->sent_bytes - client->read_bytes > UNREAD_FACTOR * inflight_max(core);
    if (unread || bk_client_send(core, client, &part, 1) == BB_EAGAIN) {
        bk_count(core, BK_COUNTER_clients_unread, 1);
        bk_log(core, BK_LOG_NOTICE, "BB-CLIENT-UNREAD",
               "client %llu does not read its answers and is sent away", (unsigned long long)client->number);
        bk_client_remove(core, client, true);
    }
}

void bk_client_send_error(struct bk_core *core,
                          struct bk_client *client,
                          enum bb_msg_type about,
                          uint64_t corr,
                          int error,
                          const char *text,
                          struct bb_slice detail)
{
    bk_count(core, BK_COUNTER_errors_out, 1);
    bk_client_send_msg(core, client,
                       &(struct bb_msg){
                           .type = BB_MSG_ERROR,
                           .about = (uint64_t)about,
                           .corr = corr,
                           .code = bb_slice_str(bb_errcode(error)),
                           .text = bb_slice_str(text != NULL ? text : bb_strerror(error)),
                           .detail = detail,
                       });
}

void bk_client_send_away(struct bk_core *core, struct bk_client *client, int error, const char *text)
{
    bk_client_send_msg(core, client,
                       &(struct bb_msg){
                           .type = BB_MSG_GOODBYE,
                           .code = bb_slice_str(bb_errcode(error)),
                           .text = bb_slice_str(text != NULL ? text : bb_strerror(error)),
                       });
    bk_client_remove(core, client, true);
}

void bk_client_strike(struct bk_core *core, struct bk_client *client)
{
    bk_count(core, BK_COUNTER_bad_messages, 1);
    if (client->state == BK_CLIENT_GONE || ++client->strikes < BK_STRIKES_MAX) {
        return;
    }
    bk_count(core, BK_COUNTER_clients_struck, 1);
    bk_log(core, BK_LOG_WARNING, "BB-CLIENT-STRUCK", "client %llu sent %d bad messages and is shut out",
           (unsigned long long)client->number, BK_STRIKES_MAX);
    client->shut_out = true;
    bk_client_send_away(core, client, BB_EMALFORMED, "too many bad messages");
}

/* --- hello ---------------------------------------------------------------------------------------- */

static int read_options(struct bk_core *core, struct bk_client *client, struct bb_slice options)
{
    struct bb_mp_reader reader = bb_mp_reader(options);
    uint64_t n = options.len > 0 && bb_mp_peek_type(&reader) != BB_MP_NIL ? bb_mp_read_map(&reader) : 0;
    for (uint64_t i = 0; i < n; i++) {
        struct bb_slice key = bb_mp_read_str(&reader);
        if (bb_slice_equal(key, bb_slice_str("name"))) {
            struct bb_slice name = bb_mp_read_str(&reader);
            if (name.len > BK_NAME_MAX) {
                return BB_EINVAL;
            }
            memcpy(client->name, name.data, name.len);
            client->name[name.len] = 0;
        } else if (bb_slice_equal(key, bb_slice_str("heartbeat"))) {
            uint64_t ms = bb_mp_read_uint(&reader);
            uint64_t us = BB_MIN(ms, HEARTBEAT_MAX_US / 1000) * 1000;
            client->heartbeat_us = ms == 0 ? 0 : BB_MAX(us, HEARTBEAT_MIN_US);
        } else {
            bb_mp_skip(&reader);
        }
    }
    (void)core;
    return reader.error != 0 ? BB_EINVAL : 0;
}

static int take_producer(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    if (msg->client.len == 0) {
        return 0;
    }
    struct bk_producer *producer = bk_producer_get(core, msg->client, msg->epoch);
    if (producer == NULL) {
        return BB_ENOMEM;
    }
    if (producer->client != NULL) {
        bk_count(core, BK_COUNTER_clients_taken_over, 1);
        bk_client_send_away(core, producer->client, BB_EEXISTS, "the client connected again");
    }
    idle_remove(core, producer);
    producer->client = client;
    client->producer = producer;
    return 0;
}

static void write_limits(struct bb_buf *out, const struct bk_core *core, const struct bk_client *client)
{
    const struct {
        const char *name;
        uint64_t value;
    } limits[] = {
        {"max_message", core->config.max_message},
        {"max_events", BB_EVENTS_MAX},
        {"max_depth", BB_MP_MAX_DEPTH},
        {"max_path", BB_PATH_MAX},
        {"max_patterns", core->config.max_patterns},
        {"max_inflight", core->config.inflight_bytes},
        {"heartbeat", client->heartbeat_us / 1000},
    };
    bb_mp_write_map(out, BB_COUNT(limits));
    for (size_t i = 0; i < BB_COUNT(limits); i++) {
        bb_mp_write_str(out, bb_slice_str(limits[i].name));
        bb_mp_write_uint(out, limits[i].value);
    }
}

void bk_client_hello(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    int r = 0;
    if (msg->version < BB_PROTOCOL_VERSION) {
        r = BB_EVERSION;
    } else if (msg->client.len != 0 && msg->client.len != BB_CLIENT_ID_LEN) {
        r = BB_EINVAL;
    } else {
        r = read_options(core, client, msg->options);
    }
    if (r == 0 && core->shutting_down) {
        r = BB_ESHUTDOWN;
    }
    if (r == 0) {
        r = take_producer(core, client, msg);
    }
    if (r < 0) {
        bk_client_send_error(core, client, msg->type, msg->corr, r, NULL, (struct bb_slice){0});
        return;
    }
    client->state = BK_CLIENT_READY;
    if (client->heartbeat_us != 0) {
        bk_tick_by(core, client->heartbeat_us);
    }
    bk_count(core, BK_COUNTER_clients_came, 1);
    bb_buf_reset(&core->nested);
    write_limits(&core->nested, core, client);
    static const uint8_t no_features[] = {0x90};
    static const uint8_t log_features[] = {0x91, 0xa3, 'l', 'o', 'g'};
    bool has_log = core->stage.backend != NULL && core->stage.backend->is_durable;
    bk_client_send_msg(core, client,
                       &(struct bb_msg){
                           .type = BB_MSG_WELCOME,
                           .corr = msg->corr,
                           .version = BB_PROTOCOL_VERSION,
                           .server = core->config.server,
                           .run = core->config.run,
                           .client_number = client->number,
                           .last = client->producer != NULL ? client->producer->last : 0,
                           .limits = bb_buf_slice(&core->nested),
                           .features = has_log ? bb_slice(log_features, sizeof(log_features))
                                               : bb_slice(no_features, sizeof(no_features)),
                       });
    bk_log(core, BK_LOG_DEBUG, "BB-CLIENT-CAME", "client %llu (%s) came", (unsigned long long)client->number,
           client->name);
}

/* --- time ----------------------------------------------------------------------------------------- */

/* Who comes late has not listened either: silence since the last look, @late for @since, is nobody's. Returns how long @client was. */
static uint64_t silence(const struct bk_core *core, struct bk_client *client, uint64_t late, uint64_t since)
{
    if (late > client->heartbeat_us / 4) {
        client->heard_at = BB_MIN(client->heard_at + since, core->monotonic);
    }
    return core->monotonic - client->heard_at;
}

/* When this client next needs a look, in us from now; it may be gone afterwards. */
static uint64_t client_tick(struct bk_core *core, struct bk_client *client, uint64_t late, uint64_t since)
{
    if (client->stuck) { /* the transport may have room again; the next send will tell */
        client->stuck = false;
        for (struct bk_sub *sub = client->subs; sub != NULL; sub = sub->next) {
            bk_sub_set_ready(core, sub);
        }
    }
    if (client->sent_bytes - client->probed_bytes >= inflight_max(core) / 4) {
        probe(core, client); /* there was no room for it, or what a client may have on its way shrank */
    }
    uint64_t interval = client->heartbeat_us;
    if (interval == 0) {
        return UINT64_MAX;
    }
    uint64_t silent = silence(core, client, late, since);
    if (client->is_paused) { /* it cannot be heard, but must hear that we are there */
        if (core->monotonic - client->pinged_at >= interval) {
            probe(core, client);
        }
        return interval;
    }
    if (silent >= HEARTBEATS_MISSED * interval) {
        bk_count(core, BK_COUNTER_clients_expired, client->state == BK_CLIENT_READY);
        bk_client_remove(core, client, true);
        return UINT64_MAX;
    }
    if (silent >= interval && core->monotonic - client->pinged_at >= interval) {
        probe(core, client);
    }
    uint64_t next = silent < interval ? interval - silent : interval;
    /* Looking an eighth late at some lets many be looked at together: a burst of pings costs far less than
     * the same pings one by one. */
    return BB_MAX(BB_MIN(next, HEARTBEATS_MISSED * interval - silent), interval / 8);
}

uint64_t bk_core_tick(struct bk_core *core)
{
    uint64_t next = core->config.heartbeat_us;
    uint64_t late = core->monotonic - BB_MIN(core->tick_at, core->monotonic);
    uint64_t since = core->monotonic - core->ticked_at;
    core->tick_at = UINT64_MAX;
    core->ticked_at = core->monotonic;
    bk_fan_out(core);
    core->fanning = true; /* a client that goes now must not take others from under this loop */
    for (struct bk_client *client = core->clients; client != NULL; client = client->next) {
        uint64_t wanted = client_tick(core, client, late, since);
        next = BB_MIN(next, wanted);
    }
    bk_fanning_end(core);
    next = BB_MIN(next, bk_until_tick(core));
    bk_waiters_check(core);
    bk_core_flush(core);
    for (const struct bk_waiter *waiter = core->waiters; waiter != NULL; waiter = waiter->next) {
        next = BB_MIN(next, waiter->deadline > core->monotonic ? waiter->deadline - core->monotonic : 0);
    }
    bk_tick_by(core, next);
    return core->tick_at - core->monotonic;
}
