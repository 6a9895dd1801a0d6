/* SPDX-License-Identifier: Apache-2.0 */
/* What can be read from a received event. */
#include "proto/wire/event.h"

#include "proto/base/error.h"
#include "proto/json/event_json.h"
#include "proto/json/json_text.h"
#include "proto/json/json_value.h"
#include "proto/wire/mp.h"

#include "bus/busbar.h"

#include <inttypes.h>

static struct bb_id read_id(struct bb_slice bytes)
{
    struct bb_mp_reader reader = bb_mp_reader(bytes);
    struct bb_id id = {.kind = BB_ID_NONE};
    enum bb_mp_type type = bytes.len > 0 ? bb_mp_peek_type(&reader) : BB_MP_NONE;
    if (type == BB_MP_STR) {
        struct bb_slice text = bb_mp_read_str(&reader);
        id = (struct bb_id){.kind = BB_ID_TEXT, .text = (const char *)text.data, .len = text.len};
    } else if (type == BB_MP_UINT) {
        uint64_t value = bb_mp_read_uint(&reader);
        id.kind = value > INT64_MAX ? BB_ID_UINT : BB_ID_INT;
        id.integer = (int64_t)value;
    } else if (type == BB_MP_INT) {
        id = (struct bb_id){.kind = BB_ID_INT, .integer = bb_mp_read_int(&reader)};
    }
    return id;
}

int bb_event_get_attributes(const struct bb_event *event, struct bb_event_attributes *ret_attributes)
{
    struct bb_attributes attributes;
    if (event->gap != NULL || event->is_retained_end) {
        return BB_EINVAL;
    }
    int r = bb_event_attributes(bb_slice(event->attributes, event->attributes_len), &attributes);
    if (r < 0) {
        return r;
    }
    *ret_attributes = (struct bb_event_attributes){
        .id = read_id(attributes.id),
        .priority = attributes.priority,
        .has_source_time = attributes.has_source_time,
        .source_time_us = attributes.source_time,
        .payload_type = (const char *)attributes.payload_type.data,
        .payload_type_len = attributes.payload_type.len,
        .headers = attributes.headers.data,
        .headers_len = attributes.headers.len,
        .ttl_ms = attributes.has_ttl ? attributes.ttl_ms : 0,
    };
    return 0;
}

bool bb_event_next_header(const struct bb_event_attributes *attributes,
                          size_t *at,
                          struct bb_header *ret_header)
{
    const uint8_t *start = attributes->headers;
    struct bb_mp_reader reader = bb_mp_reader(bb_slice(start, attributes->headers_len));
    if (attributes->headers_len == 0) {
        return false;
    }
    if (*at == 0) {
        (void)bb_mp_read_map(&reader);
    } else {
        reader.p = start + *at;
    }
    if (reader.p >= reader.end) {
        return false;
    }
    struct bb_slice name = bb_mp_read_str(&reader);
    struct bb_slice value = bb_mp_read_str(&reader);
    if (reader.error != 0) {
        return false;
    }
    *at = (size_t)(reader.p - start);
    *ret_header = (struct bb_header){(const char *)name.data, name.len, (const char *)value.data, value.len};
    return true;
}

/* --- JSON --------------------------------------------------------------------------------------- */

static void write_number(struct bb_buf *out, const char *name, uint64_t value)
{
    if (value == BB_UNKNOWN) {
        bb_buf_printf(out, ",\"%s\":null", name);
    } else {
        bb_buf_printf(out, ",\"%s\":%" PRIu64, name, value);
    }
}

static int write_gap(struct bb_buf *out, const struct bb_gap *gap)
{
    bb_buf_printf(out, "{\"gap\":{\"channel\":");
    bb_json_write_str(out, bb_slice_str(gap->channel));
    write_number(out, "from", gap->from);
    write_number(out, "to", gap->to);
    write_number(out, "count", gap->count);
    bb_buf_printf(out, ",\"reason\":");
    bb_json_write_str(out, bb_slice_str(gap->reason));
    bb_buf_printf(out, "}}");
    return out->error;
}

static int write_event(struct bb_buf *out, const struct bb_event *event)
{
    struct bb_event_meta meta = {
        .server = event->server,
        .session = event->session,
        .instance = event->instance,
        .sequence = event->sequence,
        .time = event->time_us,
        .source = event->source,
    };
    struct bb_event_view view = {
        .path = bb_slice(event->path, event->path_len),
        .payload = bb_slice(event->payload, event->payload_len),
        .attributes = bb_slice(event->attributes, event->attributes_len),
    };
    return bb_event_json_write(out, &meta, &view, BB_SHAPE_EVENT);
}

/* The text of @out for the caller to free, NULL on an error. */
static char *take_text(struct bb_buf *out, int r, size_t *ret_len)
{
    bb_buf_append_byte(out, 0);
    if (r < 0 || out->error < 0) {
        bb_buf_fini(out);
        return NULL;
    }
    if (ret_len != NULL) {
        *ret_len = out->len - 1;
    }
    return (char *)out->data;
}

char *bb_event_json(const struct bb_event *event, size_t *ret_len)
{
    struct bb_buf out = BB_BUF_INIT;
    int r = 0;
    if (event->is_retained_end) {
        bb_buf_printf(&out, "{\"retained_end\":true}");
    } else {
        r = event->gap != NULL ? write_gap(&out, event->gap) : write_event(&out, event);
    }
    return take_text(&out, r, ret_len);
}

char *bb_payload_json(const struct bb_event *event, size_t *ret_len)
{
    static const uint8_t nil[] = {0xc0};
    struct bb_buf out = BB_BUF_INIT;
    struct bb_slice payload = bb_slice(event->payload, event->payload_len);
    int r = bb_mp_to_json(payload.len == 0 ? bb_slice(nil, sizeof(nil)) : payload, &out);
    return take_text(&out, r, ret_len);
}
