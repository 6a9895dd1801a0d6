/* SPDX-License-Identifier: Apache-2.0 */
/* Hello and welcome (PROTOCOL 5.1). */
#include "proto/wire/path.h"

#include "broker/core/clients/client.h"
#include "broker/core/clients/producer.h"
#include "broker/core/log/durable.h"
#include "broker/core/requests/requests.h"
#include "broker/core/state.h"

#define HEARTBEAT_MIN_US UINT64_C(100000)
#define HEARTBEAT_MAX_US UINT64_C(60000000)

static int read_options(struct bk_client *client, struct bb_slice options)
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
    return reader.error != 0 ? BB_EINVAL : 0;
}

/* --- whose it is ---------------------------------------------------------------------------------------- */

void bk_client_release_id(struct bk_core *core, struct bk_client *client)
{
    bk_stage_orphan(core, client);
    bk_producer_detach(core, client);
    if (client->has_id) {
        (void)bb_map_remove(&core->clients_by_id, bb_slice(client->id, sizeof(client->id)));
        client->has_id = false;
    }
}

/* The older connection of the same client ends. What it waits for is not told to it any more. */
static void take_over(struct bk_core *core, struct bk_client *older)
{
    bk_count(core, BK_COUNTER_clients_taken_over, 1);
    bk_client_send_away(core, older, BB_EEXISTS, "the client connected again");
    bk_client_release_id(core, older);
}

static bool is_outdated(const struct bk_client *connected, const struct bk_producer *producer, uint64_t epoch)
{
    return (connected != NULL && epoch < connected->epoch) || (producer != NULL && epoch < producer->epoch);
}

/* Return: 0, BB_EEXISTS: a newer epoch is known; BB_ENOMEM. */
static int take_id(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    if (msg->client.len == 0) {
        return 0;
    }
    struct bk_client *connected = bb_map_find(&core->clients_by_id, msg->client);
    if (is_outdated(connected, bk_producer_find(core, msg->client.data), msg->epoch)) {
        return BB_EEXISTS;
    }
    if (connected != NULL) {
        take_over(core, connected);
    }
    memcpy(client->id, msg->client.data, BB_CLIENT_ID_LEN);
    client->epoch = msg->epoch;
    if (bb_map_add(&core->clients_by_id, bb_slice(client->id, sizeof(client->id)), client) < 0) {
        return BB_ENOMEM;
    }
    client->has_id = true;
    struct bk_producer *producer = bk_producer_find(core, client->id);
    if (producer != NULL && producer->epoch < client->epoch) {
        bk_producer_raise(core, producer, client->epoch);
    }
    if (producer != NULL) {
        bk_producer_attach(core, producer, client);
    }
    return 0;
}

/* --- the answer ------------------------------------------------------------------------------------------ */

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

static void send_welcome(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    static const uint8_t features[] = {0x91, 0xa5, 'l', 'i', 'v', 'e', 's'};
    static const uint8_t log_features[] = {0x92, 0xa5, 'l', 'i', 'v', 'e', 's', 0xa3, 'l', 'o', 'g'};
    bool has_log = core->stage.backend != NULL && core->stage.backend->is_durable;
    bb_buf_reset(&core->nested);
    write_limits(&core->nested, core, client);
    bk_client_send_msg(core, client,
                       &(struct bb_msg){
                           .type = BB_MSG_WELCOME,
                           .corr = msg->corr,
                           .version = BB_PROTOCOL_VERSION,
                           .server = core->config.server,
                           .run = core->channels.run,
                           .client_number = client->number,
                           .last = client->producer != NULL ? client->producer->last : 0,
                           .limits = bb_buf_slice(&core->nested),
                           .features = has_log ? bb_slice(log_features, sizeof(log_features))
                                               : bb_slice(features, sizeof(features)),
                       });
}

static int judge(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    if (msg->version < BB_PROTOCOL_VERSION) {
        return BB_EVERSION;
    }
    if (msg->client.len != 0 && msg->client.len != BB_CLIENT_ID_LEN) {
        return BB_EINVAL;
    }
    int r = read_options(client, msg->options);
    if (r == 0 && core->shutting_down) {
        r = BB_ESHUTDOWN;
    }
    return r == 0 ? take_id(core, client, msg) : r;
}

void bk_handle_hello(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    int r = judge(core, client, msg);
    if (r < 0) {
        bk_client_refuse(core, client, msg, r,
                         r == BB_EEXISTS ? "a newer epoch of this client is known" : NULL);
        return;
    }
    client->state = BK_CLIENT_READY;
    if (client->heartbeat_us != 0) {
        bk_tick_by(core, client->heartbeat_us);
    }
    bk_count(core, BK_COUNTER_clients_came, 1);
    send_welcome(core, client, msg);
    bk_note(core, BK_LOG_DEBUG, "BB-CLIENT-CAME", "client %llu (%s) came", (unsigned long long)client->number,
            client->name);
}
