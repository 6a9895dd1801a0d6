/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/log/ask.h"

#include "broker/core/clients/client.h"
#include "broker/core/state.h"

/* Of all clients. */
#define ASKS_MAX 4096

int bk_ask_begin(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, struct bk_ask *ask)
{
    if (core->n_asks >= ASKS_MAX) {
        return BB_ELIMIT;
    }
    *ask = (struct bk_ask){
        .next = core->asks, .core = core, .client = client, .about = msg->type, .corr = msg->corr};
    if (ask->next != NULL) {
        ask->next->prev = ask;
    }
    core->asks = ask;
    core->n_asks++;
    return 0;
}

void bk_ask_end(struct bk_ask *ask)
{
    *(ask->prev != NULL ? &ask->prev->next : &ask->core->asks) = ask->next;
    if (ask->next != NULL) {
        ask->next->prev = ask->prev;
    }
    ask->core->n_asks--;
}

void bk_ask_refuse(const struct bk_ask *ask, int error, const char *text)
{
    if (ask->client != NULL) {
        bk_client_send_error(ask->core, ask->client, ask->about, ask->corr, error, text,
                             (struct bb_slice){0});
    }
}

void bk_asks_forget(struct bk_core *core, const struct bk_client *client)
{
    for (struct bk_ask *ask = core->asks; ask != NULL; ask = ask->next) {
        if (ask->client == client) {
            ask->client = NULL;
        }
    }
}
