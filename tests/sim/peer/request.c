/* SPDX-License-Identifier: Apache-2.0 */
/* Queries, and what is done with channels. */
#include "proto/wire/event.h"
#include "proto/wire/mp.h"

#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdio.h>

/* --- queries ---------------------------------------------------------------------------------- */

static void key(struct bb_buf *members, uint32_t *n, const char *name)
{
    bb_mp_write_str(members, bb_slice_str(name));
    ++*n;
}

static void write_id(struct bb_buf *out, const struct world *world, uint64_t session, uint64_t instance)
{
    bb_mp_write_array(out, 3);
    bb_mp_write_uint(out, world->config.server);
    bb_mp_write_uint(out, session);
    bb_mp_write_uint(out, instance);
}

static const struct truth_event *some_event(const struct world *world, struct sim_rng *rng)
{
    return world->truth.n_visible > 0 ? world->truth.visible[sim_below(rng, world->truth.n_visible)] : NULL;
}

static void write_ids(struct world *world, struct sim_rng *rng, struct bb_buf *out)
{
    uint32_t n = (uint32_t)sim_between(rng, 1, 4);
    bb_mp_write_array(out, n);
    for (uint32_t i = 0; i < n; i++) {
        const struct truth_event *event = some_event(world, rng);
        write_id(out, world, event != NULL ? event->session : 1, event != NULL ? event->instance : 1);
    }
}

static void write_where(struct sim_rng *rng, struct bb_buf *out)
{
    static const char *const ops[] = {"==", "!=", "<", "<=", ">", ">="};
    char text[80];
    const char *op = ops[sim_below(rng, BB_COUNT(ops))];
    if (sim_chance(rng, 500)) {
        (void)snprintf(text, sizeof(text), ".[2] %s %" PRIu64, op, sim_below(rng, 4));
    } else {
        (void)snprintf(text, sizeof(text), ".[1] %s %" PRIu64 " && .[2] != %" PRIu64, op, sim_below(rng, 60),
                       sim_below(rng, 4));
    }
    bb_mp_write_str(out, bb_slice_str(text));
}

static void write_conditions(struct world *world, struct sim_rng *rng, struct bb_buf *out, uint32_t *n)
{
    const struct truth_event *event = some_event(world, rng);
    char text[24];
    if (sim_chance(rng, 700)) {
        uint32_t n_types = (uint32_t)sim_between(rng, 1, 3);
        key(out, n, "types");
        bb_mp_write_array(out, n_types);
        for (uint32_t i = 0; i < n_types; i++) {
            bb_mp_write_str(out, words_pattern(world, rng, text));
        }
    }
    if (sim_chance(rng, 250)) {
        key(out, n, "t_from");
        bb_mp_write_uint(out, world_wall(world) - sim_below(rng, 400000));
    }
    if (sim_chance(rng, 200)) {
        key(out, n, "t_to");
        bb_mp_write_uint(out, world_wall(world) - sim_below(rng, 300000));
    }
    if (sim_chance(rng, 150)) {
        key(out, n, "source_t_from");
        bb_mp_write_uint(out, sim_below(rng, 500));
        key(out, n, "source_t_to");
        bb_mp_write_uint(out, 500 + sim_below(rng, 500));
    }
    if (sim_chance(rng, 200)) {
        key(out, n, "where");
        write_where(rng, out);
    }
    if (sim_chance(rng, 60) && event != NULL) {
        key(out, n, "session");
        bb_mp_write_uint(out, event->session);
    }
    if (sim_chance(rng, 60)) {
        key(out, n, "ids");
        write_ids(world, rng, out);
    }
    if (sim_chance(rng, 60) && event != NULL) {
        key(out, n, "payload");
        bb_buf_append(out, event->payload.data, event->payload.len);
    }
}

static void write_order(struct world *world, struct sim_rng *rng, struct bb_buf *out, uint32_t *n)
{
    uint64_t kind = sim_below(rng, 10);
    if (kind < 3) {
        key(out, n, "kind");
        bb_mp_write_str(out, bb_slice_str("latest"));
    } else if (kind < 4) {
        key(out, n, "kind");
        bb_mp_write_str(out, bb_slice_str("server"));
        key(out, n, "server");
        bb_mp_write_uint(out, world->config.server);
    } else {
        key(out, n, "order");
        bb_mp_write_str(out, bb_slice_str(sim_chance(rng, 500) ? "ascending" : "descending"));
        if (sim_chance(rng, 250)) {
            key(out, n, "order_by");
            bb_mp_write_str(out, bb_slice_str("source_time"));
        }
        if (sim_chance(rng, 200)) {
            key(out, n, "unique");
            bb_mp_write_bool(out, true);
        }
    }
}

/* The map is put together of the members that stay and those of the page. */
static void ask(struct sim_peer *peer, uint32_t n, struct bb_slice page)
{
    struct bb_buf map = BB_BUF_INIT;
    bb_mp_write_map(&map, n);
    bb_buf_append(&map, peer->query.data, peer->query.len);
    bb_buf_append(&map, page.data, page.len);
    peer->query_corr = ++peer->corr;
    peer_send_msg(
        peer, &(struct bb_msg){.type = BB_MSG_QUERY, .corr = peer->query_corr, .query = bb_buf_slice(&map)});
    bb_buf_fini(&map);
}

void peer_query(struct sim_peer *peer, struct sim_rng *rng)
{
    struct world *world = peer->world;
    if (peer->query_corr != 0 || (!world->has_log && !world->has_memory)) {
        return;
    }
    bb_buf_reset(&peer->query);
    peer->n_query = 0;
    write_conditions(world, rng, &peer->query, &peer->n_query);
    write_order(world, rng, &peer->query, &peer->n_query);
    if (sim_chance(rng, 600)) {
        key(&peer->query, &peer->n_query, "max");
        bb_mp_write_uint(&peer->query, sim_between(rng, 1, 12));
    }
    peer->query_pages = sim_chance(rng, 600) ? 6 : 0;
    ask(peer, peer->n_query, (struct bb_slice){0});
}

static bool asks_for(const struct sim_peer *peer, const char *text)
{
    size_t len = strlen(text);
    for (size_t i = 0; i + len <= peer->query.len; i++) {
        if (memcmp(peer->query.data + i, text, len) == 0) {
            return true;
        }
    }
    return false;
}

/* Go on behind the last event of the page. */
void peer_query_answer(struct sim_peer *peer, const struct bb_msg *msg)
{
    struct bb_slice rest = msg->body;
    struct bb_block block = {0};
    struct bb_event_view view = {0};
    struct bb_attributes attributes = {0};
    struct bb_buf page = BB_BUF_INIT;
    uint32_t n = peer->n_query;
    peer->query_corr = 0;
    if (msg->more == 0 || peer->query_pages == 0 || rest.len == 0) {
        return;
    }
    peer->query_pages--;
    while (rest.len > 0 && bb_block_read(&rest, &block) == 0) {
        struct bb_slice events = bb_slice(rest.data, (size_t)block.length);
        for (uint64_t i = 0; i < block.count && bb_event_read(&events, &view) == 0; i++) {
        }
        rest = bb_slice(rest.data + block.length, rest.len - (size_t)block.length);
    }
    if (asks_for(peer, "latest")) {
        key(&page, &n, "after_path");
        bb_mp_write_str(&page, view.path);
    } else {
        key(&page, &n, "after");
        write_id(&page, peer->world, block.session, block.instance + block.count - 1);
        if (asks_for(peer, "order_by") && bb_event_attributes(view.attributes, &attributes) == 0) {
            key(&page, &n, "after_source_t");
            bb_mp_write_int(&page, attributes.source_time);
        }
    }
    ask(peer, n, bb_buf_slice(&page));
    bb_buf_fini(&page);
}

/* --- channels --------------------------------------------------------------------------------- */

static void write_settings(struct world *world, struct sim_rng *rng, bool is_add, struct bb_buf *map)
{
    static const char *const policies[] = {"slide", "drop_oldest", "drop_newest", "conflate", "refuse"};
    const struct profile *profile = &world->plan.profile;
    struct bb_buf members = BB_BUF_INIT;
    uint32_t n = 0;
    if (is_add && world->has_log && sim_chance(rng, profile->in_memory)) {
        key(&members, &n, "store");
        bb_mp_write_str(&members, bb_slice_str("memory"));
    }
    if (sim_chance(rng, profile->limits)) {
        key(&members, &n, "max_events");
        bb_mp_write_uint(&members, sim_between(rng, 1, 30));
    }
    if (sim_chance(rng, profile->limits) && sim_chance(rng, 400)) {
        key(&members, &n, "max_bytes");
        bb_mp_write_uint(&members, sim_between(rng, 200, 4000));
    }
    if (sim_chance(rng, profile->per_path)) {
        key(&members, &n, "max_per_path");
        bb_mp_write_uint(&members, sim_between(rng, 1, 4));
    }
    if (sim_chance(rng, profile->age)) {
        key(&members, &n, "max_age");
        bb_mp_write_uint(&members, sim_between(rng, 5, 200));
    }
    if (sim_chance(rng, profile->floor)) {
        key(&members, &n, "min_events");
        bb_mp_write_uint(&members, sim_between(rng, 1, 20));
    }
    if (sim_chance(rng, profile->lazy)) {
        key(&members, &n, "sync");
        bb_mp_write_bool(&members, sim_chance(rng, 200));
    }
    if (sim_chance(rng, profile->early_channels)) {
        key(&members, &n, "early");
        bb_mp_write_bool(&members, true);
    }
    if (sim_chance(rng, profile->channel_policies)) {
        key(&members, &n, "overflow");
        bb_mp_write_str(&members, bb_slice_str(policies[sim_below(rng, BB_COUNT(policies))]));
    }
    bb_mp_write_map(map, n);
    bb_buf_append(map, members.data, members.len);
    bb_buf_fini(&members);
}

static void channel(struct sim_peer *peer, const char *action, struct bb_slice name, struct bb_slice settings)
{
    peer_send_msg(peer, &(struct bb_msg){.type = BB_MSG_CHANNEL,
                                         .corr = ++peer->corr,
                                         .action = bb_slice_str(action),
                                         .name = name,
                                         .settings = settings});
}

void peer_settings(struct sim_peer *peer, struct sim_rng *rng)
{
    struct bb_buf map = BB_BUF_INIT;
    char text[24];
    struct bb_slice name = words_name(peer->world, rng, text);
    const struct truth_inc *inc = peer->world->truth.names[truth_name(peer->world, name)].inc;
    bool is_add = inc == NULL || inc->is_ended || (inc->n == 0 && sim_chance(rng, 500));
    write_settings(peer->world, rng, is_add, &map);
    channel(peer, is_add ? "add" : "set", name, bb_buf_slice(&map));
    bb_buf_fini(&map);
    if (sim_chance(rng, 100)) {
        channel(peer, sim_chance(rng, 500) ? "info" : "ls", name, (struct bb_slice){0});
    }
}

void peer_remove(struct sim_peer *peer, struct sim_rng *rng)
{
    char text[24];
    channel(peer, "rm", words_name(peer->world, rng, text), (struct bb_slice){0});
}

void peer_trim(struct sim_peer *peer, struct sim_rng *rng)
{
    struct bb_buf map = BB_BUF_INIT;
    char text[24];
    struct bb_slice name = words_name(peer->world, rng, text);
    const struct truth_inc *inc = peer->world->truth.names[truth_name(peer->world, name)].inc;
    uint64_t last = inc != NULL ? inc->n : 3;
    bool is_before = sim_chance(rng, 600);
    bb_mp_write_map(&map, 1);
    bb_mp_write_str(&map, bb_slice_str(is_before ? "before" : "keep"));
    bb_mp_write_uint(&map, sim_below(rng, is_before ? last + 3 : 20));
    channel(peer, "trim", name, bb_buf_slice(&map));
    bb_buf_fini(&map);
}
