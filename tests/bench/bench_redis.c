/* SPDX-License-Identifier: Apache-2.0 */
/* redis pub/sub with hiredis, PUBLISH pipelined up to 256 deep. */
#include "tests/bench/bench.h"

#include <hiredis/hiredis.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define RECEIVE_MS     100
#define PIPELINE_MAX   256
#define PIPELINE_BYTES (256U << 10)
#define REQUEST_PATH   "evt.order.request.00"

struct publisher {
    redisContext *redis;
    uint64_t depth;      /* commands written at once */
    uint64_t unwritten;  /* commands */
    uint64_t unanswered; /* commands */
};

static pid_t broker_start(void)
{
    const char *conf = bench_file("redis.conf");
    FILE *file = fopen(conf, "w");
    if (file == NULL || bench_is_ipc()) {
        bench_fail("only tcp, with a file for its options");
    }
    (void)fprintf(file,
                  "bind 127.0.0.1\nport %u\nsave \"\"\nclient-output-buffer-limit pubsub 0 0 0\n"
                  "maxclients 15000\ntcp-backlog 2048\n",
                  (unsigned)bench_port(0));
    if (bench_is_kept()) {
        (void)fprintf(file, "dir %s\nappendonly yes\nappendfsync always\n", bench_file("."));
    }
    (void)fclose(file);
    const char *const argv[] = {"redis-server", conf, NULL};
    pid_t pid = bench_exec(argv);
    (void)close(bench_connect(0));
    return pid;
}

static redisContext *redis_open(void)
{
    int on = 1;
    redisContext *redis = redisConnect("127.0.0.1", bench_port(0));
    if (redis == NULL || redis->err != 0) {
        bench_fail("redisConnect");
    }
    (void)setsockopt(redis->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return redis;
}

static void *publisher_open(uint32_t index)
{
    (void)index;
    struct publisher *me = calloc(1, sizeof(*me));
    if (me == NULL) {
        bench_fail("no memory");
    }
    me->redis = redis_open();
    me->depth = PIPELINE_BYTES / bench_config.size;
    me->depth = me->depth > PIPELINE_MAX ? PIPELINE_MAX : me->depth < 1 ? 1 : me->depth;
    return me;
}

static void write_commands(struct publisher *me)
{
    for (int done = 0; done == 0;) {
        if (redisBufferWrite(me->redis, &done) != REDIS_OK) {
            bench_fail("redisBufferWrite");
        }
    }
    me->unwritten = 0;
}

static void read_answers(struct publisher *me, uint64_t left)
{
    for (; me->unanswered > left; me->unanswered--) {
        void *answer = NULL;
        if (redisGetReply(me->redis, &answer) != REDIS_OK) {
            bench_fail("redisGetReply");
        }
        freeReplyObject(answer);
    }
}

static void flush(void *publisher)
{
    write_commands(publisher);
    read_answers(publisher, 0);
}

static void publish(void *publisher, const char *path, const void *data, size_t len)
{
    struct publisher *me = publisher;
    const char *args[] = {"PUBLISH", path, data};
    const size_t lens[] = {7, strlen(path), len};
    (void)redisAppendCommandArgv(me->redis, BB_COUNT(args), args, lens);
    me->unanswered++;
    if (++me->unwritten >= me->depth) {
        write_commands(me);
        read_answers(me, me->depth);
    }
}

static void *subscriber_open(const char *path)
{
    redisContext *redis = redis_open();
    void *answer = redisCommand(redis, "SUBSCRIBE %s", path);
    if (answer == NULL) {
        bench_fail("SUBSCRIBE");
    }
    freeReplyObject(answer);
    return redis;
}

static void receive(void *subscriber)
{
    redisContext *redis = subscriber;
    void *answer = NULL;
    if (redisGetReplyFromReader(redis, &answer) != REDIS_OK) {
        bench_fail("redisGetReplyFromReader");
    }
    if (answer == NULL) {
        struct pollfd readable = {.fd = redis->fd, .events = POLLIN};
        if (poll(&readable, 1, RECEIVE_MS) == 1 && redisBufferRead(redis) != REDIS_OK) {
            bench_fail("redisBufferRead");
        }
        return;
    }
    const redisReply *message = answer;
    if (message->type == REDIS_REPLY_ARRAY && message->elements == 3) {
        bench_received(message->element[2]->str, message->element[2]->len);
    }
    freeReplyObject(answer);
}

/* XADD into one stream; half of what is in flight is written at once. */
static void synced(uint32_t index)
{
    struct publisher *me = publisher_open(index);
    const char *args[] = {"XADD", REQUEST_PATH, "*", "p", (const char *)bench_payload_new(index)};
    const size_t lens[] = {4, sizeof(REQUEST_PATH) - 1, 1, 1, bench_config.size};
    uint64_t half = bench_config.inflight / 2;
    uint64_t at_once = half > 0 ? half : 1;
    bench_synced_ready(index);
    for (;;) {
        uint64_t begin = bench_now_ns();
        for (uint64_t i = 0; i < at_once; i++, me->unanswered++) {
            (void)redisAppendCommandArgv(me->redis, BB_COUNT(args), args, lens);
        }
        uint64_t before = me->unanswered;
        write_commands(me);
        read_answers(me, half);
        bench_acked(index, before - me->unanswered);
        if (half == 0) {
            bench_histogram_add(bench_now_ns() - begin);
        }
    }
}

extern const struct bench_contestant bench_redis;
const struct bench_contestant bench_redis = {
    .name = "redis",
    .separator = '.',
    .broker_start = broker_start,
    .publisher_open = publisher_open,
    .publish = publish,
    .flush = flush,
    .subscriber_open = subscriber_open,
    .receive = receive,
    .synced = synced,
};
