/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/ingest/expect.h"

#include "proto/wire/path.h"

#include "broker/core/backend.h"
#include "broker/core/clients/client.h"
#include "broker/core/ingest/defer.h"
#include "broker/core/keep/channel.h"
#include "broker/core/keep/ring.h"
#include "broker/core/log/ask.h"
#include "broker/core/log/stage.h"
#include "broker/core/state.h"

#include <stdlib.h>

#define EXPECTATIONS_MAX 256

/* What a backend answered, until the publish that asked has been judged. */
struct bk_known {
    uint32_t channel;
    uint64_t sequence; /* of the newest event of the path, 0 for none */
    uint64_t last;     /* of what the backend looked at */
    size_t len;
    uint8_t path[BB_PATH_MAX];
};

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
newest_staged(const struct bk_core *core, const struct bk_channel *channel, struct bb_slice path)
{
    const struct bk_stage *stage = &core->stage;
    uint64_t found = 0;
    for (size_t i = bk_stage_end(stage); i > stage->first && found == 0; i--) {
        const struct bk_block *block = &bk_stage_at(stage, i - 1)->block;
        found = block->channel == channel ? newest_in(block, path) : 0;
    }
    return found;
}

static uint64_t
newest_here(const struct bk_core *core, const struct bk_channel *channel, struct bb_slice path)
{
    uint64_t found = newest_staged(core, channel, path);
    const struct bk_block *block = bk_ring_newest_of(&core->ring, channel);
    for (; block != NULL && found == 0; block = bk_ring_previous_of(&core->ring, block)) {
        found = newest_in(block, path);
    }
    return found;
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

struct asked {
    struct bk_ask ask;
    struct bk_locate locate;
    struct bk_locate_place place;
    size_t path_len;
    uint8_t path[BB_PATH_MAX];
};

static int note_known(struct bk_client *client, const struct asked *asked)
{
    struct bk_known known = {
        .channel = asked->place.channel,
        .sequence = asked->place.sequence,
        .last = asked->place.last,
        .len = asked->path_len,
    };
    memcpy(known.path, asked->path, known.len);
    bb_buf_append(&client->known, &known, sizeof(known));
    return client->known.error;
}

static void on_located(void *context, struct bk_request *request)
{
    struct asked *asked = context;
    struct bk_client *client = asked->ask.client;
    struct bk_core *core = asked->ask.core;
    if (client != NULL) {
        int r = request->error != 0 ? request->error : note_known(client, asked);
        if (r < 0) {
            bk_client_send_away(core, client, r, NULL);
        } else {
            bk_deferred_resume(core, client);
        }
    }
    bk_ask_end(&asked->ask);
    free(asked);
}

static int ask_backend(struct bk_core *core,
                       struct bk_client *client,
                       const struct bk_channel *channel,
                       struct bb_slice path)
{
    struct bk_backend *backend = core->backends[bk_store_of(core, channel)];
    struct asked *asked = calloc(1, sizeof(*asked));
    if (asked == NULL) {
        return BB_ENOMEM;
    }
    int r = bk_ask_begin(core, client, &(struct bb_msg){.type = BB_MSG_PUBLISH}, &asked->ask);
    if (r < 0) {
        free(asked);
        return r;
    }
    asked->path_len = path.len;
    memcpy(asked->path, path.data, path.len);
    asked->place.channel = channel->id;
    asked->locate = (struct bk_locate){
        .request = {.kind = BK_REQUEST_LOCATE, .done = on_located, .context = asked},
        .kind = BK_LOCATE_PATH,
        .path = bb_slice(asked->path, asked->path_len),
        .places = &asked->place,
        .n_places = 1,
    };
    backend->ops->submit(backend, &asked->locate.request);
    return BB_EAGAIN;
}

/* Whether the backend may know of events that the ring has not: of a path it keeps the newest one whatever is trimmed. */
static bool backend_has_more(const struct bk_core *core, const struct bk_channel *channel)
{
    return core->backends[bk_store_of(core, channel)] != NULL && channel->first > 1;
}

/* Return: 0, or BB_EAGAIN: the backend has been asked; or why it could not be. */
static int
newest_of(struct bk_core *core, struct bk_client *client, struct bb_slice path, uint64_t *ret_sequence)
{
    const struct bk_channel *channel = bk_channels_find(&core->channels, bb_path_channel(path));
    *ret_sequence = channel != NULL ? newest_here(core, channel, path) : 0;
    if (channel == NULL || *ret_sequence != 0 || !backend_has_more(core, channel)) {
        return 0;
    }
    const struct bk_known *known = find_known(client, channel, path);
    if (known != NULL) {
        *ret_sequence = known->sequence;
        return 0;
    }
    return ask_backend(core, client, channel, path);
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

void bk_expect_explain(struct bb_buf *out, struct bb_slice detail)
{
    struct bb_mp_reader reader = bb_mp_reader(detail);
    (void)bb_mp_read_map(&reader);
    struct bb_slice what = bb_mp_read_str(&reader);
    struct bb_slice name = bb_mp_read_str(&reader);
    (void)bb_mp_read_str(&reader);
    uint64_t last = bb_mp_read_uint(&reader);
    bb_buf_printf(out, "the newest of the %.*s '%.*s' is %llu", (int)what.len, (const char *)what.data,
                  (int)name.len, name.len > 0 ? (const char *)name.data : "", (unsigned long long)last);
}
