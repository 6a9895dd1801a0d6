/* SPDX-License-Identifier: Apache-2.0 */
/* Requests about channels and the log. */
#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include "bus/api/request.h"
#include "bus/subscription.h"

static void write_number(struct bb_buf *out, const char *name, uint64_t value, uint32_t *n)
{
    if (value == 0) {
        return;
    }
    bb_mp_write_str(out, bb_slice_str(name));
    if (value == BB_UNKNOWN) {
        bb_mp_write_nil(out);
    } else {
        bb_mp_write_uint(out, value);
    }
    *n += 1;
}

static void write_toggle(struct bb_buf *out, const char *name, enum bb_toggle value, uint32_t *n)
{
    if (value == BB_TOGGLE_KEEP) {
        return;
    }
    bb_mp_write_str(out, bb_slice_str(name));
    if (value == BB_TOGGLE_DEFAULT) {
        bb_mp_write_nil(out);
    } else {
        bb_mp_write_bool(out, value == BB_TOGGLE_ON);
    }
    *n += 1;
}

static void write_store(struct bb_buf *out, enum bb_store value, uint32_t *n)
{
    if (value == BB_STORE_KEEP) {
        return;
    }
    bb_mp_write_str(out, bb_slice_str("store"));
    if (value == BB_STORE_DEFAULT) {
        bb_mp_write_nil(out);
    } else {
        bb_mp_write_str(out, bb_slice_str(value == BB_STORE_LOG ? "log" : "memory"));
    }
    *n += 1;
}

static uint32_t write_members(struct bb_buf *out, const struct bb_channel_settings *settings)
{
    uint32_t n = 0;
    write_store(out, settings->store, &n);
    write_toggle(out, "sync", settings->sync, &n);
    write_toggle(out, "early", settings->early, &n);
    write_number(out, "max_age", settings->max_age_ms, &n);
    write_number(out, "max_bytes", settings->max_bytes, &n);
    write_number(out, "max_events", settings->max_events, &n);
    write_number(out, "max_per_path", settings->max_per_path, &n);
    write_number(out, "min_events", settings->min_events, &n);
    if (settings->overflow != BB_OVERFLOW_DEFAULT) {
        bb_mp_write_str(out, bb_slice_str("overflow"));
        bb_mp_write_str(out, bb_slice_str(bb_overflow_name(settings->overflow)));
        n++;
    }
    write_number(out, "ring", settings->ring_bytes, &n);
    return n;
}

/* As a map. */
static int write_settings(struct bb_buf *out, const struct bb_channel_settings *given)
{
    struct bb_channel_settings settings = BB_CHANNEL_SETTINGS_INIT;
    struct bb_buf members = BB_BUF_INIT;
    if (given != NULL && given->size == 0) {
        return BB_EINVAL;
    }
    if (given != NULL) {
        memcpy(&settings, given, given->size < sizeof(settings) ? given->size : sizeof(settings));
    }
    if ((unsigned)settings.overflow > BB_OVERFLOW_DISCONNECT || (unsigned)settings.store > BB_STORE_MEMORY ||
        (unsigned)settings.sync > BB_TOGGLE_OFF || (unsigned)settings.early > BB_TOGGLE_OFF) {
        return BB_EINVAL;
    }
    bb_mp_write_map(out, write_members(&members, &settings));
    bb_buf_append(out, members.data, members.len);
    int r = members.error != 0 ? members.error : out->error;
    bb_buf_fini(&members);
    return r;
}

static struct bb_msg channel_message(const char *action, const char *name)
{
    return (struct bb_msg){
        .type = BB_MSG_CHANNEL,
        .action = bb_slice_str(action),
        .name = bb_slice_str(name),
    };
}

static int change(struct bb_bus *bus,
                  const char *action,
                  const char *name,
                  const struct bb_channel_settings *settings,
                  int timeout_ms)
{
    struct bb_buf map = BB_BUF_INIT;
    int r = write_settings(&map, settings);
    if (r == 0) {
        struct bb_msg msg = channel_message(action, name);
        msg.settings = bb_buf_slice(&map);
        r = bb_request_done(bus, &msg, timeout_ms);
    }
    bb_buf_fini(&map);
    return r;
}

int bb_channel_add(bb_bus *bus, const char *name, const struct bb_channel_settings *settings, int timeout_ms)
{
    return change(bus, "add", name, settings, timeout_ms);
}

int bb_channel_set(bb_bus *bus, const char *name, const struct bb_channel_settings *settings, int timeout_ms)
{
    return settings == NULL ? BB_EINVAL : change(bus, "set", name, settings, timeout_ms);
}

int bb_channel_remove(bb_bus *bus, const char *name, int timeout_ms)
{
    struct bb_msg msg = channel_message("rm", name);
    return bb_request_done(bus, &msg, timeout_ms);
}

int bb_channel_trim(bb_bus *bus, const char *name, uint64_t before, int timeout_ms)
{
    struct bb_buf map = BB_BUF_INIT;
    struct bb_msg msg = channel_message("trim", name);
    bb_mp_write_map(&map, 1);
    bb_mp_write_str(&map, bb_slice_str("before"));
    bb_mp_write_uint(&map, before);
    msg.settings = bb_buf_slice(&map);
    int r = map.error;
    r = r < 0 ? r : bb_request_done(bus, &msg, timeout_ms);
    bb_buf_fini(&map);
    return r;
}

int bb_request_channels(bb_bus *bus, int timeout_ms, char **ret_json)
{
    struct bb_msg msg = {.type = BB_MSG_CHANNEL, .action = bb_slice_str("ls")};
    return bb_request_json(bus, &msg, timeout_ms, ret_json);
}

int bb_request_channel(bb_bus *bus, const char *name, int timeout_ms, char **ret_json)
{
    struct bb_msg msg = channel_message("info", name);
    return bb_request_json(bus, &msg, timeout_ms, ret_json);
}

int bb_request_log(bb_bus *bus, const char *action, const char *name, int timeout_ms, char **ret_json)
{
    struct bb_buf map = BB_BUF_INIT;
    struct bb_msg msg = {.type = BB_MSG_LOG, .action = bb_slice_str(action)};
    if (name != NULL) {
        bb_mp_write_map(&map, 1);
        bb_mp_write_str(&map, bb_slice_str("name"));
        bb_mp_write_str(&map, bb_slice_str(name));
        msg.options = bb_buf_slice(&map);
    }
    int r = map.error;
    r = r < 0 ? r : bb_request_json(bus, &msg, timeout_ms, ret_json);
    bb_buf_fini(&map);
    return r;
}
