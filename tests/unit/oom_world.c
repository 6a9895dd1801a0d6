/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/oom_world.h"

#include "proto/base/error.h"
#include "proto/wire/mp.h"
#include "proto/wire/path.h"

#include "tests/lib/fault.h"
#include "tests/unit/core_rig.h"

#include <criterion/criterion.h>

/* --- what the core says ------------------------------------------------------------------------------ */

static size_t channel_index(struct world *world, struct bb_slice name)
{
    for (size_t i = 0; i < world->n_channels; i++) {
        if (bb_slice_equal(bb_slice_str(world->channels[i]), name)) {
            return i;
        }
    }
    cr_assert_lt(world->n_channels, (size_t)CHANNELS_MAX);
    memcpy(world->channels[world->n_channels], name.data, name.len);
    return world->n_channels++;
}

static struct watch *watch_find(struct world *world, const struct peer *peer, uint64_t sub)
{
    for (size_t i = 0; i < world->n_watches; i++) {
        if (world->watches[i].peer == peer && world->watches[i].sub == sub) {
            return &world->watches[i];
        }
    }
    return NULL;
}

static bool watch_wants(const struct watch *watch, const char *path)
{
    for (size_t i = 0; i < watch->n_patterns; i++) {
        if (bb_pattern_matches(bb_slice_str(watch->patterns[i]), bb_slice_str(path))) {
            return true;
        }
    }
    return false;
}

/* Events of a channel that @watch wants, from @from to @to. */
static uint64_t
count_wanted(const struct world *world, const struct watch *watch, size_t channel, uint64_t from, uint64_t to)
{
    uint64_t n = 0;
    for (size_t i = 0; i < world->n_events; i++) {
        const struct published *event = &world->events[i];
        n += event->channel == channel && event->sequence >= from && event->sequence <= to &&
             watch_wants(watch, event->path);
    }
    return n;
}

/* What a newer broker has appended to an array of @n_fields of which @n_read are known. */
static void skip_rest(struct bb_mp_reader *reader, uint32_t n_fields, uint32_t n_read)
{
    for (uint32_t i = n_read; i < n_fields; i++) {
        bb_mp_skip(reader);
    }
}

static void take_subscribed(struct world *world, struct peer *peer, const struct bb_msg *msg)
{
    struct watch *watch = watch_find(world, peer, msg->sub);
    struct bb_mp_reader reader = bb_mp_reader(msg->positions);
    cr_assert_not_null(watch);
    watch->is_live = true;
    uint32_t n = bb_mp_read_array(&reader);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t n_fields = bb_mp_read_array(&reader);
        struct progress *progress = &watch->channels[channel_index(world, bb_mp_read_str(&reader))];
        progress->begin = progress->position = bb_mp_read_uint(&reader);
        skip_rest(&reader, n_fields, 2);
    }
    cr_assert_eq(reader.error, 0, "positions of subscribed cannot be read");
}

static void take_gap(struct world *world, struct peer *peer, const struct bb_msg *msg)
{
    struct watch *watch = watch_find(world, peer, msg->sub);
    struct bb_mp_reader reader = bb_mp_reader(msg->gaps);
    cr_assert_not_null(watch);
    uint32_t n = bb_mp_read_array(&reader);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t n_fields = bb_mp_read_array(&reader);
        size_t channel = channel_index(world, bb_mp_read_str(&reader));
        struct progress *progress = &watch->channels[channel];
        uint64_t from = bb_mp_read_uint(&reader);
        if (bb_mp_peek_type(&reader) == BB_MP_NIL) { /* restart: all that is in memory follows */
            progress->is_over =
                world->log != NULL && from == progress->position + 1; /* not void from the start */
            skip_rest(&reader, n_fields, 2);
            continue;
        }
        uint64_t to = bb_mp_read_uint(&reader);
        bool is_counted = bb_mp_peek_type(&reader) == BB_MP_UINT;
        uint64_t count = is_counted ? bb_mp_read_uint(&reader) : 0;
        if (!is_counted) {
            bb_mp_skip(&reader);
            count = count_wanted(world, watch, channel, from, to);
        }
        skip_rest(&reader, n_fields, 4);
        if (watch->is_early) {
            continue;
        }
        cr_assert_eq(from, progress->position + 1, "a gap leaves a hole before it");
        cr_assert_geq(to, progress->position);
        progress->position = to;
        progress->lost += count;
    }
    cr_assert_eq(reader.error, 0, "a gap cannot be read");
}

static void take_ranges(struct world *world, struct watch *watch, struct bb_slice ranges)
{
    struct bb_mp_reader reader = bb_mp_reader(ranges);
    uint32_t n = bb_mp_read_array(&reader);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t n_fields = bb_mp_read_array(&reader);
        struct progress *progress = &watch->channels[channel_index(world, bb_mp_read_str(&reader))];
        uint64_t from = bb_mp_read_uint(&reader);
        uint64_t to = bb_mp_read_uint(&reader);
        skip_rest(&reader, n_fields, 3);
        cr_assert(from == progress->position || watch->is_early, "a range leaves a hole before it");
        progress->position = to;
    }
    cr_assert_eq(reader.error, 0, "ranges cannot be read");
}

static void take_deliver(struct world *world, struct peer *peer, const struct bb_msg *msg)
{
    struct watch *watch = watch_find(world, peer, msg->sub);
    struct bb_slice rest = msg->body;
    struct bb_block block;
    cr_assert_not_null(watch);
    cr_assert(watch->is_live, "a delivery before subscribed");
    if (msg->gaps.len > 0) {
        take_gap(world, peer, msg);
    }
    take_ranges(world, watch, msg->ranges);
    while (rest.len > 0 && msg->retained == 0) {
        cr_assert_eq(bb_block_read(&rest, &block), 0);
        struct bb_slice events = bb_slice(rest.data, block.length);
        rest = bb_slice(rest.data + block.length, rest.len - block.length);
        while (events.len > 0) {
            struct bb_event_view event;
            char path[64] = "";
            cr_assert_eq(bb_event_read(&events, &event), 0);
            memcpy(path, event.path.data, event.path.len);
            cr_assert(watch_wants(watch, path), "%s was not asked for", path);
            watch->channels[channel_index(world, bb_path_channel(event.path))].delivered++;
        }
    }
}

static struct batch *batch_find(struct world *world, uint64_t number)
{
    for (size_t i = 0; i < world->n_batches; i++) {
        if (world->batches[i].number == number) {
            return &world->batches[i];
        }
    }
    return NULL;
}

static void take_ack(struct world *world, const struct bb_msg *msg)
{
    struct bb_mp_reader reader = bb_mp_reader(msg->entries);
    uint32_t n = bb_mp_read_array(&reader);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t n_fields = bb_mp_read_array(&reader);
        struct batch *batch = batch_find(world, bb_mp_read_uint(&reader));
        cr_assert_not_null(batch);
        bb_mp_skip(&reader);
        bb_mp_skip(&reader);
        batch->fate = FATE_ACKED;
        batch->n_taken = UINT64_MAX;
        if (bb_mp_peek_type(&reader) == BB_MP_ARRAY) {
            batch->n_taken = 0;
            uint32_t n_positions = bb_mp_read_array(&reader);
            for (uint32_t k = 0; k < n_positions; k++) {
                (void)bb_mp_read_array(&reader);
                bb_mp_skip(&reader);
                bb_mp_skip(&reader);
                batch->n_taken += bb_mp_read_uint(&reader);
            }
        } else {
            bb_mp_skip(&reader);
        }
        for (uint32_t k = 4; k < n_fields; k++) {
            bb_mp_skip(&reader);
        }
    }
    cr_assert_eq(reader.error, 0, "an ack cannot be read");
}

static void take_answer(struct peer *peer, uint64_t corr)
{
    for (size_t i = 0; i < REQUESTS_MAX; i++) {
        if (corr != 0 && peer->requests[i] == corr) {
            peer->requests[i] = 0;
            return;
        }
    }
}

static void take_error(struct world *world, struct peer *peer, const struct bb_msg *msg)
{
    struct bb_mp_reader reader = bb_mp_reader(msg->detail);
    bb_mp_skip(&reader);
    cr_assert(msg->detail.len == 0 || (reader.error == 0 && reader.p == reader.end));
    if (msg->about == BB_MSG_PUBLISH) {
        struct batch *batch = batch_find(world, msg->corr);
        if (batch != NULL && batch->fate == FATE_UNKNOWN) {
            bool is_unknown = bb_slice_equal(msg->code, bb_slice_str("unknown_result"));
            batch->fate = is_unknown ? FATE_PARTIAL : FATE_REFUSED;
        }
    } else {
        take_answer(peer, msg->corr);
    }
}

static void take(struct world *world, struct peer *peer, struct bb_slice bytes)
{
    struct bb_msg msg = {0};
    cr_assert_eq(bb_msg_decode(bytes, &msg), 0, "the core sends what cannot be read");
    cr_assert_not(peer->said_goodbye && msg.type != BB_MSG_GOODBYE, "type %d after goodbye", (int)msg.type);
    peer->sent_bytes += msg.type != BB_MSG_PING ? bytes.len : 0;
    switch ((int)msg.type) {
    case BB_MSG_WELCOME:
        peer->is_ready = true;
        take_answer(peer, msg.corr);
        break;
    case BB_MSG_SUBSCRIBED:
        take_subscribed(world, peer, &msg);
        take_answer(peer, msg.corr);
        break;
    case BB_MSG_RESULT:
    case BB_MSG_EVENTS:
        take_answer(peer, msg.corr);
        break;
    case BB_MSG_DELIVER:
        take_deliver(world, peer, &msg);
        break;
    case BB_MSG_GAP:
        take_gap(world, peer, &msg);
        break;
    case BB_MSG_ACK:
        take_ack(world, &msg);
        break;
    case BB_MSG_ERROR:
        take_error(world, peer, &msg);
        break;
    case BB_MSG_ENDED:
        watch_find(world, peer, msg.sub)->is_live = false;
        break;
    case BB_MSG_GOODBYE:
        peer->said_goodbye = true;
        break;
    default:
        break;
    }
}

/* --- struct bk_out -------------------------------------------------------------------------------- */

static int out_send(void *context, void *to, const struct bk_part *parts, size_t n_parts)
{
    struct world *world = context;
    struct peer *peer = to;
    bool was_inside = fault_leave();
    struct bb_buf flat = BB_BUF_INIT;
    cr_assert(peer->is_open, "the core sends to a peer that it closed");
    for (size_t i = 0; i < n_parts; i++) {
        bb_buf_append(&flat, parts[i].data, parts[i].len);
    }
    take(world, peer, bb_buf_slice(&flat));
    bb_buf_fini(&flat);
    if (was_inside) {
        fault_enter();
    }
    return 0;
}

static void out_close(void *context, void *to, bool shut_out)
{
    struct peer *peer = to;
    (void)context;
    (void)shut_out;
    cr_assert(peer->is_open, "the core closes a peer twice");
    peer->is_open = false;
    peer->client = NULL;
}

static bool is_noted(const struct world *world, size_t channel, uint64_t sequence)
{
    for (size_t i = 0; i < world->n_events; i++) {
        if (world->events[i].channel == channel && world->events[i].sequence == sequence) {
            return true;
        }
    }
    return false;
}

void world_note_event(struct world *world, struct bb_slice raw, uint64_t sequence)
{
    struct bb_event_view view;
    cr_assert_eq(bb_event_read(&raw, &view), 0);
    size_t channel = channel_index(world, bb_path_channel(view.path));
    if (is_noted(world, channel, sequence)) {
        return; /* by the log, before the window */
    }
    cr_assert_lt(world->n_events, (size_t)EVENTS_MAX);
    struct published *event = &world->events[world->n_events++];
    struct bb_mp_reader reader = bb_mp_reader(view.payload);
    (void)bb_mp_read_array(&reader);
    memset(event, 0, sizeof(*event));
    memcpy(event->path, view.path.data, view.path.len);
    event->channel = channel;
    event->sequence = sequence;
    event->serial = bb_mp_read_uint(&reader);
}

static void out_window(void *context, const struct bk_window_event *shown)
{
    world_note_event(context, shown->raw, shown->sequence);
}

/* --- what is said to the core ---------------------------------------------------------------------- */

bool world_open(struct world *world, bool has_log)
{
    struct bk_config config = BK_CONFIG_INIT;
    memset(world, 0, sizeof(*world));
    config.ring_bytes = (size_t)24 << 10;
    config.run = 7;
    config.check = BK_CHECK_ALWAYS;
    world->out = (struct bk_out){
        .context = world,
        .send = out_send,
        .close = out_close,
        .window = out_window,
        .window_is_open = &world->window_is_open,
    };
    world->window_is_open = true;
    world->now = 1000000;
    fault_enter();
    int r = bk_core_new(&config, &world->out, &world->core);
    (void)fault_leave();
    if (r == 0) {
        bk_core_set_time(world->core, world->now, world->now);
    }
    if (r == 0 && has_log) {
        world_open_stores(world);
    }
    return r == 0;
}

void world_close(struct world *world)
{
    for (size_t i = 0; i < world->n_peers; i++) {
        world->peers[i].left = true;
    }
    if (world->log != NULL) {
        rig_log_crash(world->log);
        world->memory->ops->close(world->memory);
    }
    bk_core_free(world->core);
    if (world->log != NULL) {
        rig_log_free(world->log);
    }
    for (size_t i = 0; i < world->n_batches; i++) {
        bb_buf_fini(&world->batches[i].bytes);
    }
}

static void
enter_message(struct world *world, struct peer *peer, struct bb_slice bytes, struct bk_bytes *owner)
{
    if (peer != NULL && peer->is_open) {
        fault_enter();
        bk_core_message(world->core, peer->client, bytes, owner);
        (void)fault_leave();
    }
    for (size_t i = 0; i < world->n_peers; i++) {
        cr_assert_not(world->peers[i].is_open && world->peers[i].said_goodbye, "it went and is still there");
    }
}

void world_say(struct world *world, struct peer *peer, struct bb_msg *msg, bool wants_answer)
{
    struct bb_buf bytes = BB_BUF_INIT;
    if (peer == NULL || !peer->is_open) {
        return;
    }
    msg->corr = ++world->corr;
    for (size_t i = 0; i < REQUESTS_MAX && wants_answer; i++) {
        if (peer->requests[i] == 0) {
            peer->requests[i] = msg->corr;
            break;
        }
    }
    bb_msg_encode(&bytes, msg);
    enter_message(world, peer, bb_buf_slice(&bytes), NULL);
    bb_buf_fini(&bytes);
}

struct peer *world_peer(struct world *world, const char *secret)
{
    cr_assert_lt(world->n_peers, (size_t)PEERS_MAX);
    struct peer *peer = &world->peers[world->n_peers++];
    *peer = (struct peer){.world = world, .is_open = true};
    fault_enter();
    peer->client = bk_core_client_add(world->core, peer);
    (void)fault_leave();
    if (peer->client == NULL) {
        peer->is_open = false;
        peer->left = true;
        return NULL;
    }
    struct bb_msg hello = {.type = BB_MSG_HELLO, .version = BB_PROTOCOL_VERSION, .epoch = 1};
    if (secret != NULL) {
        hello.client = bb_slice(secret, BB_CLIENT_ID_LEN);
    }
    world_say(world, peer, &hello, true);
    return peer;
}

struct watch *world_watch_with(struct world *world,
                               struct peer *peer,
                               const char *const *patterns,
                               size_t n_patterns,
                               struct bb_slice from,
                               struct bb_slice options)
{
    struct bb_buf list = BB_BUF_INIT;
    if (peer == NULL) {
        return NULL;
    }
    cr_assert_lt(world->n_watches, (size_t)WATCHES_MAX);
    struct watch *watch = &world->watches[world->n_watches++];
    *watch =
        (struct watch){.peer = peer, .sub = world->n_watches, .patterns = patterns, .n_patterns = n_patterns};
    bb_mp_write_array(&list, (uint32_t)n_patterns);
    for (size_t i = 0; i < n_patterns; i++) {
        bb_mp_write_str(&list, bb_slice_str(patterns[i]));
    }
    struct bb_msg msg = {.type = BB_MSG_SUBSCRIBE,
                         .sub = watch->sub,
                         .patterns = bb_buf_slice(&list),
                         .from = from,
                         .options = options};
    world_say(world, peer, &msg, true);
    bb_buf_fini(&list);
    return watch;
}

void world_watch(struct world *world,
                 struct peer *peer,
                 const char *const *patterns,
                 size_t n_patterns,
                 struct bb_slice from,
                 const char *overflow,
                 uint64_t events)
{
    struct bb_buf options = BB_BUF_INIT;
    bb_mp_write_map(&options, 3);
    bb_mp_write_str(&options, bb_slice_str("overflow"));
    bb_mp_write_str(&options, bb_slice_str(overflow));
    bb_mp_write_str(&options, bb_slice_str("budget"));
    bb_mp_write_uint(&options, 2000);
    bb_mp_write_str(&options, bb_slice_str("events"));
    bb_mp_write_uint(&options, events);
    (void)world_watch_with(world, peer, patterns, n_patterns, from, bb_buf_slice(&options));
    bb_buf_fini(&options);
}

void world_unwatch(struct world *world, struct peer *peer)
{
    for (size_t i = world->n_watches; peer != NULL && i > 0; i--) {
        struct watch *watch = &world->watches[i - 1];
        if (watch->peer == peer && watch->is_live) {
            world_say(world, peer, &(struct bb_msg){.type = BB_MSG_UNSUBSCRIBE, .sub = watch->sub}, true);
            watch->is_live = false;
            return;
        }
    }
}

void world_credit(struct world *world)
{
    for (size_t i = 0; i < world->n_watches; i++) {
        const struct watch *watch = &world->watches[i];
        if (watch->is_live && watch->peer->is_open) {
            world_say(
                world, watch->peer,
                &(struct bb_msg){
                    .type = BB_MSG_CREDIT, .sub = watch->sub, .bytes = UINT32_MAX, .events = UINT32_MAX},
                false);
        }
    }
}

/* Publish the bytes of a message; in bytes that the core may keep if @by_owner. */
static void enter_publish(struct world *world, struct peer *peer, struct bb_slice bytes, bool by_owner)
{
    struct bk_bytes *owner = by_owner ? bk_bytes_new(bk_core_meter(world->core), bytes.len) : NULL;
    if (owner != NULL) {
        memcpy(owner->data, bytes.data, bytes.len);
        owner->len = bytes.len;
        bytes.data = owner->data;
    }
    enter_message(world, peer, bytes, owner);
    bk_bytes_unref(owner);
}

static void write_event(struct world *world, struct bb_buf *out, const char *path, size_t filler)
{
    static const uint8_t zeros[16384];
    struct bb_buf payload = BB_BUF_INIT;
    bb_mp_write_array(&payload, 2);
    bb_mp_write_uint(&payload, ++world->serial);
    bb_mp_write_bin(&payload, bb_slice(zeros, filler));
    bb_event_write(out, bb_slice_str(path), bb_buf_slice(&payload), NULL);
    bb_buf_fini(&payload);
}

void world_publish(struct world *world,
                   struct peer *peer,
                   const char *const *paths,
                   size_t n_paths,
                   size_t filler,
                   bool by_owner,
                   bool numbered,
                   bool has_bad)
{
    if (peer == NULL || !peer->is_open || !peer->is_ready) {
        return;
    }
    cr_assert_lt(world->n_batches, (size_t)BATCHES_MAX);
    struct batch *batch = &world->batches[world->n_batches++];
    *batch = (struct batch){
        .number = numbered ? ++world->number : 0, .first_serial = world->serial + 1, .n_events = n_paths};
    struct bb_msg msg = {.type = BB_MSG_PUBLISH,
                         .number = batch->number,
                         .level = world->log != NULL ? BB_LEVEL_NONE : BB_LEVEL_ROUTED};
    bb_msg_encode(&batch->bytes, &msg);
    for (size_t i = 0; i < n_paths; i++) {
        write_event(world, &batch->bytes, paths[i], filler);
    }
    if (has_bad) {
        write_event(world, &batch->bytes, "plant/?", 1);
    }
    enter_publish(world, peer, bb_buf_slice(&batch->bytes), by_owner);
}

void world_publish_if(struct world *world, struct peer *peer, const char *path, uint64_t sequence)
{
    struct bb_buf options = BB_BUF_INIT;
    if (peer == NULL || !peer->is_open || !peer->is_ready) {
        return;
    }
    cr_assert_lt(world->n_batches, (size_t)BATCHES_MAX);
    struct batch *batch = &world->batches[world->n_batches++];
    *batch = (struct batch){.number = ++world->number, .first_serial = world->serial + 1, .n_events = 1};
    bb_mp_write_map(&options, 1);
    bb_mp_write_str(&options, bb_slice_str("expect_path"));
    bb_mp_write_map(&options, 1);
    bb_mp_write_str(&options, bb_slice_str(path));
    bb_mp_write_uint(&options, sequence);
    bb_msg_encode(&batch->bytes, &(struct bb_msg){.type = BB_MSG_PUBLISH,
                                                  .number = batch->number,
                                                  .level = BB_LEVEL_ACCEPTED,
                                                  .options = bb_buf_slice(&options)});
    write_event(world, &batch->bytes, path, 10);
    enter_publish(world, peer, bb_buf_slice(&batch->bytes), false);
    bb_buf_fini(&options);
}

void world_repeat(struct world *world, struct peer *peer)
{
    for (size_t i = 0; i < world->n_batches; i++) {
        if (world->batches[i].fate == FATE_UNKNOWN && world->batches[i].number != 0) {
            enter_publish(world, peer, bb_buf_slice(&world->batches[i].bytes), true);
            world_flush(world);
        }
    }
}

void world_ingest(struct world *world, const char *path)
{
    struct bb_buf bytes = BB_BUF_INIT;
    write_event(world, &bytes, path, 1);
    fault_enter();
    int r = bk_core_ingest(world->core, bb_buf_slice(&bytes), NULL);
    (void)fault_leave();
    cr_assert(r == 0 || r == BB_ENOMEM);
    bb_buf_fini(&bytes);
}

void world_leave(struct world *world, struct peer *peer)
{
    if (peer != NULL && peer->is_open) {
        peer->left = true;
        peer->is_open = false;
        fault_enter();
        bk_core_client_gone(world->core, peer->client);
        (void)fault_leave();
    }
}

void world_flush(struct world *world)
{
    if (world->log != NULL) {
        (void)rig_log_commit(world->log);
        for (int i = 0; i < 4 && rig_log_answer(world->log); i++) {
        }
        fault_enter();
        world->memory->ops->dispatch(world->memory);
        (void)fault_leave();
    }
    fault_enter();
    bk_core_flush(world->core);
    (void)fault_leave();
}

void world_tick(struct world *world, uint64_t us)
{
    world->now += us;
    bk_core_set_time(world->core, world->now, world->now);
    fault_enter();
    (void)bk_core_tick(world->core);
    (void)fault_leave();
}

static bool log_has_work(const struct rig_log *log)
{
    return log != NULL && (log->queue != NULL || log->requests != NULL);
}

void world_drain(struct world *world)
{
    for (size_t i = 0; bk_core_wants_flush(world->core) || log_has_work(world->log); i++) {
        cr_assert_lt(i, (size_t)1000, "there is no end to it");
        world_flush(world);
        for (size_t k = 0; k < world->n_peers; k++) {
            struct peer *peer = &world->peers[k];
            world_say(world, peer, &(struct bb_msg){.type = BB_MSG_PONG, .token = peer->sent_bytes}, false);
        }
    }
}

/* --- what must be so at the end -------------------------------------------------------------------- */

static void check_watch(const struct world *world, const struct watch *watch)
{
    for (size_t i = 0; i < world->n_channels && !watch->is_early; i++) {
        const struct progress *progress = &watch->channels[i];
        if (progress->is_over) {
            continue;
        }
        uint64_t wanted = count_wanted(world, watch, i, progress->begin + 1, UINT64_MAX);
        cr_assert_eq(progress->delivered + progress->lost, wanted,
                     "subscription %llu, channel %s: %llu delivered + %llu lost, %llu published",
                     (unsigned long long)watch->sub, world->channels[i],
                     (unsigned long long)progress->delivered, (unsigned long long)progress->lost,
                     (unsigned long long)wanted);
    }
}

static void check_batch(const struct world *world, const struct batch *batch, bool is_strict)
{
    uint64_t n_kept = 0;
    for (size_t i = 0; i < world->n_events; i++) {
        uint64_t serial = world->events[i].serial;
        n_kept += serial >= batch->first_serial && serial < batch->first_serial + batch->n_events;
    }
    cr_assert_leq(n_kept, batch->n_events, "published twice");
    if (batch->number == 0) {
        return;
    }
    cr_assert_neq(batch->fate, FATE_UNKNOWN, "batch %llu was never answered",
                  (unsigned long long)batch->number);
    if (batch->fate == FATE_REFUSED) {
        cr_assert_eq(n_kept, 0, "batch %llu was refused and published", (unsigned long long)batch->number);
    } else if (batch->fate == FATE_PARTIAL) {
        return; /* some of it, and nobody knows any more which */
    } else if (batch->n_taken != UINT64_MAX) {
        cr_assert_eq(n_kept, batch->n_taken);
    } else if (is_strict) {
        cr_assert_eq(n_kept, batch->n_events, "batch %llu was acknowledged and is not there",
                     (unsigned long long)batch->number);
    }
}

void world_check(struct world *world, bool is_strict)
{
    for (size_t i = 0; i < world->n_peers; i++) {
        const struct peer *peer = &world->peers[i];
        cr_assert(peer->is_open || peer->left || peer->said_goodbye, "peer %zu was closed without a word", i);
        for (size_t k = 0; k < REQUESTS_MAX && peer->is_open; k++) {
            cr_assert_eq(peer->requests[k], 0, "peer %zu waits for an answer", i);
        }
    }
    for (size_t i = 0; i < world->n_watches; i++) {
        if (world->watches[i].is_live && world->watches[i].peer->is_open) {
            check_watch(world, &world->watches[i]);
        }
    }
    for (size_t i = 0; i < world->n_batches; i++) {
        check_batch(world, &world->batches[i], is_strict);
    }
}
