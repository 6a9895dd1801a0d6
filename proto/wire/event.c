/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/wire/event.h"

#include "proto/base/error.h"
#include "proto/wire/mp.h"
#include "proto/wire/path.h"
#include "proto/wire/scan.h"

#include <string.h>

/* An attribute is judged and read by one function, so that nothing is accepted that cannot be read. */
typedef int attribute_fn(struct bb_mp_reader *reader, struct bb_attributes *attributes);

static int read_id(struct bb_mp_reader *reader, struct bb_attributes *attributes)
{
    enum bb_mp_type type = bb_mp_peek_type(reader);
    const uint8_t *start = reader->p;
    if (type == BB_MP_STR) {
        if (bb_mp_read_str(reader).len > BB_EVENT_ID_MAX) {
            return BB_EEVENT;
        }
    } else if (type == BB_MP_UINT || type == BB_MP_INT) {
        bb_mp_skip(reader);
    } else {
        return BB_EEVENT;
    }
    attributes->id = bb_slice(start, (size_t)(reader->p - start));
    return reader->error;
}

static int read_priority(struct bb_mp_reader *reader, struct bb_attributes *attributes)
{
    int64_t value = bb_mp_read_int(reader);
    if (reader->error != 0 || value < INT32_MIN || value > INT32_MAX) {
        return BB_EEVENT;
    }
    attributes->priority = (int32_t)value;
    return 0;
}

static int read_source_time(struct bb_mp_reader *reader, struct bb_attributes *attributes)
{
    attributes->source_time = bb_mp_read_int(reader);
    attributes->has_source_time = true;
    return reader->error;
}

static int read_headers(struct bb_mp_reader *reader, struct bb_attributes *attributes)
{
    const uint8_t *start = reader->p;
    uint64_t n = bb_mp_read_map(reader);
    if (n > BB_HEADERS_MAX) {
        return BB_EEVENT;
    }
    for (uint64_t i = 0; i < 2 * n && reader->error == 0; i++) {
        (void)bb_mp_read_str(reader);
    }
    attributes->headers = bb_slice(start, (size_t)(reader->p - start));
    return reader->error;
}

static int read_payload_type(struct bb_mp_reader *reader, struct bb_attributes *attributes)
{
    attributes->payload_type = bb_mp_read_str(reader);
    return attributes->payload_type.len > BB_PAYLOAD_TYPE_MAX ? BB_EEVENT : reader->error;
}

static int read_ttl(struct bb_mp_reader *reader, struct bb_attributes *attributes)
{
    attributes->ttl_ms = bb_mp_read_uint(reader);
    attributes->has_ttl = true;
    return attributes->ttl_ms == 0 || attributes->ttl_ms > BB_TTL_MAX_MS ? BB_EEVENT : reader->error;
}

static const struct {
    const char *name;
    attribute_fn *read;
} attribute_rows[] = {
    {"id", read_id},           {"priority", read_priority},         {"source_time", read_source_time},
    {"headers", read_headers}, {"payload_type", read_payload_type}, {"ttl", read_ttl},
};

int bb_event_attributes(struct bb_slice attributes, struct bb_attributes *ret_attributes)
{
    struct bb_attributes result = {0};
    struct bb_mp_reader reader = bb_mp_reader(attributes);
    unsigned seen = 0;
    uint64_t n = attributes.len > 0 ? bb_mp_read_map(&reader) : 0;
    for (uint64_t i = 0; i < n; i++) {
        struct bb_slice name = bb_mp_read_str(&reader);
        size_t row = 0;
        while (row < BB_COUNT(attribute_rows) &&
               !bb_slice_equal(name, bb_slice_str(attribute_rows[row].name))) {
            row++;
        }
        if (reader.error != 0 || row == BB_COUNT(attribute_rows) || (seen & 1u << row) != 0) {
            return BB_EEVENT;
        }
        seen |= 1u << row;
        if (attribute_rows[row].read(&reader, &result) < 0 || reader.error != 0) {
            return BB_EEVENT;
        }
    }
    if (reader.error != 0) {
        return BB_EEVENT; /* not a map */
    }
    *ret_attributes = result;
    return 0;
}

/* Bytes of the value at @p. Bad text and too many items make the event refusable, since its end is found. */
static int scan_part(const uint8_t *p, const uint8_t *end, size_t *ret_len, int *refused)
{
    int r = bb_scan_value(p, (size_t)(end - p), NULL, ret_len);
    if (BB_LIKELY(r == 0)) {
        return 0;
    }
    if (r == BB_EMALFORMED) {
        return r;
    }
    struct bb_mp_reader reader = bb_mp_reader(bb_slice(p, (size_t)(end - p)));
    bb_mp_skip(&reader);
    if (reader.error != 0) {
        return reader.error;
    }
    *refused = r;
    *ret_len = (size_t)(reader.p - p);
    return 0;
}

int bb_event_read(struct bb_slice *rest, struct bb_event_view *ret_event)
{
    const uint8_t *p = rest->data;
    size_t len = 0;
    ret_event->error = 0;
    ret_event->attributes = (struct bb_slice){0};
    ret_event->has_ttl = ret_event->has_source_time = false;
    if (rest->len < 3 || (*p != 0x92 && *p != 0x93)) {
        return BB_EMALFORMED; /* an event is an array of two or three */
    }
    const uint8_t *end = p + rest->len;
    bool has_attributes = *p++ == 0x93;
    struct bb_mp_reader reader = {.p = p, .end = end, .error = 0};
    ret_event->path = bb_mp_read_str(&reader);
    if (BB_UNLIKELY(reader.error != 0)) {
        return BB_EMALFORMED;
    }
    p = reader.p;
    if (BB_UNLIKELY(bb_path_check(ret_event->path) < 0)) {
        ret_event->error = BB_EPATH;
    }
    int r = scan_part(p, end, &len, &ret_event->error);
    if (r < 0) {
        return r;
    }
    ret_event->payload = bb_slice(p, len);
    p += len;
    if (has_attributes) {
        r = scan_part(p, end, &len, &ret_event->error);
        if (r < 0) {
            return r;
        }
        ret_event->attributes = bb_slice(p, len);
        p += len;
        struct bb_attributes attributes;
        if (ret_event->error == 0) {
            ret_event->error = bb_event_attributes(ret_event->attributes, &attributes);
        }
        if (ret_event->error == 0) {
            ret_event->has_ttl = attributes.has_ttl;
            ret_event->has_source_time = attributes.has_source_time;
        }
    }
    ret_event->raw = bb_slice(rest->data, (size_t)(p - rest->data));
    *rest = bb_slice(p, (size_t)(end - p));
    return 0;
}

static void write_attributes(struct bb_buf *out, const struct bb_attributes *attributes)
{
    int n = (attributes->id.len > 0) + (attributes->priority != 0) + attributes->has_source_time +
            (attributes->headers.len > 0) + (attributes->payload_type.len > 0) + attributes->has_ttl;
    bb_mp_write_map(out, (uint32_t)n);
    if (attributes->id.len > 0) {
        bb_mp_write_str(out, bb_slice_str("id"));
        bb_buf_append(out, attributes->id.data, attributes->id.len);
    }
    if (attributes->priority != 0) {
        bb_mp_write_str(out, bb_slice_str("priority"));
        bb_mp_write_int(out, attributes->priority);
    }
    if (attributes->has_source_time) {
        bb_mp_write_str(out, bb_slice_str("source_time"));
        bb_mp_write_int(out, attributes->source_time);
    }
    if (attributes->headers.len > 0) {
        bb_mp_write_str(out, bb_slice_str("headers"));
        bb_buf_append(out, attributes->headers.data, attributes->headers.len);
    }
    if (attributes->payload_type.len > 0) {
        bb_mp_write_str(out, bb_slice_str("payload_type"));
        bb_mp_write_str(out, attributes->payload_type);
    }
    if (attributes->has_ttl) {
        bb_mp_write_str(out, bb_slice_str("ttl"));
        bb_mp_write_uint(out, attributes->ttl_ms);
    }
}

static bool attributes_are_empty(const struct bb_attributes *attributes)
{
    return attributes == NULL ||
           (attributes->id.len == 0 && attributes->priority == 0 && !attributes->has_source_time &&
            attributes->headers.len == 0 && attributes->payload_type.len == 0 && !attributes->has_ttl);
}

void bb_event_write(struct bb_buf *out,
                    struct bb_slice path,
                    struct bb_slice payload,
                    const struct bb_attributes *attributes)
{
    bool plain = attributes_are_empty(attributes);
    bb_mp_write_array(out, plain ? 2 : 3);
    bb_mp_write_str(out, path);
    bb_buf_append(out, payload.data, payload.len);
    if (!plain) {
        write_attributes(out, attributes);
    }
}

size_t bb_block_write(uint8_t *to, const struct bb_block *block)
{
    uint8_t *p = bb_mp_put_array_head(to, 7);
    p = bb_mp_put_uint(p, block->session);
    p = bb_mp_put_uint(p, block->time);
    p = bb_mp_put_uint(p, block->source);
    p = bb_mp_put_uint(p, block->sequence);
    p = bb_mp_put_uint(p, block->instance);
    p = bb_mp_put_uint(p, block->count);
    p = bb_mp_put_uint(p, block->length);
    return (size_t)(p - to);
}

int bb_block_read_head(struct bb_slice *rest, struct bb_block *ret_block)
{
    struct bb_mp_reader reader = bb_mp_reader(*rest);
    uint64_t n = bb_mp_read_array(&reader);
    if (n < 7) {
        return BB_EMALFORMED;
    }
    uint64_t values[7];
    for (size_t i = 0; i < 7; i++) {
        values[i] = bb_mp_read_uint(&reader);
    }
    for (uint64_t i = 7; i < n && reader.error == 0; i++) {
        bb_mp_skip(&reader);
    }
    if (reader.error != 0) {
        return BB_EMALFORMED;
    }
    *ret_block =
        (struct bb_block){values[0], values[1], values[2], values[3], values[4], values[5], values[6]};
    *rest = bb_slice(reader.p, (size_t)(reader.end - reader.p));
    return 0;
}

int bb_block_read(struct bb_slice *rest, struct bb_block *ret_block)
{
    struct bb_slice after = *rest;
    struct bb_block block;
    if (bb_block_read_head(&after, &block) < 0 || block.length > after.len) {
        return BB_EMALFORMED;
    }
    *ret_block = block;
    *rest = after;
    return 0;
}

bool bb_event_has_expired(const struct bb_event_view *event, uint64_t time, uint64_t now)
{
    struct bb_attributes attributes;
    return event->has_ttl && bb_event_attributes(event->attributes, &attributes) == 0 && attributes.has_ttl &&
           time / 1000 + attributes.ttl_ms < now / 1000;
}
