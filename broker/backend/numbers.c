/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/numbers.h"

#include "proto/base/error.h"
#include "proto/base/map.h"

#include <stdlib.h>

struct server {
    struct bk_event_id id; /* the server's number is the key */
    uint64_t time;
    struct bk_event_id judged_id; /* the same, if what is being judged is registered */
    uint64_t judged_time;
    uint64_t round;
};

struct channel {
    uint32_t id;   /* the key */
    bool is_known; /* it was appended; else room was made for it */
    uint64_t last;
    uint64_t judged_last;
    uint64_t round;
    uint64_t made_in; /* round: the append makes it */
    uint64_t gone_in; /* round: the append removes it */
};

struct bk_numbers {
    struct bb_map servers;
    struct bb_map channels;
    uint64_t round; /* of judging */
};

static struct server *find_server(const struct bk_numbers *numbers, uint64_t server)
{
    return bb_map_find(&numbers->servers, bb_slice(&server, sizeof(server)));
}

static struct channel *find_channel(const struct bk_numbers *numbers, uint32_t id)
{
    return bb_map_find(&numbers->channels, bb_slice(&id, sizeof(id)));
}

static struct server *get_server(struct bk_numbers *numbers, uint64_t number)
{
    struct server *server = find_server(numbers, number);
    if (server != NULL) {
        return server;
    }
    server = calloc(1, sizeof(*server));
    if (server == NULL) {
        return NULL;
    }
    server->id.server = number;
    if (bb_map_add(&numbers->servers, bb_slice(&server->id.server, sizeof(number)), server) < 0) {
        free(server);
        return NULL;
    }
    return server;
}

static struct channel *get_channel(struct bk_numbers *numbers, uint32_t id)
{
    struct channel *channel = find_channel(numbers, id);
    if (channel != NULL) {
        return channel;
    }
    channel = calloc(1, sizeof(*channel));
    if (channel == NULL) {
        return NULL;
    }
    channel->id = id;
    if (bb_map_add(&numbers->channels, bb_slice(&channel->id, sizeof(id)), channel) < 0) {
        free(channel);
        return NULL;
    }
    return channel;
}

struct bk_numbers *bk_numbers_new(void)
{
    struct bk_numbers *numbers = calloc(1, sizeof(*numbers));
    if (numbers != NULL) {
        bb_map_init(&numbers->servers, 0, SIZE_MAX);
        bb_map_init(&numbers->channels, 0, SIZE_MAX);
    }
    return numbers;
}

int bk_numbers_add_channel(struct bk_numbers *numbers, uint32_t id, uint64_t last)
{
    struct channel *channel = get_channel(numbers, id);
    if (channel == NULL) {
        return BB_ENOMEM;
    }
    channel->is_known = true;
    channel->last = last;
    return 0;
}

int bk_numbers_add_server(struct bk_numbers *numbers, const struct bk_event_id *id, uint64_t time)
{
    struct server *server = get_server(numbers, id->server);
    if (server == NULL) {
        return BB_ENOMEM;
    }
    server->id = *id;
    server->time = time;
    return 0;
}

void bk_numbers_free(struct bk_numbers *numbers)
{
    size_t at = 0;
    void *value = NULL;
    if (numbers == NULL) {
        return;
    }
    while ((value = bb_map_next(&numbers->servers, &at, NULL)) != NULL) {
        free(value);
    }
    at = 0;
    while ((value = bb_map_next(&numbers->channels, &at, NULL)) != NULL) {
        free(value);
    }
    bb_map_fini(&numbers->servers);
    bb_map_fini(&numbers->channels);
    free(numbers);
}

/* The id of the last event of a block is what counts for the next one. */
static bool is_above(const struct bb_block *head, const struct bk_event_id *id)
{
    return head->session > id->session || (head->session == id->session && head->instance > id->instance);
}

static int
judge_block(const struct bk_log_block *block, const struct server *server, const struct channel *channel)
{
    if (!is_above(&block->head, &server->judged_id)) {
        return BB_EEXISTS;
    }
    if (block->head.time < server->judged_time) {
        return BB_ETIME;
    }
    return channel->judged_last != 0 && block->head.sequence != channel->judged_last + 1 ? BB_ESEQUENCE : 0;
}

static int judge_channels(struct bk_numbers *numbers, const struct bk_append *append)
{
    for (size_t i = 0; i < append->n_channels; i++) {
        const struct bk_log_channel *entry = &append->channels[i];
        struct channel *channel =
            entry->removed ? find_channel(numbers, entry->id) : get_channel(numbers, entry->id);
        if (channel == NULL && !entry->removed) {
            return BB_ENOMEM;
        }
        if (channel != NULL) {
            *(entry->removed ? &channel->gone_in : &channel->made_in) = numbers->round;
        }
    }
    return 0;
}

static bool is_there(const struct bk_numbers *numbers, const struct channel *channel)
{
    return channel != NULL && (channel->is_known || channel->made_in == numbers->round) &&
           channel->gone_in != numbers->round;
}

static void judge_in_round(const struct bk_numbers *numbers,
                           struct bk_log_block *block,
                           struct server *server,
                           struct channel *channel)
{
    if (server->round != numbers->round) {
        server->round = numbers->round;
        server->judged_id = server->id;
        server->judged_time = server->time;
    }
    if (channel->round != numbers->round) {
        channel->round = numbers->round;
        channel->judged_last = channel->last;
    }
    block->error = judge_block(block, server, channel);
    if (block->error == 0) {
        server->judged_id.session = block->head.session;
        server->judged_id.instance = block->head.instance + block->head.count - 1;
        server->judged_time = block->head.time;
        channel->judged_last = block->head.sequence + block->head.count - 1;
    }
}

int bk_numbers_judge(struct bk_numbers *numbers, struct bk_append *append)
{
    numbers->round++;
    int r = judge_channels(numbers, append);
    for (size_t i = 0; i < append->n_blocks && r == 0; i++) {
        struct bk_log_block *block = &append->blocks[i];
        struct server *server = get_server(numbers, block->server);
        struct channel *channel = find_channel(numbers, block->channel);
        r = server == NULL ? BB_ENOMEM : 0;
        if (r == 0 && is_there(numbers, channel)) {
            judge_in_round(numbers, block, server, channel);
        } else {
            block->error = BB_ENOTFOUND;
        }
    }
    return r;
}

static void take_block(const struct bk_log_block *block, struct server *server, struct channel *channel)
{
    server->id.session = block->head.session;
    server->id.instance = block->head.instance + block->head.count - 1;
    server->time = block->head.time;
    channel->last = block->head.sequence + block->head.count - 1;
}

static void take_channel(struct bk_numbers *numbers, const struct bk_log_channel *entry)
{
    struct channel *channel = find_channel(numbers, entry->id);
    if (channel != NULL && entry->removed) {
        (void)bb_map_remove(&numbers->channels, bb_slice(&channel->id, sizeof(channel->id)));
        free(channel);
    } else if (channel != NULL) {
        channel->is_known = true;
    }
}

void bk_numbers_take(struct bk_numbers *numbers, const struct bk_append *append)
{
    for (size_t i = 0; i < append->n_channels; i++) {
        take_channel(numbers, &append->channels[i]);
    }
    for (size_t i = 0; i < append->n_blocks; i++) {
        const struct bk_log_block *block = &append->blocks[i];
        if (block->error == 0) {
            take_block(block, find_server(numbers, block->server), find_channel(numbers, block->channel));
        }
    }
}

void bk_numbers_last(const struct bk_numbers *numbers,
                     uint64_t server,
                     struct bk_event_id *ret_id,
                     uint64_t *ret_time)
{
    const struct server *found = find_server(numbers, server);
    *ret_id = found != NULL ? found->id : (struct bk_event_id){.server = server};
    *ret_time = found != NULL ? found->time : 0;
}

bool bk_numbers_channel(const struct bk_numbers *numbers, uint32_t id, uint64_t *ret_last)
{
    const struct channel *found = find_channel(numbers, id);
    bool is_known = found != NULL && found->is_known;
    *ret_last = is_known ? found->last : *ret_last;
    return is_known;
}
