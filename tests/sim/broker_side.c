/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/broker_side.h"

#include "proto/base/error.h"
#include "proto/wire/event.h"
#include "proto/wire/mp.h"
#include "proto/wire/path.h"

#include <inttypes.h>
#include <stdio.h>

/* The gaps that may go out between the look at the limit and the delivery. */
#define GAPS_MOST (SIM_CHANNELS * 64)

/* --- checks of what leaves the core ------------------------------------------------------------------ */

static void check_deliver(struct world *world, struct sim_link *link, const struct bb_msg *msg)
{
    struct link_grant *grant = link_grant_find(link, msg->sub);
    struct bb_slice rest = msg->body;
    struct bb_block block;
    if (grant == NULL) {
        world_fail(world, "a delivery for a subscription that was not made here");
        return;
    }
    if (grant->sent_bytes >= grant->bytes || grant->sent_events >= grant->events) {
        world_fail(world, "a delivery without credit");
    }
    if (link->sent_bytes - link->read_bytes >= world->config.inflight_bytes + GAPS_MOST) {
        world_fail(world, "%" PRIu64 " bytes on their way to a client, the limit is %zu",
                   link->sent_bytes - link->read_bytes, world->config.inflight_bytes);
    }
    grant->sent_bytes += msg->body.len;
    while (rest.len > 0 && bb_block_read(&rest, &block) == 0) {
        grant->sent_events += block.count;
        rest = bb_slice(rest.data + block.length, rest.len - block.length);
    }
}

static void check_subscribed(struct world *world, const struct sim_link *link, const struct bb_msg *msg)
{
    struct sim_client *client = link->client;
    for (size_t i = 0; i < CLIENT_WATCHES_MAX && client->link == link; i++) {
        if (client->watches[i].in_use && client->watches[i].corr == msg->corr) {
            watch_expect(world, &client->watches[i], msg);
            if (client->watches[i].from == WATCH_CURSOR) {
                cursor_expect(world, client, msg);
            }
        }
    }
}

static void check_early(struct world *world, const struct sim_link *link, const struct bb_msg *msg)
{
    struct sim_client *client = link->client;
    for (size_t i = 0; i < CLIENT_WATCHES_MAX && client->link == link; i++) {
        struct watch *watch = &client->watches[i];
        if (watch->in_use && watch->early.is_on && watch->id == msg->sub) {
            early_output(world, watch, msg);
        }
    }
}

static void note_ended(struct world *world, const struct sim_link *link, uint64_t sub)
{
    struct sim_client *client = link->client;
    for (size_t i = 0; i < CLIENT_WATCHES_MAX && client->link == link; i++) {
        if (client->watches[i].in_use && client->watches[i].id == sub) {
            watch_note_end(world, &client->watches[i]);
        }
    }
}

static void check_output(struct world *world, struct sim_link *link, struct bb_slice bytes)
{
    struct bb_msg msg = {0};
    if (bb_msg_decode(bytes, &msg) < 0) {
        world_fail(world, "the core sends a message that cannot be read");
    } else if (msg.type == BB_MSG_DELIVER) {
        check_deliver(world, link, &msg);
    } else if (msg.type == BB_MSG_SUBSCRIBED) {
        check_subscribed(world, link, &msg);
    } else if (msg.type == BB_MSG_ENDED) {
        note_ended(world, link, msg.sub);
    } else if (msg.type == BB_MSG_RESULT) {
        cursor_acked(link->client, msg.corr);
    } else if (msg.type == BB_MSG_ERROR && msg.about == BB_MSG_PUBLISH) {
        if (!bb_slice_equal(msg.code, bb_slice_str("hello_first")) &&
            !bb_slice_equal(msg.code, bb_slice_str("unknown_result"))) {
            client_refused(link->client, msg.corr);
        }
        if (bb_slice_equal(msg.code, bb_slice_str("no_memory"))) {
            world_fail(world, "a batch was refused for want of memory");
        }
    }
    if (msg.type == BB_MSG_SUBSCRIBED || msg.type == BB_MSG_DELIVER || msg.type == BB_MSG_GAP) {
        check_early(world, link, &msg);
    }
    if (msg.type != BB_MSG_PING) {
        link->sent_bytes += bytes.len;
    }
    for (size_t i = 0; i < bytes.len; i++) {
        world->hash = (world->hash ^ bytes.data[i]) * UINT64_C(0x100000001b3);
    }
    if (world->is_talkative) {
        (void)fprintf(stderr,
                      "%10" PRIu64 " to client %" PRIu64 ": type %d sub %" PRIu64 " corr %" PRIu64
                      ", %zu bytes %.*s\n",
                      world->now, link->client->index, (int)msg.type, msg.sub, msg.corr, bytes.len,
                      (int)msg.code.len, msg.code.len > 0 ? (const char *)msg.code.data : "");
    }
}

/* Where the answer begins is decided now or later: not before what is published now. */
static void note_subscribe(struct world *world, const struct sim_link *link, uint64_t corr)
{
    struct sim_client *client = link->client;
    for (size_t i = 0; i < CLIENT_WATCHES_MAX && client->link == link; i++) {
        for (size_t j = 0; j < SIM_CHANNELS && client->watches[i].corr == corr; j++) {
            client->watches[i].channels[j].last_then = ledger_last(&world->ledger, j);
        }
    }
}

void broker_note_input(struct world *world, struct sim_link *link, struct bb_slice bytes)
{
    struct bb_msg msg = {0};
    int r = bb_msg_decode(bytes, &msg);
    if (r == 0 && msg.type == BB_MSG_PONG && msg.token <= link->sent_bytes) {
        link->read_bytes = BB_MAX(link->read_bytes, msg.token);
    }
    if (r == 0 && msg.type == BB_MSG_SUBSCRIBE) {
        note_subscribe(world, link, msg.corr);
    } else if (r == 0 && msg.type == BB_MSG_QUERY) {
        query_note(link->client, msg.corr);
    }
    if (world->is_talkative) {
        (void)fprintf(stderr,
                      "%10" PRIu64 " from client %" PRIu64 ": type %d sub %" PRIu64 " corr %" PRIu64
                      " number %" PRIu64 ", %zu bytes\n",
                      world->now, link->client->index, (int)msg.type, msg.sub, msg.corr, msg.number,
                      bytes.len);
    }
}

void broker_check(struct world *world)
{
    const struct bk_config *config = &world->config;
    size_t alive = atomic_load(&bk_core_meter(world->core)->bytes);
    if (alive > 2 * (config->memory_bytes + config->inflight_all)) {
        world_fail(world, "%zu bytes of events are alive", alive);
    }
}

/* --- sabotage ------------------------------------------------------------------------------------- */

/* The core is told of more credit than the client gave. */
bool broker_forge_credit(struct world *world, struct sim_link *link, struct bb_slice bytes)
{
    struct bb_msg msg = {0};
    struct bb_buf forged = BB_BUF_INIT;
    if (world->sabotage != SABOTAGE_FORGE_CREDIT || world->sabotaged || bb_msg_decode(bytes, &msg) < 0 ||
        msg.type != BB_MSG_CREDIT || link_grant_find(link, msg.sub) == NULL) {
        return false;
    }
    world->sabotaged = true;
    msg.bytes = msg.events = UINT64_MAX / 2;
    bb_msg_encode(&forged, &msg);
    bk_core_message(world->core, link->core, bb_buf_slice(&forged), NULL);
    bb_buf_fini(&forged);
    return true;
}

void broker_repeat(struct world *world, struct sim_link *link, struct bb_slice bytes, struct bk_bytes *owner)
{
    struct bb_msg msg = {0};
    struct bb_event_view event;
    if (bb_msg_decode(bytes, &msg) < 0 || msg.type != BB_MSG_PUBLISH || msg.level > BB_LEVEL_ROUTED ||
        bb_event_read(&msg.body, &event) < 0 || event.error != 0) {
        return;
    }
    world->sabotaged = true;
    bk_core_message(world->core, link->core, event.raw, owner); /* once more, as a bare event */
}

/* Does what @world's sabotage says to a message; false if the message goes its way. */
static bool sabotage(struct world *world, struct sim_link *link, struct link_msg *msg, struct bb_slice bytes)
{
    struct bb_msg head = {0};
    struct link_msg *again = NULL;
    if (world->sabotaged || world->n_steps < 100 || !link->is_open || bb_msg_decode(bytes, &head) < 0) {
        return false;
    }
    bool is_deliver = head.type == BB_MSG_DELIVER;
    uint64_t arrival = world->now + link->latency;
    switch ((int)world->sabotage) {
    case SABOTAGE_DROP_DELIVER:
        world->sabotaged = is_deliver;
        break;
    case SABOTAGE_DROP_GAP:
        world->sabotaged = head.type == BB_MSG_GAP;
        break;
    case SABOTAGE_DROP_ACK:
        world->sabotaged = head.type == BB_MSG_ACK;
        break;
    case SABOTAGE_REPEAT_DELIVER:
    case SABOTAGE_FLIP_BYTE:
        if (!is_deliver) {
            return false;
        }
        world->sabotaged = true;
        struct bb_buf copy = BB_BUF_INIT;
        bb_buf_append(&copy, bytes.data, bytes.len);
        copy.data[copy.len - 1] ^= world->sabotage == SABOTAGE_FLIP_BYTE;
        again = link_msg_new(&(struct bk_part){NULL, copy.data, copy.len}, 1);
        bb_buf_fini(&copy);
        link_queue_push(&link->to_client, again, arrival);
        if (world->sabotage == SABOTAGE_REPEAT_DELIVER) {
            return false;
        }
        break;
    case SABOTAGE_SWAP_DELIVERS:
        if (is_deliver && world->held == NULL) {
            world->held = msg;
            world->held_link = link;
            return true;
        }
        if (is_deliver && world->held_link == link) {
            world->sabotaged = true;
            link_queue_push(&link->to_client, msg, arrival);
            link_queue_push(&link->to_client, world->held, arrival);
            world->held = NULL;
            return true;
        }
        return false;
    default:
        return false;
    }
    if (world->sabotaged) {
        link_msg_free(msg);
    }
    return world->sabotaged;
}

/* --- struct bk_out -------------------------------------------------------------------------------- */

static int out_send(void *context, void *peer, const struct bk_part *parts, size_t n_parts)
{
    struct world *world = context;
    struct sim_link *link = peer;
    if (world->is_dead || link->broken) {
        return BB_ECLOSED;
    }
    if (link->core == NULL) {
        world_fail(world, "the core sends to a client that it has closed");
        return BB_ECLOSED;
    }
    if (n_parts > BK_PARTS_MAX) {
        world_fail(world, "a message of %zu parts", n_parts);
        return 0;
    }
    if (link->to_client.bytes > link->capacity) {
        return BB_EAGAIN;
    }
    struct bb_buf flat = BB_BUF_INIT;
    struct link_msg *msg = link_msg_new(parts, n_parts);
    link_msg_flatten(msg, &flat);
    check_output(world, link, bb_buf_slice(&flat));
    if (!sabotage(world, link, msg, bb_buf_slice(&flat))) {
        link_queue_push(&link->to_client, msg,
                        world->now + link->latency + sim_below(&world->rng, link->latency));
    }
    bb_buf_fini(&flat);
    return 0;
}

static void out_close(void *context, void *peer, bool shut_out)
{
    struct world *world = context;
    struct sim_link *link = peer;
    if (link->core == NULL) {
        world_fail(world, "the core closes a client twice");
    }
    link->core = NULL;
    link->shut_out = shut_out;
}

static void out_pause(void *context, void *peer, bool paused)
{
    struct world *world = context;
    struct sim_link *link = peer;
    if (link->is_paused == paused) {
        world_fail(world, "a client is paused twice, or goes on twice");
    }
    link->is_paused = paused;
}

/* The event [client, serial, filler] names who wrote it. */
static void note_published(struct world *world, const struct bk_window_event *shown)
{
    struct bb_slice rest = shown->raw;
    struct bb_event_view event;
    if (bb_event_read(&rest, &event) < 0 || rest.len != 0) {
        world_fail(world, "a window event that cannot be read");
        return;
    }
    struct bb_mp_reader reader = bb_mp_reader(event.payload);
    (void)bb_mp_read_array(&reader);
    struct ledger_event added = {
        .len = shown->raw.len,
        .path = event.path,
        .session = shown->session,
        .instance = shown->instance,
        .time = shown->time,
        .source = shown->source,
        .client = bb_mp_read_uint(&reader),
        .serial = bb_mp_read_uint(&reader),
    };
    struct bb_buf raw = BB_BUF_INIT;
    bb_buf_append(&raw, shown->raw.data, shown->raw.len);
    added.raw = raw.data;
    added.path.data = raw.data + (event.path.data - shown->raw.data);
    const char *problem = reader.error != 0 || added.client >= world->n_clients
                              ? "an event was published that nobody wrote"
                              : ledger_append(&world->ledger, &added, shown->sequence);
    bb_buf_fini(&raw);
    if (problem != NULL) {
        world_fail(world, "%s", problem);
        return;
    }
    int channel = sim_channel_find(bb_path_channel(event.path));
    client_saw(&world->clients[added.client], added.serial, shown->raw, (size_t)channel);
    world->n_events++;
}

static void out_window(void *context, const struct bk_window_event *shown)
{
    struct world *world = context;
    if (!world->is_dead) {
        note_published(world, shown);
    }
}

/* One event of the disk, against the ledger. */
static void compare_event(struct world *world,
                          const struct disk_block *block,
                          size_t channel,
                          uint64_t i,
                          const struct bb_event_view *event)
{
    const struct ledger_event *truth = ledger_at(&world->ledger, channel, block->head.sequence + i);
    if (truth == NULL) { /* it became durable and nobody was told any more */
        const struct bk_window_event shown = {
            .raw = event->raw,
            .session = block->head.session,
            .instance = block->head.instance + i,
            .time = block->head.time,
            .source = block->head.source,
            .sequence = block->head.sequence + i,
        };
        note_published(world, &shown);
    } else if (truth->len != event->raw.len || memcmp(truth->raw, event->raw.data, truth->len) != 0) {
        world_fail(world, "the disk has another event than was shown");
    }
}

void broker_compare_disk(struct world *world)
{
    const struct sim_disk *disk = &world->disk;
    uint64_t last[SIM_CHANNELS] = {0};
    for (size_t i = 0; i < disk->n_blocks && !world->failed; i++) {
        const struct disk_block *block = &disk->blocks[i];
        int channel = sim_channel_find(disk_channel_name(disk, block->channel));
        struct bb_slice rest = bb_slice(block->events, (size_t)block->head.length);
        struct bb_event_view event;
        if (channel < 0) {
            world_fail(world, "the disk has a channel that no world has");
            return;
        }
        for (uint64_t j = 0; j < block->head.count && bb_event_read(&rest, &event) == 0; j++) {
            compare_event(world, block, (size_t)channel, j, &event);
        }
        last[channel] = block->head.sequence + block->head.count - 1;
    }
    for (size_t i = 0; i < SIM_CHANNELS && !world->failed; i++) {
        if (last[i] < ledger_last(&world->ledger, i)) {
            world_fail(world, "an event was shown that is not on the disk after a crash");
        }
    }
}

void broker_side_init(struct world *world)
{
    world->out.send = out_send;
    world->out.close = out_close;
    world->out.window = out_window;
    world->out.pause = out_pause;
}
