/* SPDX-License-Identifier: Apache-2.0 */
/* The side of a model client that reads; client_act.c is the one that writes. */
#include "tests/sim/client.h"

#include "proto/wire/mp.h"

#include "tests/sim/client_act.h"
#include "tests/sim/world.h"

#include <stdlib.h>

void client_init(struct sim_client *client, struct world *world, uint64_t index)
{
    *client = (struct sim_client){.world = world, .index = index, .next_number = 1, .next_sub = 1};
    for (size_t i = 0; i < sizeof(client->id); i++) {
        client->id[i] = (uint8_t)sim_next(&world->rng);
    }
    client->is_anonymous = sim_chance(&world->rng, 150);
    client->heartbeat_ms = sim_chance(&world->rng, 300) ? 0 : sim_between(&world->rng, 100, 500);
    client->next_act = sim_below(&world->rng, 20000);
}

void client_fini(struct sim_client *client)
{
    for (uint64_t i = 0; i < client->n_events; i++) {
        free(client->events[i].raw);
    }
    for (uint64_t i = 0; i < client->n_batches; i++) {
        free(client->batches[i].bytes);
    }
    free(client->events);
    free(client->batches);
}

void client_leave(struct sim_client *client)
{
    if (client->link != NULL) {
        world_cut(client->world, client->link);
        client->link = NULL;
    }
    client->state = CLIENT_DOWN;
    for (size_t i = 0; i < CLIENT_WATCHES_MAX; i++) {
        struct watch *watch = &client->watches[i];
        watch->is_subscribed = false;
        /* What is retracted from now on is not known. */
        watch->in_use = watch->in_use && !watch->early.is_on;
    }
    client->query.corr = 0;
    if (client->is_anonymous) {
        client->first_unacked = client->n_batches;
        client->next_number = 1;
    }
}

bool client_is_quiet(const struct sim_client *client)
{
    if (client->state != CLIENT_READY || client->first_unacked != client->n_batches ||
        client->query.corr != 0 || client->link->core == NULL || client->link->broken) {
        return false;
    }
    for (size_t i = 0; i < CLIENT_WATCHES_MAX; i++) {
        const struct watch *watch = &client->watches[i];
        if (watch->in_use &&
            (!watch->is_subscribed || watch->retained.is_due || watch->until == UNTIL_NOW ||
             watch->until == UNTIL_TIME || watch_missing(&client->world->ledger, watch) > 0)) {
            return false;
        }
    }
    return true;
}

/* --- the truth about its publishes ------------------------------------------------------------------ */

void client_saw(struct sim_client *client, uint64_t serial, const struct bb_slice raw, size_t channel)
{
    struct world *world = client->world;
    if (serial >= client->n_events) {
        world_fail(world, "an event was published that nobody wrote");
        return;
    }
    struct client_event *event = &client->events[serial];
    if (event->len != raw.len || memcmp(event->raw, raw.data, raw.len) != 0) {
        world_fail(world, "an event was published that is not what was written");
    } else if (event->refusal != NULL) {
        world_fail(world, "an event was published that must be refused");
    } else if (event->seen_run == world->life) {
        world_fail(world, "an event of client %llu was published twice", (unsigned long long)client->index);
    }
    event->seen_run = world->life;
    if (event->number == 0 || client->is_anonymous) {
        return; /* nothing keeps it from overtaking on an older link */
    }
    if (client->newest_run != world->life) {
        memset(client->newest_seen, 0, sizeof(client->newest_seen));
        client->newest_run = world->life;
    }
    if (serial + 1 <= client->newest_seen[channel]) {
        world_fail(world, "events of client %llu are out of order", (unsigned long long)client->index);
    }
    client->newest_seen[channel] = serial + 1;
}

void client_refused(struct sim_client *client, uint64_t number)
{
    for (uint64_t i = client->first_unacked; i < client->n_batches; i++) {
        if (client->batches[i].number == number) {
            client->batches[i].refused_run = client->world->run;
        }
    }
}

/* --- acks ----------------------------------------------------------------------------------------- */

/* The runs of an ack are the good events of the batch, in order. */
static void
check_positions(struct sim_client *client, const struct client_batch *batch, struct bb_mp_reader *reader)
{
    struct world *world = client->world;
    uint64_t serial = batch->first;
    uint64_t end = batch->first + batch->n_events;
    uint64_t n = bb_mp_read_array(reader);
    for (uint64_t i = 0; i < n; i++) {
        (void)bb_mp_read_array(reader);
        int channel = sim_channel_find(bb_mp_read_str(reader));
        uint64_t first = bb_mp_read_uint(reader);
        uint64_t count = bb_mp_read_uint(reader);
        for (uint64_t j = 0; j < count && !world->failed; j++) {
            while (serial < end && client->events[serial].refusal != NULL) {
                serial++;
            }
            const struct ledger_event *event =
                channel >= 0 ? ledger_at(&world->ledger, (size_t)channel, first + j) : NULL;
            if (world->is_logged && batch->level != BB_LEVEL_NONE &&
                batch->level < BB_LEVEL_SYNCED) { /* not on the disk yet, or never */
                serial++;
                continue;
            }
            if (serial == end || event == NULL || event->client != client->index || event->serial != serial) {
                world_fail(world, "an ack names sequences that are not those of its batch");
            }
            serial++;
        }
    }
    while (serial < end && client->events[serial].refusal != NULL) {
        serial++;
    }
    if (serial != end) {
        world_fail(world, "an ack leaves out events of its batch");
    }
}

/* A log that fails or is full refuses events that are good: from now on they must not be published. */
static void
note_log_refusals(struct sim_client *client, const struct client_batch *batch, struct bb_mp_reader reader)
{
    static const char *const codes[] = {"log_failed", "log_full", "full"};
    bb_mp_skip(&reader); /* positions */
    uint64_t n = bb_mp_read_array(&reader);
    for (uint64_t i = 0; i < n && reader.error == 0; i++) {
        (void)bb_mp_read_array(&reader);
        uint64_t index = bb_mp_read_uint(&reader);
        struct bb_slice code = bb_mp_read_str(&reader);
        for (size_t j = 0; j < BB_COUNT(codes) && index < batch->n_events; j++) {
            struct client_event *event = &client->events[batch->first + index];
            if (bb_slice_equal(code, bb_slice_str(codes[j]))) {
                event->refusal = codes[j];
            }
        }
    }
}

/* Each refused event is named once; what the log refused comes behind the others. */
static void check_refused(struct sim_client *client,
                          const struct client_batch *batch,
                          struct bb_mp_reader *reader,
                          bool is_there)
{
    uint64_t n = is_there ? bb_mp_read_array(reader) : 0;
    uint64_t n_refused = 0;
    for (uint64_t serial = batch->first; serial < batch->first + batch->n_events; serial++) {
        n_refused += client->events[serial].refusal != NULL;
    }
    if (n != n_refused) {
        world_fail(client->world, "an ack refuses %llu events, not %llu", (unsigned long long)n,
                   (unsigned long long)n_refused);
    }
    bool named[CLIENT_BATCH_MAX] = {false};
    for (uint64_t i = 0; i < n && !client->world->failed; i++) {
        (void)bb_mp_read_array(reader);
        uint64_t index = bb_mp_read_uint(reader);
        struct bb_slice code = bb_mp_read_str(reader);
        const struct client_event *event =
            index < batch->n_events ? &client->events[batch->first + index] : NULL;
        if (event == NULL || named[index] || event->refusal == NULL ||
            !bb_slice_equal(code, bb_slice_str(event->refusal))) {
            world_fail(client->world, "an ack refuses a good event, or one twice, or for another reason");
            return;
        }
        named[index] = true;
    }
}

/* A repetition is acknowledged without a word about events: they must have been published. */
static void check_repeated(struct sim_client *client, const struct client_batch *batch)
{
    bool may_wait =
        client->world->is_logged && batch->level != BB_LEVEL_NONE && batch->level < BB_LEVEL_SYNCED;
    if (batch->is_bad || batch->refused_run == client->world->run) {
        world_fail(client->world, "a batch that was refused is acknowledged when it is repeated");
        return;
    }
    for (uint64_t serial = batch->first; serial < batch->first + batch->n_events; serial++) {
        const struct client_event *event = &client->events[serial];
        if (event->refusal == NULL && !may_wait && event->seen_run != client->world->life) {
            world_fail(client->world, "a batch is acknowledged that was not published");
            return;
        }
    }
}

static bool has_refusals(const struct sim_client *client, const struct client_batch *batch)
{
    for (uint64_t serial = batch->first; serial < batch->first + batch->n_events; serial++) {
        if (client->events[serial].refusal != NULL) {
            return true;
        }
    }
    return false;
}

/* All of it: nothing is left to be on the disk. */
static bool is_refused(const struct sim_client *client, const struct client_batch *batch)
{
    for (uint64_t serial = batch->first; serial < batch->first + batch->n_events; serial++) {
        if (client->events[serial].refusal == NULL) {
            return false;
        }
    }
    return true;
}

static void handle_ack(struct sim_client *client, const struct bb_msg *msg)
{
    struct world *world = client->world;
    struct bb_mp_reader reader = bb_mp_reader(msg->entries);
    uint64_t n = bb_mp_read_array(&reader);
    for (uint64_t i = 0; i < n && !world->failed; i++) {
        uint64_t n_fields = bb_mp_read_array(&reader);
        uint64_t number = bb_mp_read_uint(&reader);
        uint64_t level = bb_mp_read_uint(&reader);
        bool has_matches = bb_mp_peek_type(&reader) != BB_MP_NIL;
        bb_mp_skip(&reader);
        if (client->first_unacked == client->n_batches ||
            client->batches[client->first_unacked].number != number) {
            world_fail(world, "an ack of %llu, which is not the oldest batch without one",
                       (unsigned long long)number);
            return;
        }
        const struct client_batch *batch = &client->batches[client->first_unacked++];
        bool is_reached = level == batch->level ||
                          (batch->level == BB_LEVEL_NONE &&
                           (level == BB_LEVEL_ACCEPTED || (world->is_logged && level == BB_LEVEL_SYNCED)));
        if (world->is_logged && n_fields > 4) {
            note_log_refusals(client, batch, reader);
        }
        is_reached =
            is_reached || (world->is_logged && level == BB_LEVEL_ACCEPTED && is_refused(client, batch));
        if (!is_reached || reader.error != 0) {
            world_fail(world, "an ack with level %llu instead of %llu", (unsigned long long)level,
                       (unsigned long long)batch->level);
            return;
        }
        if (bb_mp_peek_type(&reader) == BB_MP_NIL) {
            bb_mp_read_nil(&reader);
            check_repeated(client, batch);
            if (has_refusals(client, batch)) {
                world_fail(world, "a repetition is acknowledged of which events were refused");
            }
            continue;
        }
        if (has_matches != (batch->level >= BB_LEVEL_ROUTED) || batch->is_bad) {
            world_fail(world, "an ack that is not right");
        }
        check_positions(client, batch, &reader);
        check_refused(client, batch, &reader, n_fields > 4);
    }
}

/* --- the rest ------------------------------------------------------------------------------------- */

static void handle_welcome(struct sim_client *client, const struct bb_msg *msg)
{
    uint64_t taken = client->first_unacked < client->n_batches
                         ? client->batches[client->first_unacked].number - 1
                         : client->next_number - 1;
    if (client->state != CLIENT_HELLO) {
        world_fail(client->world, "a welcome that nobody asked for");
        return;
    }
    client->run = msg->run;
    if (!client->is_anonymous && msg->last < taken) { /* the broker has forgotten: count anew */
        client->epoch++;
        client_renumber(client);
        client_leave(client);
        return;
    }
    client->state = CLIENT_READY;
    client_resume(client, client->is_anonymous ? 0 : msg->last);
}

static struct watch *watch_of(struct sim_client *client, uint64_t sub)
{
    for (size_t i = 0; i < CLIENT_WATCHES_MAX; i++) {
        if (client->watches[i].in_use && client->watches[i].id == sub) {
            return &client->watches[i];
        }
    }
    return NULL;
}

/* A batch was refused whole, or its repetition of which events were refused. Errors overtake acks, so it is
 * settled where it stands. */
static void handle_publish_error(struct sim_client *client, uint64_t number, bool is_unknown)
{
    uint64_t i = client->first_unacked;
    while (i < client->n_batches && client->batches[i].number != number) {
        i++;
    }
    if (i == client->n_batches) {
        return;
    }
    struct client_batch batch = client->batches[i];
    if (is_unknown && !client->world->is_logged) { /* with a log that fails it may not be there */
        check_repeated(client, &batch);
        if (!has_refusals(client, &batch)) {
            world_fail(client->world, "the result of a repetition is unknown though no event was refused");
        }
    }
    memmove(&client->batches[client->first_unacked + 1], &client->batches[client->first_unacked],
            (i - client->first_unacked) * sizeof(batch));
    client->batches[client->first_unacked++] = batch;
}

static void handle_error(struct sim_client *client, const struct bb_msg *msg)
{
    if (bb_slice_equal(msg->code, bb_slice_str("hello_first"))) {
        client_leave(client); /* the broker does not know this link any more */
        return;
    }
    if (msg->about == BB_MSG_PUBLISH && msg->corr != 0) {
        if (bb_slice_equal(msg->code, bb_slice_str("bad_sequence"))) {
            world_fail(client->world, "publish %llu is out of sequence", (unsigned long long)msg->corr);
        }
        handle_publish_error(client, msg->corr, bb_slice_equal(msg->code, bb_slice_str("unknown_result")));
    }
    if (msg->about == BB_MSG_QUERY) {
        world_fail(client->world, "a query was refused: %.*s", (int)msg->code.len, msg->code.data);
    }
    for (size_t i = 0; i < CLIENT_WATCHES_MAX && msg->about == BB_MSG_SUBSCRIBE; i++) {
        if (client->watches[i].in_use && client->watches[i].corr == msg->corr) {
            world_fail(client->world, "a subscribe was refused: %.*s", (int)msg->code.len, msg->code.data);
        }
    }
}

static void handle_sub_message(struct sim_client *client, const struct bb_msg *msg)
{
    struct watch *watch = watch_of(client, msg->sub);
    if (watch == NULL) {
        return; /* unsubscribed meanwhile */
    }
    if (watch->early.is_on && msg->type != BB_MSG_SUBSCRIBED) { /* which early.c has looked at */
        watch_count(watch, msg);
        client_grant(client, watch);
    } else if (msg->type == BB_MSG_GAP) {
        watch_gap(client->world, watch, msg);
    } else if (msg->type == BB_MSG_ENDED) {
        watch_ended(client->world, watch, msg);
    } else if (msg->type == BB_MSG_DELIVER) {
        watch_deliver(client->world, watch, msg);
        client_grant(client, watch);
    } else if (msg->corr != watch->corr) {
        world_fail(client->world, "subscribed with another corr");
    } else {
        watch_subscribed(client->world, watch, msg);
    }
}

void client_message(struct sim_client *client, struct bb_slice bytes)
{
    struct bb_msg msg = {0};
    client->heard_at = client->world->now;
    if (bb_msg_decode(bytes, &msg) < 0) {
        world_fail(client->world, "the broker sent a message that cannot be read");
        return;
    }
    switch ((int)msg.type) {
    case BB_MSG_WELCOME:
        handle_welcome(client, &msg);
        break;
    case BB_MSG_ACK:
        handle_ack(client, &msg);
        break;
    case BB_MSG_EVENTS:
        query_answer(client, &msg);
        break;
    case BB_MSG_SUBSCRIBED:
    case BB_MSG_ENDED:
    case BB_MSG_DELIVER:
    case BB_MSG_GAP:
        handle_sub_message(client, &msg);
        break;
    case BB_MSG_PING:
        client_send_msg(client, &(struct bb_msg){.type = BB_MSG_PONG, .token = msg.token});
        break;
    case BB_MSG_GOODBYE:
        client_leave(client);
        break;
    case BB_MSG_ERROR:
        handle_error(client, &msg);
        break;
    case BB_MSG_PONG:
    case BB_MSG_RESULT:
        break;
    default:
        world_fail(client->world, "the broker sent a message of type %d", (int)msg.type);
        break;
    }
}
