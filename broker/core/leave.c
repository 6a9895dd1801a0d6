/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a client: everybody who knows of it forgets it. */
#include "broker/core/clients/ack.h"
#include "broker/core/clients/client.h"
#include "broker/core/deliver/end.h"
#include "broker/core/deliver/fanout.h"
#include "broker/core/ingest/defer.h"
#include "broker/core/ingest/pause.h"
#include "broker/core/log/ask.h"
#include "broker/core/log/held.h"
#include "broker/core/requests/requests.h"
#include "broker/core/state.h"

#include <stdlib.h>

static void subs_forget(struct bk_core *core, struct bk_client *client)
{
    while (client->subs != NULL) {
        bk_sub_remove(core, client->subs);
    }
}

static void waiters_forget(struct bk_core *core, struct bk_client *client)
{
    bk_waiters_remove(core, client);
}

static void held_forget(struct bk_core *core, struct bk_client *client)
{
    bk_held_forget(core, client);
}

static void asks_forget(struct bk_core *core, struct bk_client *client)
{
    bk_asks_forget(core, client);
}

static void acks_forget(struct bk_core *core, struct bk_client *client)
{
    bk_acks_forget(core, client);
}

typedef void forget_fn(struct bk_core *core, struct bk_client *client);

static forget_fn *const forget[] = {
    subs_forget, waiters_forget,       bk_pause_forget, bk_deferred_forget,
    held_forget, bk_client_release_id, asks_forget,     acks_forget,
};

static void client_free(struct bk_client *client)
{
    bb_map_fini(&client->subs_by_id);
    bb_buf_fini(&client->acks);
    free(client);
}

static void leave(struct bk_core *core, struct bk_client *client)
{
    if (client->was_ready) {
        bk_count(core, BK_COUNTER_clients_went, 1);
        bk_note(core, BK_LOG_DEBUG, "BB-CLIENT-WENT", "client %llu went", (unsigned long long)client->number);
    }
    for (size_t i = 0; i < BB_COUNT(forget); i++) {
        forget[i](core, client);
    }
    *(client->prev != NULL ? &client->prev->next : &core->clients) = client->next;
    if (client->next != NULL) {
        client->next->prev = client->prev;
    }
    core->n_clients--;
    if (client->tell_plug) {
        core->out->close(core->out->context, client->peer, client->shut_out);
    }
    client_free(client);
}

void bk_sweep(struct bk_core *core)
{
    while (core->doomed != NULL) {
        bk_fan_out(core); /* nobody's subscription goes while blocks wait for fan-out; it may doom others */
        struct bk_client *client = core->doomed;
        core->doomed = client->next_doomed;
        leave(core, client);
    }
}
