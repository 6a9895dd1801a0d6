/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes as a script: a few clients and windows talk to the real core through the real edge, and a log that may fail is behind
 * it. The core is small enough for its limits to be met. Whatever it sends must be a message whose blocks hold good events,
 * also as JSON, and what it keeps stays bounded.
 *
 *     script = byte: bit 0: there is room for messages that are kept by reference; bit 1: there is a log; then steps
 *     step = byte: what (low 3 bits), which client (next 2), how (the rest), then what the step takes
 */
#include "proto/base/error.h"
#include "proto/json/event_json.h"
#include "proto/json/json_text.h"
#include "proto/wire/event.h"
#include "proto/wire/message.h"

#include "broker/backend/registry.h"
#include "broker/core/backend.h"
#include "broker/core/core.h"
#include "broker/plug/edge.h"
#include "broker/plug/ingest.h"
#include "tests/check.h"
#include "tests/fuzz/flaky.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum step {
    STEP_MESSAGE,       /* u16 length, bytes: copied by the core */
    STEP_MESSAGE_OWNED, /* the same in shared bytes */
    STEP_FLUSH,         /* and how: see enum how */
    STEP_TICK,          /* u8: tenths of a second go by */
    STEP_GONE,
    STEP_BLOCK,  /* the client takes no more, or again */
    STEP_INGEST, /* as STEP_MESSAGE; how 1: two such, of a pair */
    STEP_DEAF,   /* the transport finds out that the client is gone when it sends */
};

/* What STEP_FLUSH does. */
enum how {
    HOW_FLUSH,
    HOW_WRITE_ONE, /* a ticket of the log */
    HOW_WRITE_ALL,
    HOW_FAIL,
    HOW_KEEP_ONE_AND_BREAK,
    HOW_IS_FULL,
    HOW_FAIL_REQUESTS,
    HOW_MEND,
};

#define CLIENTS 4

/* What the rings may keep alive: their bytes, in chunks of which two may be partly used, and the heads of blocks. */
#define METER_MAX ((size_t)512 << 10)

struct peer {
    struct bk_client *client;
    struct bk_edge edge;
    bool is_blocked;
    bool is_deaf;
};

struct world {
    struct bk_core *core;
    struct bk_plug_context context;
    struct bk_edge_scratch scratch; /* one for all, as doors have it */
    struct bb_buf shown;
    struct bk_backend *backends[BK_STORES];
    struct peer peers[CLIENTS];
    struct bb_slice script;
    uint64_t now;
};

static void check_events(struct bb_slice rest, uint64_t count)
{
    struct bb_event_view event;
    for (uint64_t i = 0; i < count; i++) {
        CHECK(bb_event_read(&rest, &event) == 0);
        CHECK(event.error == 0);
    }
    CHECK(rest.len == 0);
}

static void check_blocks(struct bb_slice rest)
{
    while (rest.len > 0) {
        struct bb_block block;
        CHECK(bb_block_read(&rest, &block) == 0);
        CHECK(block.count > 0);
        check_events(bb_slice(rest.data, block.length), block.count);
        rest = bb_slice(rest.data + block.length, rest.len - block.length);
    }
}

static void check_json(struct bb_slice text)
{
    json_t *value = NULL;
    CHECK(bb_json_parse((const char *)text.data, text.len, NULL, &value) == 0);
    json_decref(value);
}

static int on_send(void *context, void *peer_of, const struct bk_part *parts, size_t n_parts)
{
    struct world *world = context;
    struct peer *peer = peer_of;
    struct bb_buf bytes = BB_BUF_INIT;
    struct bb_msg msg = {0};
    struct bb_slice text = {0};
    CHECK(n_parts > 0 && n_parts <= BK_PARTS_MAX);
    for (size_t i = 0; i < n_parts; i++) {
        const struct bk_bytes *owner = parts[i].owner;
        CHECK(owner == NULL ||
              (parts[i].data >= owner->data && parts[i].data + parts[i].len <= owner->data + owner->size));
        bb_buf_append(&bytes, parts[i].data, parts[i].len);
    }
    CHECK(bb_msg_decode(bb_buf_slice(&bytes), &msg) == 0);
    if (msg.type == BB_MSG_DELIVER || msg.type == BB_MSG_EVENTS) {
        check_blocks(msg.body);
    } else {
        CHECK(msg.body.len == 0);
    }
    bb_buf_fini(&bytes);
    if (peer->edge.json) {
        CHECK(bk_edge_to_json(&world->context, &peer->edge, &world->scratch, parts, n_parts, &text) == 0);
        check_json(text);
    }
    if (peer->is_deaf) {
        return BB_ECLOSED;
    }
    return peer->is_blocked ? BB_EAGAIN : 0;
}

static void on_close(void *context, void *peer_of, bool shut_out)
{
    struct peer *peer = peer_of;
    (void)context;
    (void)shut_out;
    CHECK(peer->client != NULL);
    bk_edge_fini(&peer->edge);
    *peer = (struct peer){0};
}

static void on_window(void *context, const struct bk_window_event *event)
{
    struct world *world = context;
    struct bb_slice rest = event->raw;
    struct bb_event_view view;
    struct bb_event_meta meta = {event->server,   event->session, event->instance,
                                 event->sequence, event->time,    event->source};
    CHECK(bb_event_read(&rest, &view) == 0 && view.error == 0 && rest.len == 0);
    bb_buf_reset(&world->shown);
    CHECK(bb_event_map_write(&world->shown, &meta, &view) == 0);
    bb_buf_reset(&world->shown);
    CHECK(bb_event_json_write(&world->shown, &meta, &view, BB_SHAPE_EVENT) == 0);
    check_json(bb_buf_slice(&world->shown));
}

static uint8_t take_byte(struct world *world)
{
    if (world->script.len == 0) {
        return 0;
    }
    uint8_t byte = world->script.data[0];
    world->script = bb_slice(world->script.data + 1, world->script.len - 1);
    return byte;
}

static struct bb_slice take_bytes(struct world *world)
{
    size_t len = take_byte(world);
    len |= (size_t)take_byte(world) << 8;
    len = BB_MIN(len, world->script.len);
    struct bb_slice bytes = bb_slice(world->script.data, len);
    world->script = bb_slice(bytes.data + len, world->script.len - len);
    return bytes;
}

static struct bk_bytes *own(struct world *world, struct bb_slice bytes)
{
    struct bk_bytes *owner = bk_bytes_new(bk_core_meter(world->core), bytes.len + 1);
    CHECK(owner != NULL);
    if (bytes.len > 0) {
        memcpy(owner->data, bytes.data, bytes.len);
    }
    owner->len = bytes.len;
    return owner;
}

static void step_message(struct world *world, struct peer *peer, bool is_owned)
{
    struct bb_slice bytes = take_bytes(world);
    struct bk_bytes *owner = is_owned ? own(world, bytes) : NULL;
    if (peer->client == NULL) {
        peer->client = bk_core_client_add(world->core, peer);
    }
    if (peer->client != NULL) {
        bytes = is_owned ? bb_slice(owner->data, bytes.len) : bytes;
        bk_edge_take(&world->context, &peer->edge, peer->client, bytes, owner);
    }
    bk_bytes_unref(owner);
}

static void step_ingest(struct world *world, unsigned how)
{
    struct bb_slice bytes = take_bytes(world);
    int r = how == 1 ? bk_ingest_pair(world->core, bytes, take_bytes(world))
                     : bk_ingest_frame(world->core, bytes, NULL);
    if (r < 0) {
        bk_core_ingest_refused(world->core, r);
    }
}

static void step_gone(struct world *world, struct peer *peer)
{
    if (peer->client != NULL) {
        bk_core_client_gone(world->core, peer->client);
        bk_edge_fini(&peer->edge);
        *peer = (struct peer){0};
    }
}

static void step_tick(struct world *world)
{
    world->now += take_byte(world) * UINT64_C(100000);
    bk_core_set_time(world->core, world->now, world->now);
    (void)bk_core_tick(world->core);
}

static void step_log(struct bk_backend *log, enum how how)
{
    switch (how) {
    case HOW_FLUSH:
        break;
    case HOW_WRITE_ONE:
        flaky_write(log, 1);
        break;
    case HOW_WRITE_ALL:
        flaky_write(log, SIZE_MAX);
        break;
    case HOW_FAIL:
        flaky_fail(log, 0, false);
        break;
    case HOW_KEEP_ONE_AND_BREAK:
        flaky_fail(log, 1, true);
        break;
    case HOW_IS_FULL:
        flaky_state(log, BK_BACKEND_FULL);
        break;
    case HOW_FAIL_REQUESTS:
        flaky_fail_requests(log, 3);
        break;
    case HOW_MEND:
        flaky_state(log, BK_BACKEND_OK);
        break;
    }
}

static void step_flush(struct world *world, enum how how)
{
    for (size_t i = 0; i < BK_STORES; i++) {
        if (world->backends[i] != NULL) {
            world->backends[i]->ops->dispatch(world->backends[i]);
        }
    }
    if (world->backends[BK_STORE_LOG] != NULL) {
        step_log(world->backends[BK_STORE_LOG], how);
    }
    bk_core_flush(world->core);
}

static void step(struct world *world)
{
    uint8_t byte = take_byte(world);
    struct peer *peer = &world->peers[byte >> 3 & (CLIENTS - 1)];
    switch ((enum step)(byte & 7)) {
    case STEP_MESSAGE:
    case STEP_MESSAGE_OWNED:
        step_message(world, peer, (byte & 7) == STEP_MESSAGE_OWNED);
        break;
    case STEP_FLUSH:
        step_flush(world, (enum how)(byte >> 5));
        break;
    case STEP_TICK:
        step_tick(world);
        break;
    case STEP_GONE:
        step_gone(world, peer);
        break;
    case STEP_BLOCK:
        peer->is_blocked = peer->client != NULL && !peer->is_blocked;
        break;
    case STEP_INGEST:
        step_ingest(world, byte >> 5);
        break;
    case STEP_DEAF:
        peer->is_deaf = peer->client != NULL;
        break;
    }
}

/* What must hold at the end: nothing is left to do, and all memory of messages comes back. */
static void finish(struct world *world)
{
    step_flush(world, HOW_MEND);
    for (size_t i = 0; i < 4 || (i < 1000 && bk_core_wants_flush(world->core)); i++) {
        step_flush(world, HOW_WRITE_ALL);
    }
    CHECK(!bk_core_wants_flush(world->core));
    bk_core_shut_down(world->core);
    (void)bk_core_is_drained(world->core);
    bk_core_say_goodbye(world->core);
    for (size_t i = 0; i < CLIENTS; i++) {
        CHECK(world->peers[i].client == NULL);
    }
    CHECK(atomic_load(&bk_core_meter(world->core)->bytes) <= METER_MAX);
    for (size_t i = 0; i < BK_STORES; i++) {
        if (world->backends[i] != NULL) {
            world->backends[i]->ops->close(world->backends[i]);
        }
    }
    bk_core_free(world->core);
    bk_edge_scratch_fini(&world->scratch);
    bb_buf_fini(&world->shown);
}

static void open_log(struct world *world)
{
    static const char *const options[] = {"channel-size=8K", "total-size=16K"};
    struct bb_buf err = BB_BUF_INIT;
    struct bk_meter *meter = bk_core_meter(world->core);
    struct bk_backend_env env = {
        .server = 1, .listener = bk_core_listener(world->core, BK_STORE_MEMORY), .meter = meter};
    CHECK(bk_backend_open("memory", options, BB_COUNT(options), &env, &world->backends[BK_STORE_MEMORY],
                          &err) == 0);
    world->backends[BK_STORE_LOG] = flaky_open(bk_core_listener(world->core, BK_STORE_LOG), meter);
    for (enum bk_store store = 0; store < BK_STORES; store++) {
        CHECK(bk_core_set_backend(world->core, store, world->backends[store]) == 0);
    }
    bb_buf_fini(&err);
}

static struct bk_config small_config(bool is_roomy)
{
    struct bk_config config = BK_CONFIG_INIT;
    config.check = BK_CHECK_ALWAYS;
    config.ring_bytes = is_roomy ? 24576 : 1024;
    config.memory_bytes = is_roomy ? 32768 : 4096;
    config.inflight_bytes = 2048;
    config.inflight_all = 4096;
    config.max_message = is_roomy ? 16384 : 4096;
    config.max_channels = 4;
    config.max_clients = CLIENTS - 1;
    config.max_patterns = 8;
    config.max_patterns_all = 16;
    config.stage_bytes = 4096;
    return config;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world world = {.script = bb_slice(data, size), .now = 1000000};
    bool window_is_open = true;
    struct bk_out out = {
        .context = &world,
        .send = on_send,
        .close = on_close,
        .window = on_window,
        .window_is_open = &window_is_open,
    };
    uint8_t kind = take_byte(&world);
    struct bk_config config = small_config((kind & 1) != 0);
    CHECK(bk_core_new(&config, &out, &world.core) == 0);
    world.context = (struct bk_plug_context){
        .core = world.core, .max_message = config.max_message, .server = config.server};
    bk_core_set_time(world.core, world.now, world.now);
    if ((kind & 2) != 0) {
        open_log(&world);
    }
    while (world.script.len > 0) {
        step(&world);
    }
    finish(&world);
    return 0;
}
