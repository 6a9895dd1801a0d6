/* SPDX-License-Identifier: Apache-2.0 */
/* Publishing: events are checked, then written straight into the open batch. */
#include "proto/base/error.h"
#include "proto/base/utf8.h"
#include "proto/json/json_value.h"
#include "proto/wire/event.h"
#include "proto/wire/mp.h"
#include "proto/wire/path.h"
#include "proto/wire/scan.h"

#include "bus/api/wait.h"
#include "bus/conn.h"
#include "bus/signal.h"

/* Array, head of the path, head of the payload. */
#define EVENT_HEADS_MAX (1 + 5 + 5)

/* An event that is checked and about to be written. */
struct piece {
    struct bb_slice path;
    enum bb_payload_kind kind; /* BB_PAYLOAD_MSGPACK for JSON as well */
    struct bb_slice data;
    struct bb_slice attributes; /* MessagePack map, empty for none */
    struct bb_slice options;    /* of the publish: the event is a batch of its own; empty for none */
    uint32_t level;
    uint64_t deadline; /* until when it may wait for room */
};

/* @scratch takes what JSON becomes. */
static int check_payload(struct piece *piece, struct bb_buf *scratch)
{
    int r = 0;
    switch (piece->kind) {
    case BB_PAYLOAD_NIL:
        piece->data.len = 0;
        return 0;
    case BB_PAYLOAD_TEXT:
        return bb_utf8_is_valid(piece->data.data, piece->data.len) ? 0 : BB_EUTF8;
    case BB_PAYLOAD_BINARY:
        return 0;
    case BB_PAYLOAD_MSGPACK:
        return bb_scan_whole(piece->data.data, piece->data.len, NULL);
    case BB_PAYLOAD_JSON:
        r = bb_json_value_to_mp((const char *)piece->data.data, piece->data.len, scratch, NULL);
        piece->data = bb_buf_slice(scratch);
        piece->kind = BB_PAYLOAD_MSGPACK;
        return r;
    }
    return BB_EINVAL;
}

static uint8_t *put_bytes(uint8_t *p, struct bb_slice bytes)
{
    if (bytes.len > 0) {
        memcpy(p, bytes.data, bytes.len);
    }
    return p + bytes.len;
}

static size_t put_event(uint8_t *to, const struct piece *piece)
{
    uint8_t *p = bb_mp_put_array_head(to, piece->attributes.len > 0 ? 3 : 2);
    p = bb_mp_put_str_head(p, (uint32_t)piece->path.len);
    p = put_bytes(p, piece->path);
    switch (piece->kind) {
    case BB_PAYLOAD_NIL:
        p = bb_mp_put_nil(p);
        break;
    case BB_PAYLOAD_TEXT:
        p = bb_mp_put_str_head(p, (uint32_t)piece->data.len);
        break;
    case BB_PAYLOAD_BINARY:
        p = bb_mp_put_bin_head(p, (uint32_t)piece->data.len);
        break;
    case BB_PAYLOAD_JSON:
    case BB_PAYLOAD_MSGPACK:
        break;
    }
    p = put_bytes(p, piece->data);
    p = put_bytes(p, piece->attributes);
    return (size_t)(p - to);
}

/* --- into the outbox ---------------------------------------------------------------------------- */

/*
 * Room at any price that the options allow, until piece->deadline. @ret_dropped: it is this event that is
 * dropped.
 */
static int
make_room(struct bb_bus *bus, const struct piece *piece, size_t need, uint8_t **ret_to, bool *ret_dropped)
{
    int waited = 0;
    for (;;) {
        if (bus->error != 0) {
            return BB_ECLOSED;
        }
        int r = bb_outbox_room(&bus->outbox, need, piece->level, piece->options, ret_to);
        if (r != BB_EFULL) {
            return r;
        }
        if (waited < 0) {
            return waited;
        }
        switch (bus->options.when_full) {
        case BB_FULL_REFUSE:
            return BB_EFULL;
        case BB_FULL_DROP_OLD:
            if (bb_outbox_drop_oldest(&bus->outbox)) {
                bb_bus_wake(bus); /* somebody may wait for what was dropped */
                continue;
            }
            *ret_dropped = true;
            return BB_EFULL;
        case BB_FULL_DROP_NEW:
            *ret_dropped = true;
            return BB_EFULL;
        case BB_FULL_BLOCK:
            break;
        }
        r = bb_wait_check(bus);
        if (r < 0) {
            return r;
        }
        waited = bb_wait(bus, piece->deadline);
    }
}

/* @tracked: who wants to know, with the ticket; or NULL. The lock is held. */
static int append(struct bb_bus *bus, const struct piece *piece, const struct bb_tracked *tracked)
{
    uint8_t *to;
    bool is_dropped = false;
    size_t need = EVENT_HEADS_MAX + piece->path.len + piece->data.len + piece->attributes.len;
    if (BB_UNLIKELY(need + piece->options.len > bus->max_message - BB_BATCH_HEAD_MAX)) {
        return BB_ETOOBIG;
    }
    int r = bb_outbox_room(&bus->outbox, need, piece->level, piece->options, &to);
    if (BB_UNLIKELY(r < 0 || bus->error != 0)) {
        r = make_room(bus, piece, need, &to, &is_dropped);
    }
    if (BB_UNLIKELY(r < 0)) {
        bus->outbox.dropped += is_dropped;
        return is_dropped && tracked == NULL ? 0 : r;
    }
    if (tracked != NULL && (r = bb_batch_track(bus->outbox.open)) < 0) {
        return r;
    }
    bb_outbox_commit(&bus->outbox, put_event(to, piece), piece->level, tracked);
    if (BB_UNLIKELY(piece->options.len > 0)) {
        bb_outbox_seal(&bus->outbox);
    }
    if (bb_bus_is_ready(bus) && bb_outbox_wants_out(&bus->outbox)) {
        bb_conn_send_batches(bus);
    }
    return 0;
}

int bb_publish(bb_bus *bus, const char *path, enum bb_payload_kind kind, const void *data, size_t len)
{
    struct bb_buf scratch = BB_BUF_INIT;
    struct piece piece = {
        .path = bb_slice_str(path), .kind = kind, .data = bb_slice(data, len), .deadline = BB_NEVER};
    int r = bb_path_check(piece.path);
    r = r < 0 ? r : check_payload(&piece, &scratch);
    if (BB_LIKELY(r == 0)) {
        bb_bus_lock(bus);
        r = append(bus, &piece, NULL);
        bb_bus_unlock(bus);
    }
    if (kind == BB_PAYLOAD_JSON) {
        bb_buf_fini(&scratch);
    }
    return r;
}

/* --- drafts ------------------------------------------------------------------------------------- */

static void write_id(struct bb_buf *out, const struct bb_id *id)
{
    switch (id->kind) {
    case BB_ID_NONE:
        break;
    case BB_ID_INT:
        bb_mp_write_int(out, id->integer);
        break;
    case BB_ID_UINT:
        bb_mp_write_uint(out, (uint64_t)id->integer);
        break;
    case BB_ID_TEXT:
        bb_mp_write_str(out, bb_slice(id->text, id->len));
        break;
    }
}

static void write_headers(struct bb_buf *out, const struct bb_draft *draft)
{
    bb_mp_write_map(out, (uint32_t)draft->n_headers);
    for (size_t i = 0; i < draft->n_headers; i++) {
        const struct bb_header *header = &draft->headers[i];
        bb_mp_write_str(out, bb_slice(header->name, header->name_len));
        bb_mp_write_str(out, bb_slice(header->value, header->value_len));
    }
}

static bool has_attributes(const struct bb_draft *draft)
{
    return draft->id.kind != BB_ID_NONE || draft->priority != 0 || draft->has_source_time ||
           draft->ttl_ms != 0 || draft->n_headers > 0 || draft->payload_type != NULL;
}

/* The whole event is written and read again, so that what is accepted here is what the broker accepts. */
static int
write_attributes(const struct bb_draft *draft, struct bb_slice path, struct bb_buf *out, size_t *ret_at)
{
    struct bb_buf id = BB_BUF_INIT;
    struct bb_buf headers = BB_BUF_INIT;
    static const uint8_t nil[] = {0xc0};
    if (!has_attributes(draft)) {
        *ret_at = 0;
        return 0;
    }
    if (draft->n_headers > BB_HEADERS_MAX) {
        return BB_EEVENT;
    }
    write_id(&id, &draft->id);
    if (draft->n_headers > 0) {
        write_headers(&headers, draft);
    }
    struct bb_attributes attributes = {
        .id = bb_buf_slice(&id),
        .headers = bb_buf_slice(&headers),
        .source_time = draft->source_time_us,
        .priority = draft->priority,
        .has_source_time = draft->has_source_time,
        .has_ttl = draft->ttl_ms != 0,
        .ttl_ms = draft->ttl_ms,
    };
    if (draft->payload_type != NULL) {
        attributes.payload_type = bb_slice_str(draft->payload_type);
    }
    bb_event_write(out, path, bb_slice(nil, sizeof(nil)), &attributes);
    int r = out->error < 0 ? out->error : id.error < 0 ? id.error : headers.error;
    bb_buf_fini(&id);
    bb_buf_fini(&headers);
    if (r == 0) {
        struct bb_event_view view;
        struct bb_slice rest = bb_buf_slice(out);
        r = bb_event_read(&rest, &view);
        r = r < 0 ? r : view.error;
        *ret_at = r < 0 || view.attributes.len == 0 ? out->len : (size_t)(view.attributes.data - out->data);
    }
    return r;
}

/* Compare and append (PROTOCOL 6.2): {"expect": {channel: sequence}}. */
static int write_expectation(const struct bb_draft *draft, struct bb_slice path, struct bb_buf *out)
{
    bool of_path = draft->expect == BB_EXPECT_PATH;
    if (draft->expect == BB_EXPECT_NONE) {
        return 0;
    }
    bb_mp_write_map(out, 1);
    bb_mp_write_str(out, bb_slice_str(of_path ? "expect_path" : "expect"));
    bb_mp_write_map(out, 1);
    bb_mp_write_str(out, of_path ? path : bb_path_channel(path));
    bb_mp_write_uint(out, draft->expect_sequence);
    return out->error;
}

struct prepared {
    struct piece piece;
    struct bb_buf options;
    struct bb_buf payload;
    struct bb_buf attributes;
};

static void prepared_fini(struct prepared *prepared)
{
    bb_buf_fini(&prepared->options);
    bb_buf_fini(&prepared->payload);
    bb_buf_fini(&prepared->attributes);
}

static int prepare(const struct bb_draft *given, struct bb_draft *draft, struct prepared *prepared)
{
    *draft = (struct bb_draft)BB_DRAFT_INIT;
    *prepared = (struct prepared){0};
    if (given == NULL || given->size == 0 || given->path == NULL) {
        return BB_EINVAL;
    }
    memcpy(draft, given, given->size < sizeof(*draft) ? given->size : sizeof(*draft));
    struct piece *piece = &prepared->piece;
    *piece = (struct piece){
        .path = bb_slice_str(draft->path),
        .kind = draft->kind,
        .data = bb_slice(draft->data, draft->len),
        .level = (uint32_t)draft->level,
        .deadline = BB_NEVER,
    };
    if ((unsigned)draft->level > BB_LEVEL_CONSUMED || (unsigned)draft->expect > BB_EXPECT_PATH) {
        return BB_EINVAL;
    }
    size_t at = 0;
    int r = bb_path_check(piece->path);
    r = r < 0 ? r : check_payload(piece, &prepared->payload);
    r = r < 0 ? r : write_attributes(draft, piece->path, &prepared->attributes, &at);
    r = r < 0 ? r : write_expectation(draft, piece->path, &prepared->options);
    piece->options = bb_buf_slice(&prepared->options);
    if (r == 0 && at < prepared->attributes.len) {
        piece->attributes = bb_slice(prepared->attributes.data + at, prepared->attributes.len - at);
    }
    return r;
}

int bb_publish_event(bb_bus *bus, const struct bb_draft *given, uint64_t *ret_ticket)
{
    struct bb_draft draft;
    struct prepared prepared;
    int r = prepare(given, &draft, &prepared);
    if (r == 0) {
        bb_bus_lock(bus);
        struct bb_tracked tracked = {
            .on_ack = draft.on_ack, .arg = draft.arg, .ticket = ++bus->outbox.last_ticket};
        r = append(bus, &prepared.piece, draft.on_ack != NULL ? &tracked : NULL);
        bb_bus_unlock(bus);
        if (r == 0 && ret_ticket != NULL) {
            *ret_ticket = tracked.ticket;
        }
    }
    prepared_fini(&prepared);
    return r;
}

static int wait_ack(struct bb_bus *bus, struct bb_waiter *waiter, uint64_t deadline)
{
    uint64_t n_published = bus->outbox.n_published;
    int r = 0;
    while (!waiter->is_done) {
        if (r < 0) {
            bb_outbox_forget(&bus->outbox, waiter);
            return r;
        }
        r = bb_wait(bus, deadline);
    }
    (void)bb_wait_told(bus, n_published, deadline);
    return waiter->ack.error;
}

int bb_publish_wait(bb_bus *bus, const struct bb_draft *given, int timeout_ms, struct bb_ack *ret_ack)
{
    struct bb_draft draft;
    struct prepared prepared;
    struct bb_waiter waiter = {0};
    uint64_t deadline = bb_deadline(timeout_ms);
    int r = prepare(given, &draft, &prepared);
    if (r == 0) {
        bb_bus_lock(bus);
        struct bb_tracked tracked = {.waiter = &waiter, .ticket = ++bus->outbox.last_ticket};
        prepared.piece.deadline = deadline;
        r = bb_wait_check(bus);
        r = r < 0 ? r : append(bus, &prepared.piece, &tracked);
        r = r < 0 ? r : wait_ack(bus, &waiter, deadline);
        bb_bus_unlock(bus);
    }
    if (waiter.is_done && ret_ack != NULL) {
        *ret_ack = waiter.ack;
    }
    prepared_fini(&prepared);
    return r;
}
