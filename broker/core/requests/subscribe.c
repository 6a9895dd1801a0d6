/* SPDX-License-Identifier: Apache-2.0 */
/* Subscribing, unsubscribing and credit (PROTOCOL 7). */
#include "proto/wire/path.h"

#include "broker/core/clients/client.h"
#include "broker/core/deliver/end.h"
#include "broker/core/filter.h"
#include "broker/core/keep/channel.h"
#include "broker/core/keep/policy.h"
#include "broker/core/keep/settings.h"
#include "broker/core/requests/begin.h"
#include "broker/core/requests/requests.h"
#include "broker/core/requests/wishes.h"
#include "broker/core/state.h"
#include "broker/core/subs/ready.h"
#include "broker/core/subs/sub.h"

static int check_limits(const struct bk_core *core,
                        const struct bk_client *client,
                        const struct bb_msg *msg,
                        const struct bk_wishes *wishes)
{
    if (client->n_patterns + wishes->n_patterns > core->config.max_patterns ||
        core->n_patterns + wishes->n_patterns > core->config.max_patterns_all) {
        return BB_ELIMIT;
    }
    bool exists = bb_map_find(&client->subs_by_id, bb_slice(&msg->sub, sizeof(msg->sub))) != NULL;
    return exists ? BB_EEXISTS : 0;
}

/* The channel that the first pattern names says what holds for those who do not. */
static void apply(const struct bk_core *core,
                  const struct bb_msg *msg,
                  const struct bk_wishes *wishes,
                  struct bk_sub *sub)
{
    struct bb_mp_reader reader = bb_mp_reader(msg->patterns);
    (void)bb_mp_read_array(&reader);
    const struct bk_channel *channel =
        bk_channels_find(&core->channels, bb_path_channel(bb_mp_read_str(&reader)));
    const struct bk_settings *settings = channel != NULL ? &channel->settings : &core->channels.defaults;
    sub->overflow = wishes->has_overflow ? wishes->overflow : (enum bk_overflow)settings->overflow;
    sub->is_early = wishes->has_view ? wishes->is_early : settings->early;
    sub->has_lives = wishes->wants_lives;
    sub->credit_bytes = wishes->credit_bytes;
    sub->credit_events = wishes->credit_events;
    sub->budget = wishes->budget;
    sub->until = wishes->until.kind;
    sub->until_time = wishes->until.time;
    sub->new_stop = wishes->until.stop;
}

static int link(struct bk_core *core, struct bk_client *client, uint64_t id, struct bk_sub *sub)
{
    sub->client = client;
    sub->id = id;
    sub->serial = ++core->next_serial;
    int r = bb_map_add(&client->subs_by_id, bb_slice(&sub->id, sizeof(sub->id)), sub);
    if (r < 0) {
        return r;
    }
    sub->next = client->subs;
    if (sub->next != NULL) {
        sub->next->prev = sub;
    }
    client->subs = sub;
    client->n_subs++;
    client->n_patterns += sub->n_patterns;
    core->n_subs++;
    core->n_patterns += sub->n_patterns;
    return 0;
}

static int make_sub(struct bk_core *core,
                    struct bk_client *client,
                    const struct bb_msg *msg,
                    const struct bk_wishes *wishes,
                    struct bk_sub **ret_sub)
{
    struct bk_sub *sub = bk_sub_new(wishes->n_patterns);
    if (sub == NULL) {
        return BB_ENOMEM;
    }
    apply(core, msg, wishes, sub);
    int r = core->stage.backend != NULL ? bk_filter_new(msg->patterns, &sub->filter) : 0;
    if (r == 0) {
        r = link(core, client, msg->sub, sub);
    }
    if (r < 0) {
        bk_sub_free(sub, &core->route);
        return r;
    }
    *ret_sub = sub;
    return 0;
}

static int
subscribe(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, const char **ret_text)
{
    struct bk_wishes wishes;
    struct bk_sub *sub = NULL;
    int r = bk_wishes_read(msg, &wishes);
    *ret_text = wishes.wrong;
    if (r == 0 && wishes.from.kind == BK_FROM_ID && wishes.from.id.server != core->config.server) {
        *ret_text = "the event is of another server: its id is no place here";
        r = BB_EINVAL;
    }
    r = r == 0 ? check_limits(core, client, msg, &wishes) : r;
    r = r == 0 ? make_sub(core, client, msg, &wishes, &sub) : r;
    if (r < 0) {
        return r;
    }
    r = bk_begin(core, sub, msg, &wishes, ret_text);
    if (r < 0) {
        bk_sub_remove(core, sub);
    }
    return r;
}

void bk_handle_subscribe(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    const char *text = NULL;
    int r = subscribe(core, client, msg, &text);
    if (r < 0) {
        bk_client_refuse(core, client, msg, r, text);
    }
}

static struct bk_sub *find(const struct bk_client *client, uint64_t id)
{
    return bb_map_find(&client->subs_by_id, bb_slice(&id, sizeof(id)));
}

void bk_handle_unsubscribe(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    struct bk_sub *sub = find(client, msg->sub);
    if (sub == NULL) {
        bk_client_refuse(core, client, msg, BB_ENOTFOUND, NULL);
        return;
    }
    bk_sub_remove(core, sub);
    bk_count(core, BK_COUNTER_unsubscribes, 1);
    bk_client_send_nil(core, client, msg->corr);
}

void bk_handle_credit(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    struct bk_sub *sub = find(client, msg->sub);
    if (sub == NULL) {
        return; /* it may have ended meanwhile */
    }
    sub->credit_bytes = BB_MAX(sub->credit_bytes, msg->bytes);
    sub->credit_events = BB_MAX(sub->credit_events, msg->events);
    bk_sub_set_ready(core, sub);
}
