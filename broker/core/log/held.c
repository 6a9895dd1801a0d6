/* SPDX-License-Identifier: Apache-2.0 */
/* Answers that are held back until what they speak of is on disk. */
#include "broker/core/log/held.h"

#include "broker/core/clients/client.h"
#include "broker/core/log/stage.h"
#include "broker/core/state.h"

#include <stdlib.h>

#define HELD_MAX 4096

struct bk_held {
    struct bk_held *next;
    struct bk_client *client; /* NULL: it went */
    enum bb_msg_type about;
    uint64_t corr;
    uint64_t ticket;
    bool is_retried; /* with another ticket, when this one fails */
    size_t len;
    uint8_t value[];
};

bool bk_can_hold(const struct bk_core *core)
{
    return core->stage.n_held < HELD_MAX;
}

static struct bk_held *
hold(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, struct bb_slice value)
{
    struct bk_stage *stage = &core->stage;
    if (stage->backend == NULL) {
        bk_client_send_result(core, client, msg->corr, value);
        return NULL;
    }
    struct bk_held *held = calloc(1, sizeof(*held) + value.len);
    if (held == NULL) {
        bk_client_refuse(core, client, msg, BB_ENOMEM, NULL);
        return NULL;
    }
    *held = (struct bk_held){
        .client = client,
        .about = msg->type,
        .corr = msg->corr,
        .ticket = stage->ticket,
        .len = value.len,
    };
    memcpy(held->value, value.data, value.len);
    stage->has_news = true;
    *stage->held_end = held;
    stage->held_end = &held->next;
    stage->n_held++;
    return held;
}

void bk_hold_answer(struct bk_core *core,
                    struct bk_client *client,
                    const struct bb_msg *msg,
                    struct bb_slice value)
{
    (void)hold(core, client, msg, value);
}

void bk_hold_removal(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    static const uint8_t nil[] = {0xc0};
    struct bk_held *held = hold(core, client, msg, bb_slice(nil, sizeof(nil)));
    if (held != NULL) {
        held->is_retried = true;
    }
}

static void answer(struct bk_core *core, const struct bk_held *held, int error)
{
    if (held->client != NULL && error != 0) {
        bk_client_send_error(core, held->client, held->about, held->corr, error, NULL, (struct bb_slice){0});
    } else if (held->client != NULL) {
        bk_client_send_result(core, held->client, held->corr, bb_slice(held->value, held->len));
    }
}

/* Tickets between the two are on their way. */
void bk_held_release(struct bk_core *core, uint64_t durable, uint64_t failed, int error)
{
    struct bk_stage *stage = &core->stage;
    struct bk_held **at = &stage->held;
    while (*at != NULL) {
        struct bk_held *held = *at;
        if (held->ticket > durable && held->ticket < failed) {
            at = &held->next;
            continue;
        }
        if (held->ticket >= failed && held->is_retried) {
            held->ticket = stage->ticket;
            at = &held->next;
            continue;
        }
        *at = held->next;
        stage->n_held--;
        answer(core, held, held->ticket >= failed ? error : 0);
        free(held);
    }
    stage->held_end = at;
}

void bk_held_forget(struct bk_core *core, const struct bk_client *client)
{
    for (struct bk_held *held = core->stage.held; held != NULL; held = held->next) {
        if (held->client == client) {
            held->client = NULL;
        }
    }
}

void bk_held_fini(struct bk_core *core)
{
    while (core->stage.held != NULL) {
        struct bk_held *held = core->stage.held;
        core->stage.held = held->next;
        free(held);
    }
}
