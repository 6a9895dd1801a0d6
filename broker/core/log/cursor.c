/* SPDX-License-Identifier: Apache-2.0 */
/* Durable cursors (PROTOCOL 15.3): places in channels under a name, which outlive their client and, with a log, the broker. */
#include "broker/core/log/cursor.h"

#include "broker/core/backend.h"
#include "broker/core/keep/channel.h"
#include "broker/core/log/stage.h"
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

/* The life that a position without one is in: today's, if it can be. */
static uint64_t life_of(const struct bk_core *core, struct bb_slice name, uint64_t sequence)
{
    const struct bk_channel *channel = bk_channels_find(&core->channels, name);
    bool can_be = channel != NULL && sequence <= BB_MAX(channel->last, channel->shown);
    return can_be ? channel->lives.now : 0;
}

/* Write @value, distrusted, with the life of each position. Return: 0 or BB_EINVAL. */
static int write_positions(const struct bk_core *core, struct bb_slice value, struct bb_buf *out)
{
    struct bb_mp_reader reader = bb_mp_reader(value);
    if (bb_mp_peek_type(&reader) != BB_MP_ARRAY || value.len > CURSOR_MAX) {
        return BB_EINVAL;
    }
    uint32_t n = bb_mp_read_array(&reader);
    bb_mp_write_array(out, n);
    for (uint32_t i = 0; i < n && reader.error == 0; i++) {
        uint32_t n_fields = bb_mp_read_array(&reader);
        struct bb_slice name = bb_mp_read_str(&reader);
        uint64_t sequence = bb_mp_read_uint(&reader);
        if (n_fields < 2 || n_fields > 3) {
            return BB_EINVAL;
        }
        if (sequence > UINT64_C(1) << 53) {
            return BB_EINVAL;
        }
        uint64_t life = n_fields == 3 ? bb_mp_read_uint(&reader) : life_of(core, name, sequence);
        bb_mp_write_array(out, life != 0 ? 3 : 2);
        bb_mp_write_str(out, name);
        bb_mp_write_uint(out, sequence);
        if (life != 0) {
            bb_mp_write_uint(out, life);
        }
    }
    return reader.error != 0 ? BB_EINVAL : 0;
}

static int save(struct bk_core *core, struct bb_slice name, struct bb_slice positions)
{
    struct bk_stage *stage = &core->stage;
    struct bk_save *saving = calloc(1, sizeof(*saving) + positions.len);
    if (saving == NULL) {
        return BB_ENOMEM;
    }
    saving->removed = positions.len == 0;
    saving->name_len = name.len;
    memcpy(saving->name, name.data, name.len);
    saving->len = positions.len;
    if (saving->len > 0) {
        memcpy(saving->value, positions.data, saving->len);
    }
    *stage->saves_end = saving;
    stage->saves_end = &saving->next;
    stage->has_news = true;
    return 0;
}

int bk_cursor_change(struct bk_core *core, struct bb_slice name, struct bb_slice positions)
{
    struct bb_buf written = BB_BUF_INIT;
    int r = name.len == 0 || name.len > CURSOR_NAME_MAX ? BB_EINVAL : 0;
    if (r == 0 && positions.len > 0) {
        r = write_positions(core, positions, &written);
        r = r == 0 && written.error != 0 ? BB_ENOMEM : r;
    }
    if (r == 0 && positions.len == 0) {
        cursor_remove(core, name);
    } else if (r == 0) {
        r = cursor_set(core, name, bb_buf_slice(&written));
    }
    if (r == 0 && core->stage.backend != NULL) {
        r = save(core, name, bb_buf_slice(&written));
    }
    bb_buf_fini(&written);
    return r;
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
