/* SPDX-License-Identifier: Apache-2.0 */
/* Names, paths, patterns and events. */
#include "proto/wire/event.h"
#include "proto/wire/mp.h"

#include "tests/sim/model/published.h"
#include "tests/sim/peer/peer.h"
#include "tests/sim/world.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const names[] = {"a",  "b",  "c",  "",   "d",  "e",  "f0",
                                    "f1", "f2", "f3", "f4", "f5", "f6", "f7"};
static const char *const tails[] = {"/x", "/y", "", "/x/1", "/", "/z", "//", "/x/"};

static const struct {
    const char *path;
    const char *refusal;
} bad_paths[] = {{"a/*", "bad_path"}, {"?/x", "bad_path"}, {"$sys/x", "refused"}, {"b/x*", "bad_path"}};

/* Names come one after the other: the last ones late. */
static const char *choose_name(struct world *world, struct sim_rng *rng)
{
    uint64_t n = BB_MIN(world->plan.profile.n_names, BB_COUNT(names));
    uint64_t known = BB_MIN(n, 2 + world->now / 30000);
    return names[sim_below(rng, known)];
}

struct bb_slice words_name(struct world *world, struct sim_rng *rng, char *text)
{
    (void)snprintf(text, 24, "%s", choose_name(world, rng));
    return bb_slice_str(text);
}

struct bb_slice words_path(struct world *world, struct sim_rng *rng, char *text)
{
    const char *name = choose_name(world, rng);
    uint64_t n = BB_MIN(world->plan.profile.n_paths, BB_COUNT(tails));
    (void)snprintf(text, 24, "%s%s", name, tails[sim_below(rng, n)]);
    return bb_slice_str(text);
}

struct bb_slice words_pattern(struct world *world, struct sim_rng *rng, char *text)
{
    static const char *const wild[] = {"*", "*", "?/x", "?", "?/?", "?/*", "?/x/*"};
    static const char *const ends[] = {"/*", "/*", "/*", "/?", "/?/?"};
    if (sim_chance(rng, world->plan.profile.wildcard)) {
        (void)snprintf(text, 24, "%s", wild[sim_below(rng, BB_COUNT(wild))]);
    } else if (sim_chance(rng, 750)) {
        (void)snprintf(text, 24, "%s%s", choose_name(world, rng), ends[sim_below(rng, BB_COUNT(ends))]);
    } else {
        return words_path(world, rng, text);
    }
    return bb_slice_str(text);
}

static size_t payload_size(struct world *world, struct sim_rng *rng)
{
    if (sim_chance(rng, world->plan.profile.large)) {
        return sim_between(rng, 300, 3000);
    }
    return sim_below(rng, 40);
}

/* [writer, serial, a small number, filler] */
static void
write_payload(struct world *world, struct sim_rng *rng, uint64_t writer, uint64_t serial, struct bb_buf *out)
{
    static const uint8_t filler[3001];
    bb_mp_write_array(out, 4);
    bb_mp_write_uint(out, writer);
    bb_mp_write_uint(out, serial);
    bb_mp_write_uint(out, sim_below(rng, 4));
    bb_mp_write_bin(out, bb_slice(filler, payload_size(world, rng)));
}

static void choose_attributes(struct world *world,
                              struct sim_rng *rng,
                              struct bb_attributes *attributes,
                              struct bb_buf *id,
                              struct bb_buf *headers)
{
    if (sim_chance(rng, world->plan.profile.ttl)) {
        attributes->has_ttl = true;
        attributes->ttl_ms = sim_chance(rng, 700) ? sim_between(rng, 1, 60) : 100000000;
    }
    if (sim_chance(rng, 200)) {
        attributes->has_source_time = true;
        attributes->source_time = (int64_t)sim_below(rng, 1000);
    }
    if (sim_chance(rng, 150)) {
        attributes->priority = (int32_t)sim_below(rng, 9) - 4;
    }
    if (sim_chance(rng, 100)) {
        bb_mp_write_str(id, bb_slice_str("own"));
    } else if (sim_chance(rng, 100)) {
        bb_mp_write_uint(id, sim_below(rng, 1000));
    }
    if (sim_chance(rng, 100)) {
        bb_mp_write_map(headers, 1);
        bb_mp_write_str(headers, bb_slice_str("h"));
        bb_mp_write_str(headers, bb_slice_str("v"));
    }
    attributes->id = bb_buf_slice(id);
    attributes->headers = bb_buf_slice(headers);
}

void words_event(struct world *world,
                 struct sim_rng *rng,
                 uint64_t writer,
                 bool is_numbered,
                 bool may_be_bad,
                 struct bb_slice path,
                 struct bb_buf *body)
{
    struct bb_attributes attributes = {0};
    struct bb_buf payload = BB_BUF_INIT;
    struct bb_buf id = BB_BUF_INIT;
    struct bb_buf headers = BB_BUF_INIT;
    const char *refusal = NULL;
    size_t start = body->len;
    if (may_be_bad && sim_chance(rng, 30)) {
        size_t bad = sim_below(rng, BB_COUNT(bad_paths));
        path = bb_slice_str(bad_paths[bad].path);
        refusal = bad_paths[bad].refusal;
    }
    choose_attributes(world, rng, &attributes, &id, &headers);
    write_payload(world, rng, writer, written_next(world, writer), &payload);
    bb_event_write(body, path, bb_buf_slice(&payload), &attributes);
    (void)written_add(world, writer, bb_slice(body->data + start, body->len - start), refusal, is_numbered);
    bb_buf_fini(&payload);
    bb_buf_fini(&id);
    bb_buf_fini(&headers);
}
