/* SPDX-License-Identifier: Apache-2.0 */
/* Durable cursors (PROTOCOL 7.6): places in channels under a name, which outlive their client and, with a log, the broker. */
#include "broker/core/state.h"

#include <stdlib.h>

#define CURSORS_MAX     ((size_t)65536)
#define CURSOR_NAME_MAX 64
#define CURSOR_MAX      ((size_t)256 << 10)

struct bk_cursor {
    char name[CURSOR_NAME_MAX];
    size_t name_len;
    struct bb_buf positions; /* one MessagePack array of [channel, sequence] */
};

/* A change that is to be registered with the log. */
struct bk_save {
    struct bk_save *next;
    bool removed;
    size_t name_len;
    char name[CURSOR_NAME_MAX];
    size_t len;
    uint8_t value[];
};

static struct bk_cursor *cursor_get(struct bk_core *core, struct bb_slice name)
{
    struct bk_cursor *cursor = bb_map_find(&core->cursors, name);
    if (cursor != NULL) {
        return cursor;
    }
    cursor = calloc(1, sizeof(*cursor));
    if (cursor == NULL) {
        return NULL;
    }
    memcpy(cursor->name, name.data, name.len);
    cursor->name_len = name.len;
    if (bb_map_add(&core->cursors, bb_slice(cursor->name, cursor->name_len), cursor) < 0) {
        free(cursor);
        return NULL;
    }
    return cursor;
}

static void cursor_remove(struct bk_core *core, struct bb_slice name)
{
    struct bk_cursor *cursor = bb_map_remove(&core->cursors, name);
    if (cursor != NULL) {
        bb_buf_fini(&cursor->positions);
        free(cursor);
    }
}

static int cursor_set(struct bk_core *core, struct bb_slice name, struct bb_slice positions)
{
    if (bb_map_find(&core->cursors, name) == NULL && bb_map_count(&core->cursors) >= CURSORS_MAX) {
        return BB_ELIMIT;
    }
    struct bk_cursor *cursor = cursor_get(core, name);
    if (cursor == NULL || bb_buf_reserve(&cursor->positions, positions.len) == NULL) {
        return BB_ENOMEM;
    }
    bb_buf_reset(&cursor->positions);
    bb_buf_append(&cursor->positions, positions.data, positions.len);
    return cursor->positions.error;
}

struct bb_slice bk_cursor_find(const struct bk_core *core, struct bb_slice name)
{
    const struct bk_cursor *cursor = bb_map_find(&core->cursors, name);
    return cursor != NULL ? bb_buf_slice(&cursor->positions) : (struct bb_slice){0};
}

int bk_cursor_load(void *context, const struct bk_log_cursor *entry)
{
    struct bk_core *core = context;
    return entry->name.len > CURSOR_NAME_MAX ? BB_ECORRUPT : cursor_set(core, entry->name, entry->value);
}

/* --- saving ------------------------------------------------------------------------------------------ */

static bool are_positions(struct bb_slice value)
{
    struct bb_mp_reader reader = bb_mp_reader(value);
    uint64_t n = bb_mp_peek_type(&reader) == BB_MP_ARRAY ? bb_mp_read_array(&reader) : UINT64_MAX;
    if (n == UINT64_MAX || value.len > CURSOR_MAX) {
        return false;
    }
    for (uint64_t i = 0; i < n && reader.error == 0; i++) {
        if (bb_mp_read_array(&reader) != 2) {
            return false;
        }
        (void)bb_mp_read_str(&reader);
        (void)bb_mp_read_uint(&reader);
    }
    return reader.error == 0;
}

static int save(struct bk_core *core, const struct bb_msg *msg)
{
    struct bk_stage *stage = &core->stage;
    struct bk_save *saving = calloc(1, sizeof(*saving) + msg->positions.len);
    if (saving == NULL) {
        return BB_ENOMEM;
    }
    saving->removed = msg->positions.len == 0;
    saving->name_len = msg->name.len;
    memcpy(saving->name, msg->name.data, msg->name.len);
    saving->len = msg->positions.len;
    if (saving->len > 0) {
        memcpy(saving->value, msg->positions.data, saving->len);
    }
    *stage->saves_end = saving;
    stage->saves_end = &saving->next;
    stage->has_news = true;
    return 0;
}

static int change(struct bk_core *core, const struct bb_msg *msg)
{
    int r = 0;
    if (msg->name.len == 0 || msg->name.len > CURSOR_NAME_MAX ||
        (msg->positions.len > 0 && !are_positions(msg->positions))) {
        return BB_EINVAL;
    }
    if (msg->positions.len == 0) {
        cursor_remove(core, msg->name);
    } else {
        r = cursor_set(core, msg->name, msg->positions);
    }
    return r == 0 && core->stage.backend != NULL ? save(core, msg) : r;
}

void bk_handle_cursor(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    static const uint8_t nil[] = {0xc0};
    int r = bk_can_hold(core) ? change(core, msg) : BB_ELIMIT;
    if (r == 0) {
        bk_hold_answer(core, client, msg, bb_slice(nil, sizeof(nil)));
    } else {
        bk_client_send_error(core, client, msg->type, msg->corr, r, NULL, (struct bb_slice){0});
    }
}

void bk_cursors_collect(const struct bk_core *core, struct bb_buf *out)
{
    for (const struct bk_save *saving = core->stage.saves; saving != NULL; saving = saving->next) {
        struct bk_log_cursor entry = {
            .name = bb_slice(saving->name, saving->name_len),
            .removed = saving->removed,
            .value = bb_slice(saving->value, saving->len),
        };
        bb_buf_append(out, &entry, sizeof(entry));
    }
}

void bk_cursors_collected(struct bk_core *core)
{
    while (core->stage.saves != NULL) {
        struct bk_save *saving = core->stage.saves;
        core->stage.saves = saving->next;
        free(saving);
    }
    core->stage.saves_end = &core->stage.saves;
}

void bk_cursors_write(struct bb_buf *out, const struct bk_core *core)
{
    size_t at = 0;
    const struct bk_cursor *cursor = NULL;
    bb_mp_write_array(out, (uint32_t)bb_map_count(&core->cursors));
    while ((cursor = bb_map_next(&core->cursors, &at, NULL)) != NULL) {
        bb_mp_write_map(out, 2);
        bb_mp_write_str(out, bb_slice_str("name"));
        bb_mp_write_str(out, bb_slice(cursor->name, cursor->name_len));
        bb_mp_write_str(out, bb_slice_str("positions"));
        bb_buf_append(out, cursor->positions.data, cursor->positions.len);
    }
}

void bk_cursors_fini(struct bk_core *core)
{
    size_t at = 0;
    struct bk_cursor *cursor = NULL;
    while ((cursor = bb_map_next(&core->cursors, &at, NULL)) != NULL) {
        bb_buf_fini(&cursor->positions);
        free(cursor);
    }
    bb_map_fini(&core->cursors);
    bk_cursors_collected(core);
}
