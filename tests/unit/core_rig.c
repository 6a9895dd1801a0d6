/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/core_rig.h"

#include "proto/json/message_json.h"
#include "proto/wire/event.h"
#include "proto/wire/mp.h"
#include "proto/wire/path.h"

#include "broker/backend/registry.h"
#include "broker/core/clients/client.h"
#include "broker/core/keep/channel.h"
#include "broker/core/subs/sub.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* --- what a peer is told, in words ------------------------------------------------------------------------ */

static void tell(struct rig_peer *peer, const char *format, ...) BB_PRINTF(2, 3);

static void tell(struct rig_peer *peer, const char *format, ...)
{
    size_t len = strlen(peer->story);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(peer->story + len, RIG_STORY - len, format, args);
    va_end(args);
    cr_assert_lt((size_t)n, RIG_STORY - len, "the story is too long");
}

static void tell_number(struct rig_peer *peer, struct bb_mp_reader *reader)
{
    if (bb_mp_peek_type(reader) == BB_MP_NIL) {
        bb_mp_read_nil(reader);
        tell(peer, "-");
    } else {
        tell(peer, "%" PRIu64, bb_mp_read_uint(reader));
    }
}

static void tell_text(struct rig_peer *peer, struct bb_slice text)
{
    tell(peer, "%.*s", (int)text.len, (const char *)text.data);
}

/* [channel, sequence, life?] each. */
static void tell_positions(struct rig_peer *peer, struct bb_slice positions)
{
    struct bb_mp_reader reader = bb_mp_reader(positions);
    uint32_t n = bb_mp_read_array(&reader);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t n_fields = bb_mp_read_array(&reader);
        tell(peer, " ");
        tell_text(peer, bb_mp_read_str(&reader));
        tell(peer, "@%" PRIu64, bb_mp_read_uint(&reader));
        if (n_fields == 3) {
            tell(peer, "/%" PRIu64, bb_mp_read_uint(&reader));
        }
    }
    cr_assert_eq(reader.error, 0);
}

static void tell_ends(struct rig_peer *peer, struct bb_slice ends)
{
    struct bb_mp_reader reader = bb_mp_reader(ends);
    uint32_t n = bb_mp_read_map(&reader);
    tell(peer, " until");
    for (uint32_t i = 0; i < n; i++) {
        tell(peer, " ");
        tell_text(peer, bb_mp_read_str(&reader));
        bool has_life = bb_mp_peek_type(&reader) == BB_MP_ARRAY;
        if (has_life) {
            (void)bb_mp_read_array(&reader);
        }
        tell(peer, "@%" PRIu64, bb_mp_read_uint(&reader));
        if (has_life) {
            tell(peer, "/%" PRIu64, bb_mp_read_uint(&reader));
        }
    }
    cr_assert_eq(reader.error, 0);
}

static void tell_gaps(struct rig_peer *peer, struct bb_slice gaps)
{
    struct bb_mp_reader reader = bb_mp_reader(gaps);
    uint32_t n = bb_mp_read_array(&reader);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t n_fields = bb_mp_read_array(&reader);
        tell(peer, i > 0 ? " gap " : "gap ");
        tell_text(peer, bb_mp_read_str(&reader));
        tell(peer, "[%" PRIu64 ",", bb_mp_read_uint(&reader));
        tell_number(peer, &reader);
        tell(peer, "]x");
        tell_number(peer, &reader);
        tell(peer, " ");
        tell_text(peer, bb_mp_read_str(&reader));
        if (n_fields == 6) {
            tell(peer, "/%" PRIu64, bb_mp_read_uint(&reader));
        }
    }
    cr_assert_eq(reader.error, 0);
}

static void tell_ranges(struct rig_peer *peer, struct bb_slice ranges)
{
    struct bb_mp_reader reader = bb_mp_reader(ranges);
    uint32_t n = bb_mp_read_array(&reader);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t n_fields = bb_mp_read_array(&reader);
        tell(peer, i > 0 ? " " : "");
        tell_text(peer, bb_mp_read_str(&reader));
        tell(peer, "(%" PRIu64 ",", bb_mp_read_uint(&reader));
        tell(peer, "%" PRIu64 "]", bb_mp_read_uint(&reader));
        if (n_fields == 4) {
            tell(peer, "/%" PRIu64, bb_mp_read_uint(&reader));
        }
    }
    cr_assert_eq(reader.error, 0);
}

/* Events as runs of a channel. */
static void tell_blocks(struct rig_peer *peer, struct bb_slice body)
{
    struct bb_slice name = {0};
    uint64_t first = 0;
    uint64_t last = 0;
    struct bb_block block;
    tell(peer, " =");
    while (body.len > 0) {
        cr_assert_eq(bb_block_read(&body, &block), 0);
        struct bb_slice events = bb_slice(body.data, (size_t)block.length);
        struct bb_event_view event;
        cr_assert_eq(bb_event_read(&events, &event), 0);
        struct bb_slice channel = bb_path_channel(event.path);
        body = bb_slice(body.data + block.length, body.len - (size_t)block.length);
        bool joins = name.data != NULL && bb_slice_equal(name, channel) && block.sequence == last + 1;
        if (!joins && name.data != NULL && last > first) {
            tell(peer, "-%" PRIu64, last);
        }
        if (!joins) {
            first = block.sequence;
            tell(peer, " ");
            tell_text(peer, channel);
            tell(peer, "%" PRIu64, first);
        }
        name = channel;
        last = block.sequence + block.count - 1;
    }
    if (name.data != NULL && last > first) {
        tell(peer, "-%" PRIu64, last);
    }
}

static void tell_deliver(struct rig_peer *peer, const struct bb_msg *msg)
{
    tell(peer, "deliver ");
    if (msg->gaps.len > 0 && msg->gaps.data[0] != 0xc0) {
        tell_gaps(peer, msg->gaps);
        tell(peer, ", ");
    }
    tell_ranges(peer, msg->ranges);
    if (msg->retained != 0) {
        tell(peer, "retained%" PRIu64, msg->retained);
    }
    tell_blocks(peer, msg->body);
}

static void tell_runs(struct rig_peer *peer, struct bb_mp_reader *reader)
{
    uint32_t n = bb_mp_read_array(reader);
    for (uint32_t i = 0; i < n; i++) {
        (void)bb_mp_read_array(reader);
        tell(peer, " ");
        tell_text(peer, bb_mp_read_str(reader));
        tell(peer, "%" PRIu64, bb_mp_read_uint(reader));
        tell(peer, "+%" PRIu64, bb_mp_read_uint(reader));
    }
}

static void tell_refused(struct rig_peer *peer, struct bb_mp_reader *reader)
{
    uint32_t n = bb_mp_read_array(reader);
    tell(peer, " refused");
    for (uint32_t i = 0; i < n; i++) {
        (void)bb_mp_read_array(reader);
        tell(peer, " %" PRIu64 ":", bb_mp_read_uint(reader));
        tell_text(peer, bb_mp_read_str(reader));
    }
}

static void tell_acks(struct rig_peer *peer, struct bb_slice entries)
{
    struct bb_mp_reader reader = bb_mp_reader(entries);
    uint32_t n = bb_mp_read_array(&reader);
    tell(peer, "ack");
    for (uint32_t i = 0; i < n; i++) {
        uint32_t n_fields = bb_mp_read_array(&reader);
        tell(peer, i > 0 ? ", %" PRIu64 : " %" PRIu64, bb_mp_read_uint(&reader));
        tell(peer, "@%" PRIu64, bb_mp_read_uint(&reader));
        bool has_matches = bb_mp_peek_type(&reader) != BB_MP_NIL;
        uint64_t matches = 0;
        if (has_matches) {
            matches = bb_mp_read_uint(&reader);
        } else {
            bb_mp_read_nil(&reader);
        }
        if (bb_mp_peek_type(&reader) == BB_MP_NIL) {
            bb_mp_read_nil(&reader);
            tell(peer, " repeated");
        } else {
            tell_runs(peer, &reader);
        }
        if (has_matches) {
            tell(peer, " m%" PRIu64, matches);
        }
        if (n_fields == 5) {
            tell_refused(peer, &reader);
        }
    }
    cr_assert_eq(reader.error, 0);
}

static void tell_error(struct rig_peer *peer, const struct bb_msg *msg)
{
    const struct bb_msg_row *row = bb_msg_row_find(msg->about);
    tell(peer, "error %s/%" PRIu64 " ", row != NULL ? row->name : "-", msg->corr);
    tell_text(peer, msg->code);
    bb_buf_reset(&peer->result);
    bb_buf_append(&peer->result, msg->detail.data, msg->detail.len);
    (void)snprintf(peer->text, sizeof(peer->text), "%.*s", (int)msg->text.len,
                   msg->text.len > 0 ? (const char *)msg->text.data : "");
}

static void tell_msg(struct rig_peer *peer, const struct bb_msg *msg)
{
    switch ((int)msg->type) {
    case BB_MSG_WELCOME:
        tell(peer, "welcome %" PRIu64, msg->last);
        break;
    case BB_MSG_SUBSCRIBED:
        tell(peer, "subscribed");
        tell_positions(peer, msg->positions);
        if (msg->ends.len > 0) {
            tell_ends(peer, msg->ends);
        }
        break;
    case BB_MSG_ACK:
        tell_acks(peer, msg->entries);
        break;
    case BB_MSG_DELIVER:
        tell_deliver(peer, msg);
        break;
    case BB_MSG_GAP:
        tell_gaps(peer, msg->gaps);
        break;
    case BB_MSG_RESULT:
        tell(peer, "result %" PRIu64, msg->corr);
        bb_buf_reset(&peer->result);
        bb_buf_append(&peer->result, msg->value.data, msg->value.len);
        break;
    case BB_MSG_ERROR:
        tell_error(peer, msg);
        break;
    case BB_MSG_EVENTS:
        tell(peer, msg->more != 0 ? "events more" : "events");
        tell_blocks(peer, msg->body);
        break;
    case BB_MSG_GOODBYE:
    case BB_MSG_ENDED:
        tell(peer, msg->type == BB_MSG_ENDED ? "ended " : "goodbye ");
        tell_text(peer, msg->code);
        break;
    case BB_MSG_PONG:
        tell(peer, "pong %" PRIu64, msg->token);
        break;
    default:
        cr_assert_fail("a message of type %d", (int)msg->type);
    }
}

const char *rig_told(struct rig *rig, size_t i)
{
    static char story[RIG_STORY];
    memcpy(story, rig->peers[i].story, RIG_STORY);
    rig->peers[i].story[0] = 0;
    return story;
}

/* --- struct bk_out ------------------------------------------------------------------------------------------ */

static int out_send(void *context, void *to, const struct bk_part *parts, size_t n_parts)
{
    struct rig_peer *peer = to;
    struct bb_buf bytes = BB_BUF_INIT;
    struct bb_msg msg = {0};
    (void)context;
    cr_assert(!peer->is_closed, "the core sends to a peer that it closed");
    cr_assert_leq(n_parts, (size_t)BK_PARTS_MAX);
    if (peer->answer != 0 && peer->n_lucky == 0) {
        return peer->answer;
    }
    peer->n_lucky -= peer->n_lucky > 0;
    for (size_t i = 0; i < n_parts; i++) {
        bb_buf_append(&bytes, parts[i].data, parts[i].len);
    }
    cr_assert_eq(bb_msg_decode(bb_buf_slice(&bytes), &msg), 0);
    if (msg.type == BB_MSG_PING) {
        peer->n_pings++;
        peer->last_ping = msg.token;
    } else {
        tell(peer, peer->story[0] != 0 ? "; " : "");
        tell_msg(peer, &msg);
    }
    bb_buf_fini(&bytes);
    return 0;
}

static void out_close(void *context, void *to, bool shut_out)
{
    struct rig_peer *peer = to;
    (void)context;
    cr_assert(!peer->is_closed, "the core closes a peer twice");
    peer->is_closed = true;
    peer->is_shut_out = shut_out;
    peer->client = NULL;
}

static void out_pause(void *context, void *to, bool paused)
{
    struct rig_peer *peer = to;
    (void)context;
    cr_assert_neq(peer->is_paused, paused);
    peer->is_paused = paused;
}

static void out_window(void *context, const struct bk_window_event *event)
{
    struct rig *rig = context;
    (void)event;
    rig->n_windowed++;
}

static void out_log(void *context, enum bk_log_level level, const char *id, const char *text)
{
    struct rig *rig = context;
    size_t len = strlen(rig->notes);
    (void)text;
    if (level != BK_LOG_DEBUG) {
        (void)snprintf(rig->notes + len, sizeof(rig->notes) - len, "%s ", id);
    }
}

/* --- coming and going --------------------------------------------------------------------------------------- */

static uint64_t rig_wall(void *context)
{
    const struct rig *rig = context;
    return rig->now;
}

static void open_memory(struct rig *rig)
{
    struct bb_buf err = BB_BUF_INIT;
    struct bk_backend_env env = {
        .listener = bk_core_listener(rig->core, BK_STORE_MEMORY),
        .meter = bk_core_meter(rig->core),
        .now = rig_wall,
        .now_context = rig,
    };
    cr_assert_eq(bk_backend_open("memory", NULL, 0, &env, &rig->memory, &err), 0);
    cr_assert_eq(bk_core_set_backend(rig->core, BK_STORE_MEMORY, rig->memory), 0);
    bb_buf_fini(&err);
}

static void open_core(struct rig *rig, bool has_memory, bool has_log)
{
    cr_assert_eq(bk_core_new(&rig->config, &rig->out, &rig->core), 0);
    bk_core_set_time(rig->core, rig->now, rig->now);
    if (has_memory) {
        open_memory(rig);
    }
    if (has_log) {
        rig_log_open(rig->log, bk_core_listener(rig->core, BK_STORE_LOG));
        cr_assert_eq(bk_core_set_backend(rig->core, BK_STORE_LOG, &rig->log->backend), 0);
    }
    for (size_t i = 0; i < RIG_PEERS; i++) {
        rig_new_peer(rig, i);
    }
}

static void close_core(struct rig *rig)
{
    if (rig->log != NULL && rig->log->listener != NULL) {
        rig_log_crash(rig->log);
    }
    if (rig->memory != NULL) {
        rig->memory->ops->close(rig->memory); /* it lets go of bytes that are charged to the core */
    }
    rig->memory = NULL;
    bk_core_free(rig->core);
    rig->core = NULL;
}

void rig_init(struct rig *rig)
{
    *rig = (struct rig){.config = BK_CONFIG_INIT, .now = 1000000};
    rig->config.check = BK_CHECK_ALWAYS;
    rig->config.run = 100;
    rig->out = (struct bk_out){
        .context = rig,
        .send = out_send,
        .close = out_close,
        .pause = out_pause,
        .window = out_window,
        .window_is_open = &rig->window_is_open,
        .log = out_log,
    };
}

void rig_start(struct rig *rig, bool has_memory, bool has_log)
{
    if (has_log) {
        rig->log = rig_log_new();
    }
    open_core(rig, has_memory, has_log);
}

void rig_stop(struct rig *rig)
{
    close_core(rig);
    if (rig->log != NULL) {
        rig_log_free(rig->log);
    }
    for (size_t i = 0; i < RIG_PEERS; i++) {
        cr_assert(rig->peers[i].client == NULL, "peer %zu was not closed", i);
        bb_buf_fini(&rig->peers[i].result);
    }
}

void rig_restart(struct rig *rig, bool has_log)
{
    bool has_memory = rig->memory != NULL;
    close_core(rig);
    rig->config.run += 100;
    rig->now += 1000000;
    open_core(rig, has_memory, has_log);
}

void rig_new_peer(struct rig *rig, size_t i)
{
    struct rig_peer *peer = &rig->peers[i];
    bb_buf_fini(&peer->result);
    *peer = (struct rig_peer){0};
    peer->client = bk_core_client_add(rig->core, peer);
}

void rig_gone(struct rig *rig, size_t i)
{
    struct bk_client *client = rig->peers[i].client;
    rig->peers[i].client = NULL;
    bk_core_client_gone(rig->core, client);
}

/* --- what peers say ------------------------------------------------------------------------------------------ */

BB_PRINTF(3, 0) static void say(struct rig *rig, size_t i, const char *format, va_list args)
{
    char text[8192];
    struct bb_buf out = BB_BUF_INIT;
    struct bb_buf err = BB_BUF_INIT;
    struct bb_message_head head;
    int n = vsnprintf(text, sizeof(text), format, args);
    cr_assert_lt((size_t)n, sizeof(text));
    for (char *at = text; (at = strchr(at, '\'')) != NULL;) {
        *at = '"';
    }
    int r = bb_message_json_read(bb_slice_str(text), &out, &head, &err);
    cr_assert_eq(r, 0, "%s: %s", text, bb_buf_string(&err));
    bk_core_message(rig->core, rig->peers[i].client, bb_buf_slice(&out), NULL);
    bb_buf_fini(&out);
    bb_buf_fini(&err);
}

void rig_put(struct rig *rig, size_t i, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(rig, i, format, args);
    va_end(args);
}

void rig_say(struct rig *rig, size_t i, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(rig, i, format, args);
    va_end(args);
    bk_core_flush(rig->core);
}

void rig_hello(struct rig *rig, size_t i, const char *id, uint64_t epoch)
{
    struct bb_buf out = BB_BUF_INIT;
    uint8_t bytes[BB_CLIENT_ID_LEN] = {0};
    struct bb_msg msg = {.type = BB_MSG_HELLO, .corr = 1, .version = BB_PROTOCOL_VERSION, .epoch = epoch};
    if (id != NULL) {
        memcpy(bytes, id, strlen(id));
        msg.client = bb_slice(bytes, sizeof(bytes));
    }
    bb_msg_encode(&out, &msg);
    bk_core_message(rig->core, rig->peers[i].client, bb_buf_slice(&out), NULL);
    bb_buf_fini(&out);
}

void rig_hello_all(struct rig *rig)
{
    for (size_t i = 0; i < RIG_PEERS; i++) {
        rig_hello(rig, i, NULL, 0);
        RIG_TOLD(rig, i, "welcome 0");
    }
}

static void write_event(const struct rig *rig, struct bb_slice path, struct bb_buf *out)
{
    struct bb_attributes attributes = {.has_ttl = rig->ttl_ms != 0, .ttl_ms = rig->ttl_ms};
    struct bb_buf payload = BB_BUF_INIT;
    if (rig->payload == 0) {
        bb_mp_write_nil(&payload);
    } else {
        bb_mp_write_bin(&payload, (struct bb_slice){0});
        payload.len = 0;
        uint8_t *at = bb_buf_reserve(&payload, rig->payload + BB_MP_MAX_HEAD);
        cr_assert_not_null(at);
        uint8_t *data = bb_mp_put_bin_head(at, (uint32_t)rig->payload);
        memset(data, 'x', rig->payload);
        payload.len = (size_t)(data - at) + rig->payload;
    }
    bb_event_write(out, path, bb_buf_slice(&payload), attributes.has_ttl ? &attributes : NULL);
    bb_buf_fini(&payload);
}

void rig_events(const struct rig *rig, const char *paths, struct bb_buf *out)
{
    for (const char *at = paths; *at != 0;) {
        size_t len = strcspn(at, " ");
        char *end = NULL;
        unsigned long n = strtoul(at, &end, 10);
        bool has_count = end != at && *end == ':';
        const char *path = has_count ? end + 1 : at;
        for (unsigned long k = 0; k < (has_count ? n : 1); k++) {
            write_event(rig, bb_slice(path, len - (size_t)(path - at)), out);
        }
        at += len;
        at += *at == ' ';
    }
}

void rig_batch(struct rig *rig, size_t i, uint64_t number, const char *paths)
{
    struct bb_buf out = BB_BUF_INIT;
    bb_msg_encode(&out, &(struct bb_msg){.type = BB_MSG_PUBLISH, .number = number, .level = rig->level});
    rig_events(rig, paths, &out);
    bk_core_message(rig->core, rig->peers[i].client, bb_buf_slice(&out), NULL);
    bb_buf_fini(&out);
}

void rig_publish(struct rig *rig, size_t i, uint64_t number, const char *paths)
{
    rig_batch(rig, i, number, paths);
    bk_core_flush(rig->core);
}

void rig_subscribe(struct rig *rig, size_t i, const char *pattern, const char *rest)
{
    rig_say(rig, i, "{'op':'subscribe','corr':1,'sub':1,'patterns':['%s']%s%s}", pattern,
            rest != NULL ? "," : "", rest != NULL ? rest : "");
}

void rig_credit(struct rig *rig, size_t i, uint64_t bytes, uint64_t events)
{
    rig_say(rig, i, "{'op':'credit','sub':1,'bytes':%" PRIu64 ",'events':%" PRIu64 "}", bytes, events);
}

/* --- what time and backends bring ---------------------------------------------------------------------------- */

void rig_pass(struct rig *rig, uint64_t us)
{
    rig->now += us;
    bk_core_set_time(rig->core, rig->now, rig->now);
    (void)bk_core_tick(rig->core);
}

void rig_commit(struct rig *rig)
{
    cr_assert(rig_log_commit(rig->log), "nothing waits that could be durable");
    bk_core_flush(rig->core);
}

bool rig_asked(const struct rig *rig)
{
    return rig->log->requests != NULL;
}

void rig_answer(struct rig *rig)
{
    while (rig->log != NULL && rig_log_answer(rig->log)) {
    }
    if (rig->memory != NULL) {
        rig->memory->ops->dispatch(rig->memory);
    }
    bk_core_flush(rig->core);
}

void rig_settle(struct rig *rig)
{
    for (int i = 0; i < 1000; i++) {
        bk_core_flush(rig->core);
        bool changed = bk_core_wants_flush(rig->core);
        changed = (rig->log != NULL && rig_log_commit(rig->log)) || changed;
        changed = (rig->log != NULL && rig_log_answer(rig->log)) || changed;
        if (rig->memory != NULL) {
            rig->memory->ops->dispatch(rig->memory);
        }
        bk_core_flush(rig->core);
        if (!changed && !bk_core_wants_flush(rig->core) && (rig->log == NULL || rig->log->queue == NULL)) {
            return;
        }
    }
    cr_assert_fail("there is no end to it");
}

/* --- looking inside -------------------------------------------------------------------------------------------- */

struct bk_channel *rig_channel(const struct rig *rig, const char *name)
{
    struct bk_channel *channel = bk_channels_find(&rig->core->channels, bb_slice_str(name));
    cr_assert_not_null(channel, "no channel %s", name);
    return channel;
}

struct bk_sub *rig_sub(const struct rig *rig, size_t i)
{
    struct bk_sub *sub = rig->peers[i].client->subs;
    cr_assert(sub != NULL && sub->next == NULL);
    return sub;
}
