/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/json/event_json.h"

#include "proto/base/error.h"
#include "proto/json/json_split.h"
#include "proto/json/json_text.h"
#include "proto/json/json_value.h"
#include "proto/wire/mp.h"

#include <inttypes.h>

/* --- writing ------------------------------------------------------------------------------------ */

static const char *source_type(const struct bb_event_meta *meta)
{
    return meta->source == 0 ? "window" : "client";
}

static void write_name(struct bb_buf *out, const char *name)
{
    bb_buf_printf(out, ",\"%s\":", name);
}

static int write_value(struct bb_buf *out, struct bb_slice value, const char *absent)
{
    if (value.len == 0) {
        bb_buf_append(out, absent, strlen(absent));
        return 0;
    }
    return bb_mp_to_json(value, out);
}

static int write_nexus(struct bb_buf *out,
                       const struct bb_event_meta *meta,
                       const struct bb_event_view *event,
                       const struct bb_attributes *attributes)
{
    bb_buf_printf(out, "{\"id\":");
    if (attributes->id.len == 0) {
        bb_buf_printf(out, "%" PRIu64, meta->sequence);
    }
    int r = write_value(out, attributes->id, "");
    write_name(out, "type");
    bb_json_write_str(out, event->path);
    bb_buf_printf(out, ",\"priority\":%" PRId32 ",\"payload\":", attributes->priority);
    r = r < 0 ? r : write_value(out, event->payload, "null");
    bb_buf_append_byte(out, '}');
    return r;
}

static int write_event(struct bb_buf *out,
                       const struct bb_event_meta *meta,
                       const struct bb_event_view *event,
                       const struct bb_attributes *attributes)
{
    bb_buf_printf(out, "{\"id\":[%" PRIu64 ",%" PRIu64 ",%" PRIu64 "]", meta->server, meta->session,
                  meta->instance);
    write_name(out, "path");
    bb_json_write_str(out, event->path);
    bb_buf_printf(out, ",\"seq\":%" PRIu64 ",\"time\":%" PRIu64, meta->sequence, meta->time);
    write_name(out, "source_time");
    if (attributes->has_source_time) {
        bb_buf_printf(out, "%" PRId64, attributes->source_time);
    } else {
        bb_buf_printf(out, "null");
    }
    bb_buf_printf(out, ",\"priority\":%" PRId32, attributes->priority);
    bb_buf_printf(out, ",\"source\":{\"type\":\"%s\",\"id\":%" PRIu64 "}", source_type(meta), meta->source);
    write_name(out, "headers");
    int r = write_value(out, attributes->headers, "{}");
    if (attributes->id.len > 0) {
        write_name(out, "client_id");
        r = r < 0 ? r : write_value(out, attributes->id, "");
    }
    if (attributes->payload_type.len > 0) {
        write_name(out, "payload_type");
        bb_json_write_str(out, attributes->payload_type);
    }
    if (attributes->has_ttl) {
        bb_buf_printf(out, ",\"ttl\":%" PRIu64, attributes->ttl_ms);
    }
    write_name(out, "payload");
    r = r < 0 ? r : write_value(out, event->payload, "null");
    bb_buf_append_byte(out, '}');
    return r;
}

int bb_event_json_write(struct bb_buf *out,
                        const struct bb_event_meta *meta,
                        const struct bb_event_view *event,
                        enum bb_event_shape shape)
{
    struct bb_attributes attributes;
    size_t old_len = out->len;
    int r = bb_event_attributes(event->attributes, &attributes);
    if (r < 0) {
        return r;
    }
    if (shape == BB_SHAPE_NEXUS) {
        r = write_nexus(out, meta, event, &attributes);
    } else {
        r = write_event(out, meta, event, &attributes);
    }
    r = r < 0 ? r : out->error;
    if (r < 0) {
        out->len = old_len;
    }
    return r;
}

static void map_key(struct bb_buf *out, const char *name)
{
    bb_mp_write_str(out, bb_slice_str(name));
}

static void map_uint(struct bb_buf *out, const char *name, uint64_t value)
{
    map_key(out, name);
    bb_mp_write_uint(out, value);
}

static void map_broker_members(struct bb_buf *out, const struct bb_event_meta *meta, struct bb_slice path)
{
    map_key(out, "id");
    bb_mp_write_array(out, 3);
    bb_mp_write_uint(out, meta->server);
    bb_mp_write_uint(out, meta->session);
    bb_mp_write_uint(out, meta->instance);
    map_key(out, "path");
    bb_mp_write_str(out, path);
    map_uint(out, "seq", meta->sequence);
    map_uint(out, "time", meta->time);
    map_key(out, "source");
    bb_mp_write_map(out, 2);
    map_key(out, "type");
    bb_mp_write_str(out, bb_slice_str(source_type(meta)));
    map_uint(out, "id", meta->source);
}

int bb_event_map_write(struct bb_buf *out,
                       const struct bb_event_meta *meta,
                       const struct bb_event_view *event)
{
    struct bb_attributes attributes;
    size_t old_len = out->len;
    int r = bb_event_attributes(event->attributes, &attributes);
    if (r < 0) {
        return r;
    }
    bool has_id = attributes.id.len > 0;
    bool has_type = attributes.payload_type.len > 0;
    bb_mp_write_map(out, 9u + has_id + has_type + attributes.has_ttl);
    map_broker_members(out, meta, event->path);
    map_key(out, "source_time");
    if (attributes.has_source_time) {
        bb_mp_write_int(out, attributes.source_time);
    } else {
        bb_mp_write_nil(out);
    }
    map_key(out, "priority");
    bb_mp_write_int(out, attributes.priority);
    map_key(out, "headers");
    if (attributes.headers.len > 0) {
        bb_buf_append(out, attributes.headers.data, attributes.headers.len);
    } else {
        bb_mp_write_map(out, 0);
    }
    if (has_id) {
        map_key(out, "client_id");
        bb_buf_append(out, attributes.id.data, attributes.id.len);
    }
    if (has_type) {
        map_key(out, "payload_type");
        bb_mp_write_str(out, attributes.payload_type);
    }
    if (attributes.has_ttl) {
        map_uint(out, "ttl", attributes.ttl_ms);
    }
    map_key(out, "payload");
    bb_buf_append(out, event->payload.data, event->payload.len);
    if (out->error < 0) {
        out->len = old_len;
    }
    return out->error;
}

/* --- reading ------------------------------------------------------------------------------------ */

struct member {
    const char *name;
    const char *attribute; /* its name in an event; NULL: not an attribute */
};

static const struct member event_members[] = {
    {"path", NULL},
    {"payload", NULL},
    {"id", NULL},
    {"seq", NULL},
    {"time", NULL},
    {"source", NULL},
    {"client_id", "id"},
    {"priority", "priority"},
    {"source_time", "source_time"},
    {"headers", "headers"},
    {"payload_type", "payload_type"},
    {"ttl", "ttl"},
};

static const struct member nexus_members[] = {
    {"type", NULL},
    {"payload", NULL},
    {"id", "id"},
    {"priority", "priority"},
};

static const struct member *member_find(const struct member *members, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(members[i].name, name) == 0) {
            return &members[i];
        }
    }
    return NULL;
}

/* Values that say no more than their absence are left out, so that equal events have equal bytes. */
static bool member_says_something(const struct member *member, const json_t *value)
{
    return member->attribute != NULL && value != NULL && !json_is_null(value) &&
           !(json_is_integer(value) && json_integer_value(value) == 0 &&
             strcmp(member->attribute, "priority") == 0) &&
           !(json_is_object(value) && json_object_size(value) == 0);
}

static int read_attributes(const json_t *object, const struct member *members, size_t n, struct bb_buf *out)
{
    uint32_t n_said = 0;
    for (size_t i = 0; i < n; i++) {
        n_said += member_says_something(&members[i], json_object_get(object, members[i].name));
    }
    if (n_said == 0) {
        return 0;
    }
    bb_mp_write_map(out, n_said);
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_object_get(object, members[i].name);
        if (member_says_something(&members[i], value)) {
            bb_mp_write_str(out, bb_slice_str(members[i].attribute));
            int r = bb_json_to_mp(value, out, NULL);
            if (r < 0) {
                return r;
            }
        }
    }
    return 0;
}

static int read_path(const json_t *path, bool is_nexus, struct bb_buf *out)
{
    if (json_is_string(path)) {
        bb_mp_write_str(out, bb_slice(json_string_value(path), json_string_length(path)));
        return 0;
    }
    if (is_nexus && json_is_integer(path)) {
        char text[24];
        int len = snprintf(text, sizeof(text), "%" JSON_INTEGER_FORMAT, json_integer_value(path));
        bb_mp_write_str(out, bb_slice(text, (size_t)len));
        return 0;
    }
    return BB_EEVENT;
}

/* The event as its bytes, which bb_event_read() judges as it judges those of any publisher. */
static int read_event(json_t *object, struct bb_buf *out)
{
    bool is_nexus = json_object_get(object, "path") == NULL && json_object_get(object, "type") != NULL;
    const struct member *members = is_nexus ? nexus_members : event_members;
    size_t n = is_nexus ? BB_COUNT(nexus_members) : BB_COUNT(event_members);
    const char *name;
    json_t *value;
    bool has_attributes = false;
    json_object_foreach(object, name, value)
    {
        const struct member *member = member_find(members, n, name);
        if (member == NULL) {
            return BB_EEVENT;
        }
        has_attributes = has_attributes || member_says_something(member, value);
    }
    bb_mp_write_array(out, has_attributes ? 3 : 2);
    int r = read_path(json_object_get(object, is_nexus ? "type" : "path"), is_nexus, out);
    if (r < 0) {
        return r;
    }
    const json_t *payload = json_object_get(object, "payload");
    if (payload == NULL) {
        bb_mp_write_nil(out);
    } else {
        r = bb_json_to_mp(payload, out, NULL);
    }
    return r < 0 ? r : read_attributes(object, members, n, out);
}

/* Stands for an event that has no bytes of its own, and is refused for the reason for which it has none. */
static void write_refused(struct bb_buf *out, bool is_utf8)
{
    bb_mp_write_array(out, is_utf8 ? 2 : 3);
    bb_mp_write_str(out, (struct bb_slice){0});
    if (is_utf8) {
        bb_mp_write_str(out, bb_slice("\xff", 1)); /* BB_EUTF8 */
    } else {
        bb_mp_write_nil(out);
        bb_mp_write_nil(out); /* attributes that are no map: BB_EEVENT */
    }
}

/* One event, if need be one that will be refused alone. Without @object: its text could not be read for @error. */
static int add_event(json_t *object, int error, struct bb_buf *out)
{
    size_t old_len = out->len;
    int r = object != NULL ? read_event(object, out) : error;
    bool is_malformed_form = object != NULL && r == BB_EMALFORMED; /* of those with a $: that is JSON */
    if (r == BB_EEVENT || r == BB_EINVAL || r == BB_EUTF8 || is_malformed_form) {
        out->len = old_len;
        write_refused(out, r == BB_EUTF8);
        r = 0;
    }
    return r < 0 ? r : out->error;
}

int bb_events_json_read(json_t *value, struct bb_buf *out)
{
    size_t old_len = out->len;
    size_t n = json_is_array(value) ? json_array_size(value) : 1;
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++) {
        r = add_event(json_is_array(value) ? json_array_get(value, i) : value, 0, out);
    }
    out->len = r < 0 ? old_len : out->len;
    return r;
}

static int add_piece(struct bb_slice text, struct bb_buf *out)
{
    json_t *value = NULL;
    int r = bb_json_parse((const char *)text.data, text.len, NULL, &value);
    r = add_event(value, r, out);
    json_decref(value);
    return r;
}

int bb_events_json_read_pieces(struct bb_slice text, struct bb_buf *out)
{
    size_t old_len = out->len;
    struct bb_slice name;
    struct bb_slice value;
    int r = 0;
    if (text.len == 0 || text.data[0] != '[') {
        return add_piece(text, out);
    }
    struct bb_json_split split = bb_json_split(text);
    while (r == 0 && bb_json_split_next(&split, &name, &value)) {
        r = add_piece(value, out);
    }
    r = r < 0 ? r : split.error;
    out->len = r < 0 ? old_len : out->len;
    return r;
}
