/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/clients/client.h"

#include "broker/core/state.h"

/* A client that has this many times its bound of unread answers is not reading (deliveries stop at one). */
#define UNREAD_FACTOR 4

void bk_client_doom(struct bk_core *core, struct bk_client *client, bool tell_plug)
{
    if (bk_client_is_doomed(client)) {
        return;
    }
    client->was_ready = client->state == BK_CLIENT_READY;
    client->state = BK_CLIENT_DOOMED;
    client->tell_plug = tell_plug;
    client->next_doomed = core->doomed;
    core->doomed = client;
}

/* --- what is on its way ------------------------------------------------------------------------------ */

static uint64_t inflight_max(const struct bk_core *core)
{
    size_t share = core->config.inflight_all / BB_MAX(core->n_clients, 1);
    return BB_MIN(BB_MAX(share, BK_INFLIGHT_MIN), core->config.inflight_bytes);
}

bool bk_client_has_room(const struct bk_core *core, const struct bk_client *client)
{
    return !client->is_stuck && !bk_client_is_doomed(client) &&
           client->sent_bytes - client->read_bytes < inflight_max(core);
}

bool bk_client_read(const struct bk_core *core, struct bk_client *client, uint64_t bytes)
{
    if (bytes > client->probed_bytes || bytes <= client->read_bytes) {
        return false;
    }
    bool had_room = bk_client_has_room(core, client);
    client->read_bytes = bytes;
    return !had_room;
}

void bk_client_probe(struct bk_core *core, struct bk_client *client)
{
    uint64_t token = client->sent_bytes;
    uint8_t bytes[16];
    uint8_t *end =
        bb_mp_put_uint(bb_mp_put_uint(bb_mp_put_array_head(bytes, 2), (uint64_t)BB_MSG_PING), token);
    struct bk_part part = {NULL, bytes, (size_t)(end - bytes)};
    if (core->out->send(core->out->context, client->peer, &part, 1) == 0) {
        client->probed_bytes = token;
        client->pinged_at = core->monotonic;
    }
}

void bk_client_probe_if_due(struct bk_core *core, struct bk_client *client)
{
    if (client->sent_bytes - client->probed_bytes >= inflight_max(core) / 4) {
        bk_client_probe(core, client);
    }
}

/* --- sending -------------------------------------------------------------------------------------- */

static int
transmit(struct bk_core *core, struct bk_client *client, const struct bk_part *parts, size_t n_parts)
{
    if (bk_client_is_doomed(client)) {
        return BB_ECLOSED;
    }
    int r = core->out->send(core->out->context, client->peer, parts, n_parts);
    if (r == BB_EAGAIN) {
        client->is_stuck = true;
        bk_tick_by(core, BK_STUCK_RETRY_US);
        return r;
    }
    if (r < 0) {
        bk_client_doom(core, client, true);
        return BB_ECLOSED;
    }
    bk_count(core, BK_COUNTER_messages_out, 1);
    for (size_t i = 0; i < n_parts; i++) {
        client->sent_bytes += parts[i].len;
    }
    return 0;
}

int bk_client_send(struct bk_core *core,
                   struct bk_client *client,
                   const struct bk_part *parts,
                   size_t n_parts)
{
    int r = transmit(core, client, parts, n_parts);
    if (r == 0) {
        bk_client_probe_if_due(core, client);
    }
    return r;
}

/* Beyond what deliveries may have put on the way, while its share was larger, and with one message above the bound. */
static bool does_not_read(const struct bk_core *core, const struct bk_client *client)
{
    uint64_t delivered = core->config.inflight_bytes + core->config.max_message;
    return client->sent_bytes - client->read_bytes > UNREAD_FACTOR * inflight_max(core) + delivered;
}

void bk_client_answer(struct bk_core *core,
                      struct bk_client *client,
                      const struct bk_part *parts,
                      size_t n_parts)
{
    if (bk_client_is_doomed(client)) {
        return;
    }
    if (does_not_read(core, client) || bk_client_send(core, client, parts, n_parts) == BB_EAGAIN) {
        bk_count(core, BK_COUNTER_clients_unread, 1);
        bk_note(core, BK_LOG_NOTICE, "BB-CLIENT-UNREAD",
                "client %llu does not read its answers and is disconnected",
                (unsigned long long)client->number);
        bk_client_send_away(core, client, BB_EOVERFLOW, "the answers are not read");
    }
}

void bk_client_send_msg(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    if (bk_client_is_doomed(client)) {
        return;
    }
    bb_buf_reset(&core->scratch);
    bb_msg_encode(&core->scratch, msg);
    if (core->scratch.error != 0) {
        bk_note(core, BK_LOG_ERROR, "BB-MEMORY", "no memory for an answer");
        bk_client_send_away(core, client, BB_ENOMEM, NULL); /* for which there always is memory */
        return;
    }
    struct bk_part part = {NULL, core->scratch.data, core->scratch.len};
    bk_client_answer(core, client, &part, 1);
}

void bk_client_send_result(struct bk_core *core,
                           struct bk_client *client,
                           uint64_t corr,
                           struct bb_slice value)
{
    bk_client_send_msg(core, client, &(struct bb_msg){.type = BB_MSG_RESULT, .corr = corr, .value = value});
}

void bk_client_send_nil(struct bk_core *core, struct bk_client *client, uint64_t corr)
{
    static const uint8_t nil[] = {0xc0};
    bk_client_send_result(core, client, corr, bb_slice(nil, sizeof(nil)));
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

void bk_client_refuse(struct bk_core *core,
                      struct bk_client *client,
                      const struct bb_msg *msg,
                      int error,
                      const char *text)
{
    bk_client_send_error(core, client, msg->type, msg->corr, error, text, (struct bb_slice){0});
}

/* Nothing follows a goodbye, not even the question how far the client has read. */
void bk_client_send_away(struct bk_core *core, struct bk_client *client, int error, const char *text)
{
    bb_buf_reset(&core->scratch);
    bb_msg_encode(&core->scratch, &(struct bb_msg){
                                      .type = BB_MSG_GOODBYE,
                                      .code = bb_slice_str(bb_errcode(error)),
                                      .text = bb_slice_str(text != NULL ? text : bb_strerror(error)),
                                  });
    struct bk_part part = {NULL, core->scratch.data, core->scratch.len};
    if (core->scratch.error == 0) { /* there always is memory for it */
        (void)transmit(core, client, &part, 1);
    }
    bk_client_doom(core, client, true);
}

void bk_client_strike(struct bk_core *core, struct bk_client *client)
{
    bk_count(core, BK_COUNTER_bad_messages, 1);
    if (bk_client_is_doomed(client) || ++client->strikes < BK_STRIKES_MAX) {
        return;
    }
    bk_count(core, BK_COUNTER_clients_struck, 1);
    bk_note(core, BK_LOG_WARNING, "BB-CLIENT-STRUCK", "client %llu sent %d bad messages and is shut out",
            (unsigned long long)client->number, BK_STRIKES_MAX);
    client->shut_out = true;
    bk_client_send_away(core, client, BB_EMALFORMED, "too many bad messages");
}
