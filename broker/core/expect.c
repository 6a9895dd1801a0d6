/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publishing under a condition (PROTOCOL 6.4): the newest sequence of a channel, or of a path in its channel, is what the publisher
 * thinks. What is staged or in the ring the core sees for itself; for older events it asks the log, and the client's messages
 * wait meanwhile, so that their order stays.
 */
#include "proto/wire/path.h"

#include "broker/core/state.h"

#include <stdlib.h>

/* Messages of one client that wait. */
#define DEFERRED_MAX ((size_t)32 << 20)

#define EXPECTATIONS_MAX 256

struct bk_deferred {
    struct bk_deferred *next;
    struct bk_bytes *owner; /* NULL: the bytes are behind the struct */
    struct bb_slice bytes;
    uint8_t copy[];
};

/* What the log answered, until the publish that asked has been judged. */
struct bk_known {
    uint32_t channel;
    uint64_t sequence; /* of the newest event of the path, 0 for none */
    uint64_t last;     /* of what the log looked at */
    size_t len;
    uint8_t path[BB_PATH_MAX];
};

/* --- messages that wait ------------------------------------------------------------------------------ */

int bk_defer(struct bk_core *core, struct bk_client *client, struct bb_slice bytes, struct bk_bytes *owner)
{
    if (client->deferred_bytes + bytes.len > DEFERRED_MAX) {
        bk_client_send_away(core, client, BB_EOVERFLOW, "too many messages while it had to wait for the log");
        return BB_EOVERFLOW;
    }
    struct bk_deferred *deferred = calloc(1, sizeof(*deferred) + (owner == NULL ? bytes.len : 0));
    if (deferred == NULL) {
        bk_client_send_away(core, client, BB_ENOMEM, NULL);
        return BB_ENOMEM;
    }
    deferred->bytes = bytes;
    if (owner != NULL) {
        deferred->owner = bk_bytes_ref(owner);
    } else {
        memcpy(deferred->copy, bytes.data, bytes.len);
        deferred->bytes = bb_slice(deferred->copy, bytes.len);
    }
    client->deferred_bytes += bytes.len;
    *(client->deferred_last != NULL ? &client->deferred_last->next : &client->deferred_first) = deferred;
    client->deferred_last = deferred;
    return 0;
}

struct bk_deferred *
bk_deferred_take(struct bk_client *client, struct bb_slice *ret_bytes, struct bk_bytes **ret_owner)
{
    struct bk_deferred *deferred = client->deferred_first;
    if (deferred == NULL) {
        return NULL;
    }
    client->deferred_first = deferred->next;
    client->deferred_last = deferred->next == NULL ? NULL : client->deferred_last;
    client->deferred_bytes -= deferred->bytes.len;
    *ret_bytes = deferred->bytes;
    *ret_owner = deferred->owner;
    return deferred;
}

void bk_deferred_return(struct bk_client *client, struct bk_deferred *deferred)
{
    deferred->next = client->deferred_first;
    client->deferred_first = deferred;
    client->deferred_last = client->deferred_last != NULL ? client->deferred_last : deferred;
    client->deferred_bytes += deferred->bytes.len;
}

void bk_deferred_free(struct bk_deferred *deferred)
{
    bk_bytes_unref(deferred->owner);
    free(deferred);
}

void bk_deferred_forget(struct bk_client *client)
{
    struct bb_slice bytes;
    struct bk_bytes *owner = NULL;
    struct bk_deferred *deferred = NULL;
    while ((deferred = bk_deferred_take(client, &bytes, &owner)) != NULL) {
        bk_deferred_free(deferred);
    }
    bb_buf_fini(&client->known);
}

/* --- the newest event of a path ------------------------------------------------------------------------ */

/* The newest sequence of @path in @block, 0 if it has none. */
static uint64_t newest_in(const struct bk_block *block, struct bb_slice path)
{
    struct bb_slice rest = bb_slice(block->body, block->body_len);
    struct bb_event_view event;
    uint64_t found = 0;
    for (uint32_t i = 0; i < block->count && bb_event_read(&rest, &event) == 0; i++) {
        bool is_it = bb_slice_equal(event.path, path);
        if (block->uniform) {
            return is_it ? block->sequence + block->count - 1 : 0;
        }
        found = is_it ? block->sequence + i : found;
    }
    return found;
}

static uint64_t
newest_here(const struct bk_core *core, const struct bk_channel *channel, struct bb_slice path)
{
    const struct bk_stage *stage = &core->stage;
    for (size_t i = stage->blocks.len / sizeof(struct bk_staged); i > stage->first; i--) {
        const struct bk_block *block =
            &((const struct bk_staged *)(const void *)stage->blocks.data + i - 1)->block;
        uint64_t found = block->channel == channel ? newest_in(block, path) : 0;
        if (found != 0) {
            return found;
        }
    }
    const struct bk_block *block = bk_ring_newest_of(&core->ring, channel);
    for (; block != NULL; block = bk_ring_previous_of(&core->ring, block)) {
        uint64_t found = newest_in(block, path);
        if (found != 0) {
            return found;
        }
    }
    return 0;
}

static const struct bk_known *
find_known(const struct bk_client *client, const struct bk_channel *channel, struct bb_slice path)
{
    const struct bk_known *known = (const struct bk_known *)(const void *)client->known.data;
    for (size_t i = 0; i < client->known.len / sizeof(*known); i++) {
        if (known[i].channel == channel->id && known[i].last + 1 >= channel->first &&
            bb_slice_equal(bb_slice(known[i].path, known[i].len), path)) {
            return &known[i];
        }
    }
    return NULL;
}

/* Return: 0, or BB_EAGAIN: the log has been asked; or why it could not be. */
static int
newest_of(struct bk_core *core, struct bk_client *client, struct bb_slice path, uint64_t *ret_sequence)
{
    const struct bk_channel *channel = bk_channels_find(&core->channels, bb_path_channel(path));
    *ret_sequence = channel != NULL ? newest_here(core, channel, path) : 0;
    if (channel == NULL || *ret_sequence != 0 || bk_store_of(core, channel) != BK_STORE_LOG ||
        channel->log_first >= channel->first) {
        return 0;
    }
    const struct bk_known *known = find_known(client, channel, path);
    if (known != NULL) {
        *ret_sequence = known->sequence;
        return 0;
    }
    int r = bk_ask_path(core, client, channel, path);
    return r < 0 ? r : BB_EAGAIN;
}

void bk_expect_located(struct bk_client *client, const struct bk_locate *locate)
{
    struct bk_known known = {
        .channel = locate->places[0].channel,
        .sequence = locate->places[0].sequence,
        .last = locate->places[0].last,
        .len = BB_MIN(locate->path.len, BB_PATH_MAX),
    };
    memcpy(known.path, locate->path.data, known.len);
    bb_buf_append(&client->known, &known, sizeof(known));
}

/* --- judging -------------------------------------------------------------------------------------------- */

static int conflict(struct bk_core *core, const char *what, struct bb_slice name, uint64_t last)
{
    bb_buf_reset(&core->nested);
    bb_mp_write_map(&core->nested, 2);
    bb_mp_write_str(&core->nested, bb_slice_str(what));
    bb_mp_write_str(&core->nested, name);
    bb_mp_write_str(&core->nested, bb_slice_str("last"));
    bb_mp_write_uint(&core->nested, last);
    return BB_ECONFLICT;
}

static int judge_channels(struct bk_core *core, struct bb_mp_reader *reader)
{
    uint64_t n = bb_mp_read_map(reader);
    for (uint64_t i = 0; i < n && reader->error == 0; i++) {
        struct bb_slice name = bb_mp_read_str(reader);
        uint64_t expected = bb_mp_read_uint(reader);
        const struct bk_channel *channel = bk_channels_find(&core->channels, name);
        uint64_t last = channel != NULL ? channel->taken : 0;
        if (reader->error == 0 && last != expected) {
            return conflict(core, "channel", name, last);
        }
    }
    return reader->error != 0 ? BB_EINVAL : 0;
}

static int judge_paths(struct bk_core *core, struct bk_client *client, struct bb_mp_reader *reader)
{
    uint64_t n = bb_mp_read_map(reader);
    if (n > EXPECTATIONS_MAX) {
        return BB_ELIMIT;
    }
    for (uint64_t i = 0; i < n && reader->error == 0; i++) {
        struct bb_slice path = bb_mp_read_str(reader);
        uint64_t expected = bb_mp_read_uint(reader);
        uint64_t last = 0;
        if (reader->error != 0 || bb_path_check(path) < 0) {
            return BB_EINVAL;
        }
        int r = newest_of(core, client, path, &last);
        if (r < 0) {
            return r;
        }
        if (last != expected) {
            return conflict(core, "path", path, last);
        }
    }
    return reader->error != 0 ? BB_EINVAL : 0;
}

int bk_expect_judge(struct bk_core *core, struct bk_client *client, struct bb_slice options)
{
    struct bb_mp_reader reader = bb_mp_reader(options);
    if (options.len == 0 || bb_mp_peek_type(&reader) == BB_MP_NIL) {
        return 0;
    }
    uint64_t n = bb_mp_read_map(&reader);
    int r = reader.error != 0 ? BB_EINVAL : 0;
    for (uint64_t i = 0; i < n && r == 0 && reader.error == 0; i++) {
        struct bb_slice key = bb_mp_read_str(&reader);
        if (bb_slice_equal(key, bb_slice_str("expect"))) {
            r = judge_channels(core, &reader);
        } else if (bb_slice_equal(key, bb_slice_str("expect_path"))) {
            r = judge_paths(core, client, &reader);
        } else {
            bb_mp_skip(&reader);
        }
    }
    return r == 0 && reader.error != 0 ? BB_EINVAL : r;
}
