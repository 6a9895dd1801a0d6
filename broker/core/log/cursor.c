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
    struct bk_cursor *next_unsaved;
    bool is_unsaved; /* in the list of those that the log does not have as they are */
    bool has_failed; /* it did not take it: it is told again when it can be written */
    uint64_t ticket; /* with which it is told; 0: it is to be */
    char name[CURSOR_NAME_MAX];
    size_t name_len;
    struct bb_buf
        positions; /* one MessagePack array of [channel, sequence, life?]; empty: forgotten, and here until the log knows */
};

static void cursor_free(struct bk_core *core, struct bk_cursor *cursor)
{
    (void)bb_map_remove(&core->cursors, bb_slice(cursor->name, cursor->name_len));
    bb_buf_fini(&cursor->positions);
    free(cursor);
}

static int cursor_make(struct bk_core *core, struct bb_slice name, struct bk_cursor **ret_cursor)
{
    if (bb_map_count(&core->cursors) >= CURSORS_MAX) {
        return BB_ELIMIT;
    }
    struct bk_cursor *cursor = calloc(1, sizeof(*cursor));
    if (cursor == NULL) {
        return BB_ENOMEM;
    }
    memcpy(cursor->name, name.data, name.len);
    cursor->name_len = name.len;
    int r = bb_map_add(&core->cursors, bb_slice(cursor->name, cursor->name_len), cursor);
    if (r < 0) {
        free(cursor);
        return r;
    }
    *ret_cursor = cursor;
    return 0;
}

/* Takes @positions over, or changes nothing. */
static int cursor_set(struct bk_core *core,
                      struct bb_slice name,
                      struct bb_buf *positions,
                      struct bk_cursor **ret_cursor)
{
    struct bk_cursor *cursor = bb_map_find(&core->cursors, name);
    int r = cursor == NULL ? cursor_make(core, name, &cursor) : 0;
    if (r < 0) {
        return r;
    }
    bb_buf_fini(&cursor->positions);
    cursor->positions = *positions;
    *positions = BB_BUF_INIT;
    *ret_cursor = cursor;
    return 0;
}

struct bb_slice bk_cursor_find(const struct bk_core *core, struct bb_slice name)
{
    const struct bk_cursor *cursor = bb_map_find(&core->cursors, name);
    return cursor != NULL ? bb_buf_slice(&cursor->positions) : (struct bb_slice){0};
}

int bk_cursor_load(void *context, const struct bk_log_cursor *entry)
{
    struct bk_core *core = context;
    struct bk_cursor *cursor = NULL;
    struct bb_buf positions = BB_BUF_INIT;
    bb_buf_append(&positions, entry->value.data, entry->value.len);
    int r = entry->name.len > CURSOR_NAME_MAX ? BB_ECORRUPT : positions.error;
    r = r == 0 ? cursor_set(core, entry->name, &positions, &cursor) : r;
    bb_buf_fini(&positions);
    return r;
}

/* --- saving ------------------------------------------------------------------------------------------ */

/* The life that a position without one is in: today's, if it can be. */
static uint64_t life_of(const struct bk_core *core, struct bb_slice name, uint64_t sequence)
{
    const struct bk_channel *channel = bk_channels_find(&core->channels, name);
    bool can_be = channel != NULL && sequence <= BB_MAX(channel->last, channel->shown);
    return can_be ? channel->lives.now : 0;
}

/* Write @value, distrusted, with the life of each position. Return: 0, BB_EINVAL, BB_ELIMIT, BB_ENOMEM. */
static int write_positions(const struct bk_core *core, struct bb_slice value, struct bb_buf *out)
{
    struct bb_mp_reader reader = bb_mp_reader(value);
    if (bb_mp_peek_type(&reader) != BB_MP_ARRAY) {
        return BB_EINVAL;
    }
    if (value.len > CURSOR_MAX) {
        return BB_ELIMIT;
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
    return reader.error != 0 ? BB_EINVAL : out->error;
}

/* It is registered with what comes next, so that it is on disk no later than that. */
static void tell_log(struct bk_core *core, struct bk_cursor *cursor)
{
    struct bk_stage *stage = &core->stage;
    if (stage->backend == NULL) {
        return;
    }
    if (!cursor->is_unsaved) {
        cursor->is_unsaved = true;
        cursor->next_unsaved = stage->unsaved;
        stage->unsaved = cursor;
    }
    cursor->has_failed = false;
    cursor->ticket = 0;
    stage->has_news = true;
}

static void forget(struct bk_core *core, struct bb_slice name)
{
    struct bk_cursor *cursor = bb_map_find(&core->cursors, name);
    if (cursor != NULL && core->stage.backend == NULL) {
        cursor_free(core, cursor);
    } else if (cursor != NULL) {
        bb_buf_fini(&cursor->positions);
        tell_log(core, cursor);
    }
}

int bk_cursor_change(struct bk_core *core, struct bb_slice name, struct bb_slice positions)
{
    struct bb_buf written = BB_BUF_INIT;
    struct bk_cursor *cursor = NULL;
    if (name.len == 0 || name.len > CURSOR_NAME_MAX) {
        return BB_EINVAL;
    }
    if (positions.len == 0) {
        forget(core, name);
        return 0;
    }
    int r = write_positions(core, positions, &written);
    r = r == 0 ? cursor_set(core, name, &written, &cursor) : r;
    if (r == 0) {
        tell_log(core, cursor);
    }
    bb_buf_fini(&written);
    return r;
}

/* --- telling the log ---------------------------------------------------------------------------------- */

/* Those that failed wait until it can be written, and go little by little. */
static bool may_tell(const struct bk_stage *stage, const struct bk_cursor *cursor, size_t *room)
{
    if (!cursor->has_failed) {
        return true;
    }
    size_t size = BK_ENTRY_SIZE + cursor->name_len + cursor->positions.len;
    if (stage->state != BK_BACKEND_OK || size > *room) {
        return false;
    }
    *room -= size;
    return true;
}

void bk_cursors_collect(struct bk_core *core, struct bb_buf *out)
{
    struct bk_stage *stage = &core->stage;
    size_t room = stage->backend->max_ticket / 4;
    for (struct bk_cursor *cursor = stage->unsaved; cursor != NULL; cursor = cursor->next_unsaved) {
        if (cursor->ticket == 0 && may_tell(stage, cursor, &room)) {
            struct bk_log_cursor entry = {
                .name = bb_slice(cursor->name, cursor->name_len),
                .removed = cursor->positions.len == 0,
                .value = bb_buf_slice(&cursor->positions),
            };
            bb_buf_append(out, &entry, sizeof(entry));
            cursor->ticket = stage->ticket;
        }
    }
}

void bk_cursors_stalled(struct bk_core *core)
{
    for (struct bk_cursor *cursor = core->stage.unsaved; cursor != NULL; cursor = cursor->next_unsaved) {
        cursor->ticket = cursor->ticket == core->stage.ticket ? 0 : cursor->ticket;
    }
}

void bk_cursors_saved(struct bk_core *core, uint64_t durable)
{
    struct bk_cursor **at = &core->stage.unsaved;
    while (*at != NULL) {
        struct bk_cursor *cursor = *at;
        if (cursor->ticket == 0 || cursor->ticket > durable) {
            at = &cursor->next_unsaved;
            continue;
        }
        *at = cursor->next_unsaved;
        cursor->is_unsaved = false;
        if (cursor->positions.len == 0) {
            cursor_free(core, cursor);
        }
    }
}

void bk_cursors_failed(struct bk_core *core, uint64_t failed)
{
    for (struct bk_cursor *cursor = core->stage.unsaved; cursor != NULL; cursor = cursor->next_unsaved) {
        if (cursor->ticket == 0 || cursor->ticket >= failed) {
            cursor->has_failed = true;
            cursor->ticket = 0;
        }
    }
}

bool bk_cursors_wait(const struct bk_core *core)
{
    const struct bk_cursor *cursor = core->stage.unsaved;
    while (cursor != NULL && cursor->ticket != 0) {
        cursor = cursor->next_unsaved;
    }
    return cursor != NULL && core->stage.state == BK_BACKEND_OK;
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
}
