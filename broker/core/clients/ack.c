/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/clients/ack.h"

#include "broker/core/clients/client.h"
#include "broker/core/keep/channel.h"
#include "broker/core/state.h"

#include <stdlib.h>

struct bk_waiting *bk_waiting_new(size_t n_runs)
{
    struct bk_waiting *waiting = calloc(1, sizeof(*waiting) + n_runs * sizeof(waiting->runs[0]));
    if (waiting != NULL) {
        waiting->matches = UINT64_MAX;
        waiting->n_runs = n_runs;
    }
    return waiting;
}

void bk_waiting_free(struct bk_waiting *waiting)
{
    for (size_t i = 0; i < waiting->n_runs; i++) {
        bk_channel_unref(waiting->runs[i].channel);
    }
    bb_buf_fini(&waiting->refused);
    free(waiting);
}

void bk_waiting_refuse(struct bk_waiting *waiting, uint32_t index, int error)
{
    bb_mp_write_array(&waiting->refused, 2);
    bb_mp_write_uint(&waiting->refused, index);
    bb_mp_write_str(&waiting->refused, bb_slice_str(bb_errcode(error)));
    waiting->n_refused++;
}

static void
begin(struct bk_core *core, struct bk_client *client, const struct bk_waiting *ack, uint32_t n_fields)
{
    if (client->n_acks++ == 0) {
        client->next_acked = core->acked;
        core->acked = client;
    }
    bb_mp_write_array(&client->acks, n_fields);
    bb_mp_write_uint(&client->acks, ack->number);
    bb_mp_write_uint(&client->acks, ack->level);
}

static void write_runs(struct bb_buf *acks, const struct bk_waiting *ack)
{
    bb_mp_write_array(acks, (uint32_t)ack->n_runs);
    for (size_t i = 0; i < ack->n_runs; i++) {
        bb_mp_write_array(acks, 3);
        bb_mp_write_str(acks, ack->runs[i].channel->name);
        bb_mp_write_uint(acks, ack->runs[i].sequence);
        bb_mp_write_uint(acks, ack->runs[i].count);
    }
}

void bk_ack_add(struct bk_core *core, struct bk_client *client, const struct bk_waiting *ack)
{
    struct bb_buf *acks = &client->acks;
    begin(core, client, ack, ack->n_refused > 0 ? 5 : 4);
    if (ack->is_repeated) {
        bb_mp_write_nil(acks);
        bb_mp_write_nil(acks);
        return;
    }
    if (ack->matches == UINT64_MAX) {
        bb_mp_write_nil(acks);
    } else {
        bb_mp_write_uint(acks, ack->matches);
    }
    write_runs(acks, ack);
    if (ack->n_refused > 0) {
        bb_mp_write_array(acks, ack->n_refused);
        bb_buf_append(acks, ack->refused.data, ack->refused.len);
        acks->error = acks->error != 0 ? acks->error : ack->refused.error;
    }
}

static void send_acks_of(struct bk_core *core, struct bk_client *client)
{
    bb_buf_reset(&core->nested);
    bb_mp_write_array(&core->nested, client->n_acks);
    bb_buf_append(&core->nested, client->acks.data, client->acks.len);
    int error = client->acks.error != 0 ? client->acks.error : core->nested.error;
    client->n_acks = 0;
    bb_buf_reset(&client->acks);
    if (error != 0) {
        bk_client_send_away(core, client, error, "no memory for acknowledgements");
        return;
    }
    bk_client_send_msg(core, client,
                       &(struct bb_msg){.type = BB_MSG_ACK, .entries = bb_buf_slice(&core->nested)});
}

void bk_acks_send(struct bk_core *core)
{
    while (core->acked != NULL) {
        struct bk_client *client = core->acked;
        core->acked = client->next_acked;
        client->next_acked = NULL;
        send_acks_of(core, client);
    }
}

void bk_acks_send_to(struct bk_core *core, struct bk_client *client)
{
    if (client->n_acks > 0) {
        bk_acks_forget(core, client);
        client->next_acked = NULL;
        send_acks_of(core, client);
    }
}

void bk_acks_forget(struct bk_core *core, const struct bk_client *client)
{
    for (struct bk_client **at = &core->acked; *at != NULL; at = &(*at)->next_acked) {
        if (*at == client) {
            *at = client->next_acked;
            return;
        }
    }
}
