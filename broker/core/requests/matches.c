/* SPDX-License-Identifier: Apache-2.0 */
/* How many subscriptions match a path, at once or as soon as there are enough (PROTOCOL 5.2). */
#include "proto/wire/path.h"

#include "broker/core/clients/client.h"
#include "broker/core/requests/requests.h"
#include "broker/core/state.h"
#include "broker/core/subs/route.h"

#include <stdlib.h>

/* Requests that wait, of all clients. */
#define WAITERS_MAX 4096
#define WAIT_MAX_MS ((uint64_t)3600000)

/* A request that waits for matches. */
struct bk_waiter {
    struct bk_waiter *next;
    struct bk_client *client;
    uint64_t corr;
    uint64_t min;
    uint64_t deadline;
    size_t path_len;
    uint8_t path[];
};

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
    bb_mp_write_str(&core->nested, bb_slice_str("matches"));
    bb_mp_write_uint(&core->nested, n);
    bk_client_send_result(core, client, corr, bb_buf_slice(&core->nested));
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
        bk_client_refuse(core, client, msg, r, NULL);
    }
}

static void waiter_free(struct bk_core *core, struct bk_waiter **at)
{
    struct bk_waiter *waiter = *at;
    *at = waiter->next;
    core->n_waiters--;
    free(waiter);
}

/* What to answer: 0 with *ret_n, an error, or BB_EAGAIN: nothing yet. */
static int judge(struct bk_core *core, const struct bk_waiter *waiter, uint64_t *ret_n)
{
    int r = count_matches(core, bb_slice(waiter->path, waiter->path_len), ret_n);
    if (r == 0 && *ret_n < waiter->min) {
        r = core->monotonic >= waiter->deadline ? BB_ETIMEOUT : BB_EAGAIN;
    }
    return r;
}

uint64_t bk_waiters_check(struct bk_core *core)
{
    struct bk_waiter **at = &core->waiters;
    uint64_t next = UINT64_MAX;
    while (*at != NULL) {
        struct bk_waiter *waiter = *at;
        uint64_t n = 0;
        int r = judge(core, waiter, &n);
        if (r == BB_EAGAIN) {
            next = BB_MIN(next, waiter->deadline - core->monotonic);
            at = &waiter->next;
            continue;
        }
        if (r == 0) {
            answer(core, waiter->client, waiter->corr, n);
        } else {
            bk_client_send_error(core, waiter->client, BB_MSG_MATCHES, waiter->corr, r, NULL,
                                 (struct bb_slice){0});
        }
        waiter_free(core, at);
    }
    core->waiters_generation = core->route.generation;
    return next;
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
