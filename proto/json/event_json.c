/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/json/event_json.h"

#include "proto/base/error.h"
#include "proto/json/json_text.h"
#include "proto/json/json_value.h"
#include "proto/wire/message.h"
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

static int refuse(struct bb_buf *err, int error, const char *what, const char *name)
{
    if (err != NULL) {
        bb_buf_printf(err, "%s: %s", name, what);
    }
    return error;
}

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

static int read_attributes(const json_t *object,
                           const struct member *members,
                           size_t n,
                           struct bb_buf *out,
                           struct bb_buf *err)
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
            int r = bb_json_to_mp(value, out, err);
            if (r < 0) {
                return r;
            }
        }
    }
    return 0;
}

static int read_path(const json_t *path, bool is_nexus, struct bb_buf *out, struct bb_buf *err)
{
    const char *name = is_nexus ? "type" : "path";
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
    return refuse(err, BB_EEVENT, is_nexus ? "must be a path or an integer" : "must be a text", name);
}

/* The event as its bytes, which bb_event_read() then judges as it judges those of any publisher. */
static int read_members(json_t *object, struct bb_buf *out, struct bb_buf *err)
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
            return refuse(err, BB_EEVENT, "not a member of an event", name);
        }
        has_attributes = has_attributes || member_says_something(member, value);
    }
    bb_mp_write_array(out, has_attributes ? 3 : 2);
    int r = read_path(json_object_get(object, is_nexus ? "type" : "path"), is_nexus, out, err);
    if (r < 0) {
        return r;
    }
    const json_t *payload = json_object_get(object, "payload");
    if (payload == NULL) {
        bb_mp_write_nil(out);
    } else {
        r = bb_json_to_mp(payload, out, err);
    }
    return r < 0 ? r : read_attributes(object, members, n, out, err);
}

int bb_event_json_read(json_t *object, struct bb_buf *out, struct bb_buf *err)
{
    size_t old_len = out->len;
    struct bb_event_view event = {0};
    if (!json_is_object(object)) {
        return refuse(err, BB_EEVENT, "must be an object", "event");
    }
    int r = read_members(object, out, err);
    r = r < 0 ? r : out->error;
    if (r == 0) {
        struct bb_slice bytes = bb_slice(out->data + old_len, out->len - old_len);
        r = bb_event_read(&bytes, &event);
        r = r < 0 ? r : event.error;
        if (r < 0) {
            (void)refuse(err, r, bb_strerror(r), "event");
        }
    }
    if (r < 0) {
        out->len = old_len;
    }
    return r;
}

int bb_events_json_read(json_t *value, struct bb_buf *out, size_t *ret_count, struct bb_buf *err)
{
    size_t old_len = out->len;
    if (!json_is_array(value)) {
        int r = bb_event_json_read(value, out, err);
        *ret_count = r < 0 ? *ret_count : 1;
        return r;
    }
    size_t n = json_array_size(value);
    if (n > BB_EVENTS_MAX) {
        return refuse(err, BB_ETOOBIG, "too many events", "events");
    }
    for (size_t i = 0; i < n; i++) {
        int r = bb_event_json_read(json_array_get(value, i), out, err);
        if (r < 0) {
            out->len = old_len;
            return r;
        }
    }
    *ret_count = n;
    return 0;
}
