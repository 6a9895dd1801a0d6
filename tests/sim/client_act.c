/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/client_act.h"

#include "proto/wire/event.h"
#include "proto/wire/mp.h"

#include "tests/sim/world.h"

#include <stdlib.h>

#define HELLO_TIMEOUT_US 400000
#define SILENCE_US       2000000

/* Longer than any round trip, so that nothing is under way at some time. */
#define ENDING_PAUSE_US 300000

static const char *const good_paths[] = {
    "a",  "a/x", "a/y", "a/x/1", "a/",  "b",   "b/x", "b/x/y", "c/x", "c/y/z", "",
    "/x", "/",   "d/0", "d/1",   "d/2", "d/3", "d/4", "d/5",   "e/1", "e/2",   "e/x",
};

static const struct {
    const char *path;
    const char *refusal;
} bad_paths[] = {{"a/*", "bad_path"}, {"?/x", "bad_path"}, {"$sys/x", "refused"}, {"b/x*", "bad_path"}};

static const char *const patterns[] = {
    "*",  "*",   "a/*", "a/x", "?/x",   "a/?", "b/*", "?",   "",
    "/*", "d/*", "d/*", "d/3", "?/x/*", "c/x", "?/?", "e/*",
};

static const char *const policies[] = {
    "slide", "slide", "drop_oldest", "drop_newest", "conflate", "refuse", "disconnect",
};

static struct sim_rng *rng_of(struct sim_client *client)
{
    return &client->world->rng;
}

static void send_bytes(struct sim_client *client, struct bb_slice bytes)
{
    if (client->link != NULL) {
        world_send(client->world, client->link, bytes);
    }
}

void client_send_msg(struct sim_client *client, const struct bb_msg *msg)
{
    struct bb_buf out = BB_BUF_INIT;
    bb_msg_encode(&out, msg);
    send_bytes(client, bb_buf_slice(&out));
    bb_buf_fini(&out);
}

/* --- publishing ----------------------------------------------------------------------------------- */

static void *grown(void *array, uint64_t n, uint64_t *n_slots, size_t size)
{
    if (n < *n_slots) {
        return array;
    }
    *n_slots = *n_slots > 0 ? 2 * *n_slots : 32;
    void *bigger = realloc(array, *n_slots * size);
    if (bigger == NULL) {
        abort();
    }
    return bigger;
}

static uint8_t *copy_of(const void *data, size_t len)
{
    uint8_t *copy = malloc(len > 0 ? len : 1);
    if (copy == NULL) {
        abort();
    }
    memcpy(copy, data, len);
    return copy;
}

static size_t payload_size(struct sim_client *client)
{
    struct sim_rng *rng = rng_of(client);
    uint64_t kind = sim_below(rng, 100);
    if (kind < 80) {
        return sim_below(rng, 64);
    }
    return kind < 97 ? sim_between(rng, 64, 900) : sim_between(rng, 6000, 20000);
}

static void write_payload(struct sim_client *client, struct bb_buf *out)
{
    size_t size = payload_size(client);
    bb_mp_write_array(out, 3);
    bb_mp_write_uint(out, client->index);
    bb_mp_write_uint(out, client->n_events);
    uint8_t *filler = calloc(1, size + 1);
    if (filler == NULL) {
        abort();
    }
    memset(filler, (int)(client->n_events & 0xff), size);
    bb_mp_write_bin(out, bb_slice(filler, size));
    free(filler);
}

static void write_event(struct sim_client *client, struct bb_buf *body, uint64_t number, size_t favourite)
{
    struct sim_rng *rng = rng_of(client);
    struct bb_buf payload = BB_BUF_INIT;
    const char *path = good_paths[sim_chance(rng, 600) ? favourite : sim_below(rng, BB_COUNT(good_paths))];
    const char *refusal = NULL;
    if (sim_chance(rng, 25)) {
        size_t bad = sim_below(rng, BB_COUNT(bad_paths));
        path = bad_paths[bad].path;
        refusal = bad_paths[bad].refusal;
    }
    struct bb_attributes attributes = {.priority = (int32_t)sim_below(rng, 9) - 4};
    size_t start = body->len;
    write_payload(client, &payload);
    bb_event_write(body, bb_slice_str(path), bb_buf_slice(&payload),
                   sim_chance(rng, 200) ? &attributes : NULL);
    bb_buf_fini(&payload);
    client->events = grown(client->events, client->n_events, &client->n_event_slots, sizeof(*client->events));
    client->events[client->n_events++] = (struct client_event){
        .raw = copy_of(body->data + start, body->len - start),
        .len = body->len - start,
        .refusal = refusal,
        .number = number,
    };
}

static void send_batch(struct sim_client *client, const struct client_batch *batch)
{
    struct bb_buf out = BB_BUF_INIT;
    bb_msg_encode(&out,
                  &(struct bb_msg){.type = BB_MSG_PUBLISH, .number = batch->number, .level = batch->level});
    bb_buf_append(&out, batch->bytes, batch->len);
    send_bytes(client, bb_buf_slice(&out));
    bb_buf_fini(&out);
}

static void send_forgotten(struct sim_client *client, const struct bb_buf *body)
{
    struct bb_buf out = BB_BUF_INIT;
    if (sim_chance(rng_of(client), 500)) { /* else bare events */
        bb_msg_encode(&out, &(struct bb_msg){.type = BB_MSG_PUBLISH});
    }
    bb_buf_append(&out, body->data, body->len);
    send_bytes(client, bb_buf_slice(&out));
    bb_buf_fini(&out);
}

static void act_publish(struct sim_client *client)
{
    struct sim_rng *rng = rng_of(client);
    struct bb_buf body = BB_BUF_INIT;
    bool forgets = sim_chance(rng, 200);
    uint64_t number = forgets ? 0 : client->next_number;
    uint64_t n = sim_chance(rng, 60) ? sim_between(rng, 20, CLIENT_BATCH_MAX) : sim_between(rng, 1, 6);
    size_t favourite = sim_below(rng, BB_COUNT(good_paths));
    struct client_batch batch = {.number = number, .first = client->n_events, .n_events = (uint32_t)n};
    for (uint64_t i = 0; i < n; i++) {
        write_event(client, &body, number, favourite);
    }
    if (forgets) {
        send_forgotten(client, &body);
        bb_buf_fini(&body);
        return;
    }
    batch.level = sim_below(rng, client->world->is_logged ? 4 : 3);
    if (sim_chance(rng, 15) && client->strikes < CLIENT_STRIKES_MAX) { /* cannot be followed to its end */
        bb_buf_append(&body, "\xc1", 1);
        client->strikes++;
        batch.is_bad = true;
    } else if (!client->world->is_logged && sim_chance(rng, 10)) {
        batch.level = BB_LEVEL_SYNCED;
        batch.is_bad = true;
    }
    batch.bytes = copy_of(body.data, body.len);
    batch.len = body.len;
    bb_buf_fini(&body);
    client->next_number++;
    client->batches = grown(client->batches, client->n_batches, &client->n_batch_slots, sizeof(batch));
    client->batches[client->n_batches++] = batch;
    send_batch(client, &batch);
}

void client_renumber(struct sim_client *client)
{
    client->next_number = 1;
    for (uint64_t i = client->first_unacked; i < client->n_batches; i++) {
        client->batches[i].number = client->next_number++;
    }
}

/* --- subscribing ---------------------------------------------------------------------------------- */

static void write_from(struct bb_buf *out, struct watch *watch, uint64_t server)
{
    switch (watch->from) {
    case WATCH_NEW:
        bb_mp_write_str(out, bb_slice_str("new"));
        return;
    case WATCH_LAST:
        bb_mp_write_str(out, bb_slice_str("last"));
        return;
    case WATCH_SEQUENCE:
        bb_mp_write_uint(out, watch->number);
        return;
    case WATCH_TIME:
        bb_mp_write_map(out, 1);
        bb_mp_write_str(out, bb_slice_str("time"));
        bb_mp_write_uint(out, watch->number);
        return;
    case WATCH_ID:
        bb_mp_write_map(out, 1);
        bb_mp_write_str(out, bb_slice_str("id"));
        bb_mp_write_array(out, 3);
        bb_mp_write_uint(out, server);
        bb_mp_write_uint(out, watch->number);
        bb_mp_write_uint(out, watch->number_instance);
        return;
    case WATCH_CURSOR: /* with the option `durable` */
        bb_mp_write_nil(out);
        return;
    case WATCH_AFTER:
        break;
    }
    uint32_t n = 0;
    for (size_t i = 0; i < SIM_CHANNELS; i++) {
        n += watch->channels[i].is_named;
    }
    bb_mp_write_map(out, 2);
    bb_mp_write_str(out, bb_slice_str("run"));
    bb_mp_write_uint(out, watch->run);
    bb_mp_write_str(out, bb_slice_str("after"));
    bb_mp_write_map(out, n);
    for (size_t i = 0; i < SIM_CHANNELS; i++) {
        struct watch_channel *channel = &watch->channels[i];
        channel->was_asked = channel->is_named;
        channel->asked = channel->covered;
        if (channel->is_named) {
            bb_mp_write_str(out, sim_channel_name(i));
            bb_mp_write_array(out, 2);
            bb_mp_write_uint(out, channel->covered);
            bb_mp_write_uint(out, channel->life);
        }
    }
}

/* What "now" was when it began. */
static void write_ends(struct bb_buf *out, const struct watch *watch)
{
    bb_mp_write_map(out, 1);
    bb_mp_write_str(out, bb_slice_str("last"));
    bb_mp_write_map(out, SIM_CHANNELS);
    for (size_t i = 0; i < SIM_CHANNELS; i++) {
        bb_mp_write_str(out, sim_channel_name(i));
        bb_mp_write_uint(out, watch->channels[i].stop);
    }
}

static void write_options(struct bb_buf *out, const struct sim_client *client, const struct watch *watch)
{
    bool is_at_cursor = watch->from == WATCH_CURSOR;
    char name[16];
    bb_mp_write_map(out, 7U + is_at_cursor + (watch->until != UNTIL_NONE));
    if (is_at_cursor) {
        bb_mp_write_str(out, bb_slice_str("durable"));
        bb_mp_write_str(out, cursor_name(client, name));
    }
    if (watch->until != UNTIL_NONE) {
        bb_mp_write_str(out, bb_slice_str("until"));
    }
    if (watch->until == UNTIL_NOW && watch->has_begun) {
        write_ends(out, watch);
    } else if (watch->until == UNTIL_NOW) {
        bb_mp_write_str(out, bb_slice_str("now"));
    } else if (watch->until == UNTIL_SEQUENCE) {
        bb_mp_write_uint(out, watch->until_sequence);
    } else if (watch->until == UNTIL_TIME) {
        bb_mp_write_map(out, 1);
        bb_mp_write_str(out, bb_slice_str("time"));
        bb_mp_write_uint(out, watch->until_time);
    }
    bb_mp_write_str(out, bb_slice_str("lives"));
    bb_mp_write_bool(out, true);
    bb_mp_write_str(out, bb_slice_str("view"));
    bb_mp_write_str(out, bb_slice_str(watch->early.is_on ? "early" : "durable"));
    bb_mp_write_str(out, bb_slice_str("retained"));
    bb_mp_write_bool(out, watch->retained.is_due);
    bb_mp_write_str(out, bb_slice_str("bytes"));
    bb_mp_write_uint(out, watch->credit_bytes);
    bb_mp_write_str(out, bb_slice_str("events"));
    bb_mp_write_uint(out, watch->credit_events);
    bb_mp_write_str(out, bb_slice_str("overflow"));
    bb_mp_write_str(out, bb_slice_str(watch->overflow));
    bb_mp_write_str(out, bb_slice_str("budget"));
    bb_mp_write_uint(out, watch->budget);
}

static void send_subscribe(struct sim_client *client, struct watch *watch)
{
    struct bb_buf texts = BB_BUF_INIT;
    struct bb_buf from = BB_BUF_INIT;
    struct bb_buf options = BB_BUF_INIT;
    if (client->link->n_grants == LINK_GRANTS_MAX) {
        client_leave(client);
        return;
    }
    watch->corr = ++client->corr;
    watch->id = client->next_sub++;
    watch->from = watch->has_begun ? WATCH_AFTER : watch->from;
    watch->is_subscribed = false;
    watch->retained.is_due = watch->retained.is_due && !watch->has_begun;
    watch->retained.n_got = 0;
    watch->credit_bytes = watch->window_bytes;
    watch->credit_events = watch->window_events;
    bb_mp_write_array(&texts, (uint32_t)watch->n_patterns);
    for (size_t i = 0; i < watch->n_patterns; i++) {
        bb_mp_write_str(&texts, bb_slice_str(watch->patterns[i]));
    }
    write_from(&from, watch, client->world->config.server);
    write_options(&options, client, watch);
    client->link->grants[client->link->n_grants++] = (struct link_grant){
        .sub = watch->id,
        .bytes = watch->credit_bytes,
        .events = watch->credit_events,
    };
    client_send_msg(client, &(struct bb_msg){
                                .type = BB_MSG_SUBSCRIBE,
                                .corr = watch->corr,
                                .sub = watch->id,
                                .patterns = bb_buf_slice(&texts),
                                .from = bb_buf_slice(&from),
                                .options = bb_buf_slice(&options),
                            });
    bb_buf_fini(&texts);
    bb_buf_fini(&from);
    bb_buf_fini(&options);
}

/* What only holds still with a log: without one the ring's end is another end. */
static void choose_of_log(struct sim_client *client, struct watch *watch)
{
    struct sim_rng *rng = rng_of(client);
    if (!client->is_anonymous && sim_chance(rng, 250)) {
        watch->from = WATCH_CURSOR;
    }
    if (strcmp(watch->overflow, "slide") == 0 && sim_chance(rng, 500)) {
        watch->early.is_on = true;
        return;
    }
    watch->retained.is_due = sim_chance(rng, 250);
    if (strcmp(watch->overflow, "slide") == 0 && sim_chance(rng, 300)) {
        watch->until = (enum watch_until)sim_between(rng, UNTIL_NOW, UNTIL_TIME);
        watch->until_sequence = sim_between(rng, 1, 200);
    }
    if (watch->until == UNTIL_TIME) {
        watch->until_time = world_wall(client->world) + sim_below(rng, 1000000) - 500000;
    }
}

static void act_save(struct sim_client *client)
{
    const struct watch *watch = &client->watches[sim_below(rng_of(client), CLIENT_WATCHES_MAX)];
    if (client->world->is_logged && !client->is_anonymous && watch->in_use && watch->is_subscribed &&
        !watch->early.is_on) {
        cursor_save(client, watch);
    }
}

static void act_query(struct sim_client *client)
{
    const char *pattern = patterns[sim_below(rng_of(client), BB_COUNT(patterns))];
    if (client->world->is_logged) {
        query_ask(client, pattern);
    }
}

static void act_subscribe(struct sim_client *client)
{
    struct sim_rng *rng = rng_of(client);
    struct watch *watch = NULL;
    for (size_t i = 0; i < CLIENT_WATCHES_MAX && watch == NULL; i++) {
        watch = client->watches[i].in_use ? NULL : &client->watches[i];
    }
    if (watch == NULL) {
        return;
    }
    *watch = (struct watch){
        .in_use = true,
        .from = (enum watch_from)sim_below(rng, WATCH_CURSOR),
        .overflow = policies[sim_below(rng, BB_COUNT(policies))],
        .budget = sim_chance(rng, 500) ? sim_below(rng, 4000) : sim_below(rng, 100000),
        .window_bytes = sim_chance(rng, 500) ? sim_between(rng, 100, 3000) : sim_between(rng, 1000, 60000),
        .window_events = sim_chance(rng, 300) ? sim_between(rng, 1, 20) : 10000,
        .until_time = UINT64_MAX,
        .n_patterns = sim_between(rng, 1, WATCH_PATTERNS_MAX),
    };
    watch->is_conflated = strcmp(watch->overflow, "conflate") == 0;
    for (size_t i = 0; i < watch->n_patterns; i++) {
        watch->patterns[i] = patterns[sim_below(rng, BB_COUNT(patterns))];
    }
    watch->number = sim_below(rng, 200);
    watch->number_instance = sim_between(rng, 1, 6);
    if (watch->from == WATCH_TIME) {
        watch->number = world_wall(client->world) - sim_below(rng, 500000);
    }
    if (client->world->is_logged) {
        choose_of_log(client, watch);
    }
    send_subscribe(client, watch);
}

static void act_unsubscribe(struct sim_client *client)
{
    struct watch *watch = &client->watches[sim_below(rng_of(client), CLIENT_WATCHES_MAX)];
    if (watch->in_use) {
        client_send_msg(
            client, &(struct bb_msg){.type = BB_MSG_UNSUBSCRIBE, .corr = ++client->corr, .sub = watch->id});
        watch->in_use = false;
    }
}

void client_grant(struct sim_client *client, struct watch *watch)
{
    struct world *world = client->world;
    if (!watch->in_use || !watch->is_subscribed || client->link == NULL ||
        world->now < client->miserly_until) {
        return;
    }
    if (watch->got_bytes + watch->window_bytes / 2 < watch->credit_bytes &&
        watch->got_events + watch->window_events / 2 < watch->credit_events) {
        return;
    }
    watch->credit_bytes = BB_MAX(watch->credit_bytes, watch->got_bytes + watch->window_bytes);
    watch->credit_events = BB_MAX(watch->credit_events, watch->got_events + watch->window_events);
    struct link_grant *grant = link_grant_find(client->link, watch->id);
    grant->bytes = watch->credit_bytes;
    grant->events = watch->credit_events;
    client_send_msg(client, &(struct bb_msg){
                                .type = BB_MSG_CREDIT,
                                .sub = watch->id,
                                .bytes = watch->credit_bytes,
                                .events = watch->credit_events,
                            });
}

/* --- the rest ------------------------------------------------------------------------------------- */

static void connect(struct sim_client *client)
{
    struct bb_buf options = BB_BUF_INIT;
    bb_mp_write_map(&options, 2);
    bb_mp_write_str(&options, bb_slice_str("name"));
    bb_mp_write_str(&options, bb_slice_str("model"));
    bb_mp_write_str(&options, bb_slice_str("heartbeat"));
    bb_mp_write_uint(&options, client->heartbeat_ms);
    client->link = world_connect(client->world, client);
    client->state = CLIENT_HELLO;
    client->strikes = 0;
    client->heard_at = client->world->now;
    client_send_msg(client, &(struct bb_msg){
                                .type = BB_MSG_HELLO,
                                .corr = ++client->corr,
                                .version = BB_PROTOCOL_VERSION,
                                .client = client->is_anonymous ? (struct bb_slice){0}
                                                               : bb_slice(client->id, sizeof(client->id)),
                                .epoch = client->epoch,
                                .options = bb_buf_slice(&options),
                            });
    bb_buf_fini(&options);
}

/* As a client that was started again: it knows where it was by its cursor alone. */
static void forget_positions(struct sim_client *client, struct watch *watch)
{
    if (client->cursor.is_kept && sim_chance(rng_of(client), 300)) {
        watch->has_begun = false;
        watch->from = WATCH_CURSOR;
        memset(watch->channels, 0, sizeof(watch->channels));
    }
}

void client_resume(struct sim_client *client, uint64_t last)
{
    bool trusts = sim_chance(rng_of(client), 300);
    for (size_t i = 0; i < CLIENT_WATCHES_MAX && client->link != NULL; i++) {
        if (client->watches[i].in_use) {
            forget_positions(client, &client->watches[i]);
            send_subscribe(client, &client->watches[i]);
        }
    }
    while (trusts && client->first_unacked < client->n_batches &&
           client->batches[client->first_unacked].number <= last) {
        client->first_unacked++;
    }
    for (uint64_t i = client->first_unacked; i < client->n_batches; i++) {
        send_batch(client, &client->batches[i]);
    }
}

static void act_malformed(struct sim_client *client)
{
    static const struct {
        const char *bytes;
        size_t len;
        bool is_strike;
    } messages[] = {
        {"\xc1", 1, true},
        {"\x91\x63", 2, true},              /* no such type */
        {"\x92\x03\x01", 3, true},          /* subscribe without patterns */
        {"\x94\x03\x01\x63\x90", 5, false}, /* no pattern */
        {"\x94\x03\x01\x63\x91\xa2*a", 8, false},
        {"\x93\x04\x01\xcd\xff\xff", 6, false}, /* no such sub */
        {"\x94\x05\xcd\xff\xff\x01\x01", 7, false},
        {"\x93\x10\x01\x01", 4, true}, /* a welcome */
        {"\x91", 1, true},
        {"\x93\x0a\xa1\xff\xa0", 5, true}, /* not UTF-8 */
    };
    size_t i = sim_below(rng_of(client), BB_COUNT(messages));
    if (client->strikes < CLIENT_STRIKES_MAX || !messages[i].is_strike) {
        client->strikes += messages[i].is_strike;
        send_bytes(client, bb_slice(messages[i].bytes, messages[i].len));
    }
}

static void act_ask(struct sim_client *client)
{
    struct sim_rng *rng = rng_of(client);
    if (sim_chance(rng, 500)) {
        client_send_msg(client, &(struct bb_msg){.type = BB_MSG_STATUS, .corr = ++client->corr});
        return;
    }
    client_send_msg(client, &(struct bb_msg){
                                .type = BB_MSG_MATCHES,
                                .corr = ++client->corr,
                                .path = bb_slice_str(good_paths[sim_below(rng, BB_COUNT(good_paths))]),
                                .min = sim_below(rng, 8),
                                .timeout = sim_below(rng, 200),
                            });
}

static void act_ping(struct sim_client *client)
{
    client_send_msg(client, &(struct bb_msg){.type = BB_MSG_PING, .token = client->index});
}

static void act_stall(struct sim_client *client)
{
    struct sim_rng *rng = rng_of(client);
    uint64_t time = client->world->now + (sim_chance(rng, 100) ? 2000000 : sim_below(rng, 150000));
    if (sim_chance(rng, 500)) {
        client->stalled_until = time;
    } else {
        client->miserly_until = time;
    }
}

static void act_goodbye(struct sim_client *client)
{
    client_send_msg(client, &(struct bb_msg){.type = BB_MSG_GOODBYE, .code = bb_slice_str("closed")});
    client_leave(client);
}

static const struct {
    uint32_t weight;
    void (*act)(struct sim_client *client);
} acts[] = {
    {600, act_publish}, {60, act_subscribe}, {12, act_unsubscribe}, {20, act_malformed},
    {15, act_ask},      {25, act_save},      {25, act_query},       {60, act_ping},
    {25, act_stall},    {10, client_leave},  {4, act_goodbye},
};

static void act_ready(struct sim_client *client)
{
    uint64_t total = 0;
    for (size_t i = 0; i < BB_COUNT(acts); i++) {
        total += acts[i].weight;
    }
    uint64_t at = sim_below(rng_of(client), total);
    size_t i = 0;
    while (at >= acts[i].weight) {
        at -= acts[i++].weight;
    }
    acts[i].act(client);
}

void client_act(struct sim_client *client)
{
    struct world *world = client->world;
    struct sim_rng *rng = rng_of(client);
    client->next_act = world->now + (world->is_ending ? ENDING_PAUSE_US : sim_between(rng, 100, 15000));
    if (client->state == CLIENT_DOWN) {
        connect(client);
        return;
    }
    uint64_t patience = client->state == CLIENT_HELLO ? HELLO_TIMEOUT_US : SILENCE_US;
    if (world->now > BB_MAX(client->heard_at, client->stalled_until) + patience) {
        client_leave(client); /* PROTOCOL 8: a silent broker is given up */
    }
    if (client->state != CLIENT_READY) {
        return;
    }
    for (size_t i = 0; i < CLIENT_WATCHES_MAX; i++) {
        client_grant(client, &client->watches[i]);
    }
    if (world->is_ending) {
        act_ping(client);
    } else if (world->now >= client->stalled_until) {
        act_ready(client);
    }
}
