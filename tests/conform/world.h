/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every conformance test needs: a backend opened through the registry, blocks built from lists of
 * events, dispatch() called when fd() says so and never for longer than a deadline, and what the backend
 * tells written down and held against the contract.
 */
#pragma once

#include "broker/backend/registry.h"

#include <criterion/criterion.h>
#include <stdatomic.h>

#define SERVER   7
#define TIME0    UINT64_C(1700000000000000) /* us; block s is of TIME0 + 1000 * s */
#define CHANNELS 128

/* The channels that are there from the beginning: 1 to 3. The channel c has the name "c<c>". */
#define DECLARED 3

struct spec {
    const char *path;
    int64_t value;       /* the payload, or the first of [value, padding] */
    int64_t source_time; /* 0: none */
    uint64_t ttl_ms;     /* 0: none */
    size_t padding;
};

/* One event that was found. */
struct hit {
    uint64_t session;
    uint64_t instance;
    uint64_t sequence;
    uint64_t time;
    int64_t value;
    char path[32];
};

struct world {
    const char *name;
    char directory[64];
    const char *options[5];
    size_t n_options;
    struct bk_backend *backend;
    struct bk_backend_listener listener;
    struct bk_meter meter;
    /* From the next open on; else the clock is that of the newest block, or what it was set to. */
    bool has_system_clock;
    atomic_uint_fast64_t clock; /* us */
    bool is_told;               /* inside dispatch() or close() */
    uint64_t ticket;            /* the last one */
    uint64_t registered;
    uint64_t flushed;
    int flush_error;
    uint64_t trimmed[CHANNELS];
    size_t n_done;
    uint64_t session;
    uint64_t sequences[CHANNELS];
    struct bk_log_block blocks[16]; /* staged */
    struct bb_buf events[16];
    size_t n_blocks;
    /* What load() told. Slices in it are over. */
    struct bk_log_channel channels[CHANNELS];
    char names[CHANNELS][16];
    size_t n_channels;
    uint32_t last_id; /* the highest, of removed ones too */
    struct bk_log_producer producer;
    size_t n_producers;
    char cursor[64];
    size_t n_cursors;
    struct bk_bytes **releases[2]; /* bodies to let go when close() has ended their requests */
    struct bb_buf losses;          /* struct bk_read_loss, of the last read */
    struct bb_buf hits;            /* struct hit, of the last read or query */
};

void world_open(struct world *world, const char *name);
void world_close(struct world *world);

/* Close; open what is in world->directory; both. What was told before is forgotten. */
void world_leave(struct world *world);
void world_enter(struct world *world);
void world_reopen(struct world *world);

/* Open once more what is in world->directory. Return: as bk_backend_open(). */
int world_try_open(struct world *world, struct bk_backend **ret_backend);

/* It is @time, or later already. */
void set_clock(struct world *world, uint64_t time);

/* Dispatch until is_done() holds; the test fails at the deadline. */
void world_pump(struct world *world, bool (*is_done)(const struct world *world));

/* A block that fits behind what was staged: the next session, instance 1. It may be changed until
 * commit(). */
struct bk_log_block *stage(struct world *world, uint32_t channel, const struct spec *specs, size_t n);

/* Register what is staged under the next ticket. Return: as register_(). */
int commit(struct world *world);
int commit_append(struct world *world, struct bk_append *append);

/* Wait until all is flushed. */
void settle(struct world *world);

/* One block of one event, on its way. */
void put(struct world *world, uint32_t channel, const char *path, int64_t value);

/* Channel @id with a name of its own. */
void name_channel(struct world *world, uint32_t id, const char *name, const struct bk_retention *retention);

void set_channel(struct world *world, uint32_t channel, const struct bk_retention *retention, bool removed);

/* Submit and wait. */
void run(struct world *world, struct bk_request *request);

/* What a read has found and what it has lost, held against the contract; body and losses are let go. */
void take_read(struct world *world, struct bk_read *read);
size_t n_losses(const struct world *world);
const struct bk_read_loss *loss(const struct world *world, size_t i);

/* What was found, parsed; the body is let go. */
void take_hits(struct world *world, struct bk_bytes *body);
size_t n_hits(const struct world *world);
const struct hit *hit(const struct world *world, size_t i);

/* NULL for a NULL pattern. */
struct bk_filter *filter_of(const char *pattern);

/* One read of one channel; everything is in @range and the hits afterwards. */
void read_range(struct world *world, struct bk_read_range *range, const char *pattern, size_t max_bytes);

/* All of a channel that is kept, in the hits. */
void read_all(struct world *world, uint32_t channel);

/* Ask, and put what is found into the hits. Return: the request's error. */
int ask(struct world *world, const struct bb_query *query, bool *ret_more);

/* The sequence that was located in one channel, 0 for none. */
uint64_t locate(struct world *world, struct bk_locate *want, uint32_t channel);

/* A test for one backend, between open and close. */
#define ON(name, backend, test)       \
    Test(name, backend##_##test)      \
    {                                 \
        struct world world;           \
        world_open(&world, #backend); \
        test(&world);                 \
        world_close(&world);          \
    }
