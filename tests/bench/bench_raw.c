/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The physical limit of a broker on this machine: one thread, epoll, large reads, no library. It follows the
 * frames of each read, finds the path of each event in a table, copies the event to the buffer of each
 * subscriber and writes every buffer once a round. It has no limits, no answers and no protection.
 *
 * A client begins with 'P', or with 'S' and a path. Then frames: length of the payload (4 bytes as they lie in
 * memory), path, payload. The publisher writes batches of `batch` bytes.
 */
#include "tests/bench/bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_BYTES  (512U << 10)
#define FRAME_HEAD  (sizeof(uint32_t) + BENCH_PATH_LEN)
#define PATHS       64 /* a power of two */
#define EVENTS      64
#define WELCOME_MAX (1 + BENCH_PATH_LEN)

struct buffer {
    uint8_t *data;
    size_t begin;
    size_t end;
    size_t room;
};

struct link {
    int fd;
    uint8_t kind; /* 'P', 'S', 0 before it spoke */
    bool is_blocked;
    bool is_dirty;
    struct buffer in;
    struct buffer out;
};

struct path_entry {
    bool is_used;
    uint8_t path[BENCH_PATH_LEN];
    size_t n_subscribers;
    struct link *subscribers[BENCH_ROLES_MAX];
};

struct broker {
    int epoll;
    int listener;
    struct path_entry paths[PATHS];
    struct link *dirty[BENCH_ROLES_MAX];
    size_t n_dirty;
};

/* --- frames ------------------------------------------------------------------------------------- */

/* Moves what is left to the front. */
static void buffer_compact(struct buffer *buffer)
{
    if (buffer->begin > 0) {
        memmove(buffer->data, buffer->data + buffer->begin, buffer->end - buffer->begin);
        buffer->end -= buffer->begin;
        buffer->begin = 0;
    }
}

static void buffer_reserve(struct buffer *buffer, size_t more)
{
    if (buffer->end + more > buffer->room) {
        buffer_compact(buffer);
    }
    if (buffer->end + more > buffer->room) {
        buffer->room = (buffer->end + more) * 2;
        buffer->data = realloc(buffer->data, buffer->room);
        if (buffer->data == NULL) {
            bench_fail("no memory");
        }
    }
}

static void buffer_append(struct buffer *buffer, const void *data, size_t len)
{
    buffer_reserve(buffer, len);
    memcpy(buffer->data + buffer->end, data, len);
    buffer->end += len;
}

/* Bytes of the frame at the front, 0 if it is not there as a whole. */
static size_t frame_len(const struct buffer *buffer)
{
    uint32_t len = 0;
    size_t have = buffer->end - buffer->begin;
    if (have < FRAME_HEAD) {
        return 0;
    }
    memcpy(&len, buffer->data + buffer->begin, sizeof(len));
    return have < FRAME_HEAD + len ? 0 : FRAME_HEAD + len;
}

/* Returns what read() returned. */
static ssize_t read_input(struct link *link)
{
    buffer_compact(&link->in);
    if (link->in.room - link->in.end < READ_BYTES / 2) {
        buffer_reserve(&link->in, READ_BYTES);
    }
    ssize_t n = read(link->fd, link->in.data + link->in.end, link->in.room - link->in.end);
    link->in.end += n > 0 ? (size_t)n : 0;
    return n;
}

/* --- broker ------------------------------------------------------------------------------------- */

static uint64_t path_hash(const uint8_t *path)
{
    uint64_t hash = 0;
    uint64_t word = 0;
    for (size_t i = 0; i < BENCH_PATH_LEN; i += sizeof(word)) {
        size_t len = BENCH_PATH_LEN - i < sizeof(word) ? BENCH_PATH_LEN - i : sizeof(word);
        word = 0;
        memcpy(&word, path + i, len);
        hash = (hash ^ word) * UINT64_C(0x9E3779B97F4A7C15);
        hash ^= hash >> 32;
    }
    return hash;
}

/* The entry of @path, or the free one where it belongs. The paths of a run are far fewer than PATHS. */
static struct path_entry *find_path(struct broker *broker, const uint8_t *path)
{
    size_t i = (size_t)path_hash(path) % PATHS;
    while (broker->paths[i].is_used && memcmp(broker->paths[i].path, path, BENCH_PATH_LEN) != 0) {
        i = (i + 1) % PATHS;
    }
    return &broker->paths[i];
}

static void watch(const struct broker *broker, struct link *link, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data = {.ptr = link}};
    (void)epoll_ctl(broker->epoll, operation, link != NULL ? link->fd : broker->listener, &event);
}

static void accept_link(const struct broker *broker)
{
    struct link *link = calloc(1, sizeof(*link));
    if (link == NULL) {
        bench_fail("no memory");
    }
    link->fd = accept4(broker->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    watch(broker, link, EPOLL_CTL_ADD, EPOLLIN);
} /* NOLINT(clang-analyzer-unix.Malloc): epoll has the link */

static void flush_link(const struct broker *broker, struct link *link)
{
    while (link->out.begin < link->out.end) {
        ssize_t n =
            send(link->fd, link->out.data + link->out.begin, link->out.end - link->out.begin, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN && !link->is_blocked) {
                link->is_blocked = true;
                watch(broker, link, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
            }
            return;
        }
        link->out.begin += (size_t)n;
    }
    link->out.begin = 0;
    link->out.end = 0;
    if (link->is_blocked) {
        link->is_blocked = false;
        watch(broker, link, EPOLL_CTL_MOD, EPOLLIN);
    }
}

static void flush_dirty(struct broker *broker)
{
    for (size_t i = 0; i < broker->n_dirty; i++) {
        broker->dirty[i]->is_dirty = false;
        if (!broker->dirty[i]->is_blocked) {
            flush_link(broker, broker->dirty[i]);
        }
    }
    broker->n_dirty = 0;
}

static void route_frame(struct broker *broker, const uint8_t *frame, size_t len)
{
    const struct path_entry *entry = find_path(broker, frame + sizeof(uint32_t));
    for (size_t i = 0; i < entry->n_subscribers; i++) {
        struct link *subscriber = entry->subscribers[i];
        buffer_append(&subscriber->out, frame, len);
        if (!subscriber->is_dirty) {
            subscriber->is_dirty = true;
            broker->dirty[broker->n_dirty++] = subscriber;
        }
    }
}

/* The first bytes of a client. */
static void handle_welcome(struct broker *broker, struct link *link)
{
    link->kind = link->in.data[0];
    link->in.begin = 1;
    if (link->kind == 'S' && link->in.end >= WELCOME_MAX) {
        struct path_entry *entry = find_path(broker, link->in.data + 1);
        entry->is_used = true;
        memcpy(entry->path, link->in.data + 1, BENCH_PATH_LEN);
        entry->subscribers[entry->n_subscribers++] = link;
        link->in.begin += BENCH_PATH_LEN;
    }
}

static void handle_input(struct broker *broker, struct link *link)
{
    ssize_t n = read_input(link);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) {
            watch(broker, link, EPOLL_CTL_DEL, 0);
        }
        return;
    }
    if (link->kind == 0) {
        handle_welcome(broker, link);
    }
    for (size_t len = frame_len(&link->in); len > 0; len = frame_len(&link->in)) {
        route_frame(broker, link->in.data + link->in.begin, len);
        link->in.begin += len;
    }
}

static pid_t broker_start(void)
{
    static struct broker broker;
    pid_t pid = bench_fork();
    if (pid != 0) {
        return pid;
    }
    broker.listener = bench_listen(0);
    broker.epoll = epoll_create1(EPOLL_CLOEXEC);
    watch(&broker, NULL, EPOLL_CTL_ADD, EPOLLIN);
    for (;;) {
        struct epoll_event events[EVENTS];
        int n = epoll_wait(broker.epoll, events, EVENTS, -1);
        for (int i = 0; i < n; i++) {
            struct link *link = events[i].data.ptr;
            if (link == NULL) {
                accept_link(&broker);
                continue;
            }
            if ((events[i].events & EPOLLOUT) != 0) {
                flush_link(&broker, link);
            }
            if ((events[i].events & (EPOLLIN | EPOLLHUP)) != 0) {
                handle_input(&broker, link);
            }
        }
        flush_dirty(&broker);
    }
}

/* --- clients ------------------------------------------------------------------------------------ */

static struct link *link_open(const void *welcome, size_t len)
{
    struct link *link = calloc(1, sizeof(*link));
    if (link == NULL) {
        bench_fail("no memory");
    }
    link->fd = bench_connect(0);
    bench_write(link->fd, welcome, len);
    return link;
}

static void *publisher_open(uint32_t index)
{
    (void)index;
    return link_open("P", 1);
}

static void flush(void *publisher)
{
    struct link *link = publisher;
    bench_write(link->fd, link->out.data, link->out.end);
    link->out.end = 0;
}

static void publish(void *publisher, const char *path, const void *data, size_t len)
{
    struct link *link = publisher;
    uint32_t head = (uint32_t)len;
    if (link->out.end > 0 && link->out.end + FRAME_HEAD + len > bench_config.batch) {
        flush(link);
    }
    buffer_append(&link->out, &head, sizeof(head));
    buffer_append(&link->out, path, BENCH_PATH_LEN);
    buffer_append(&link->out, data, len);
}

static void *subscriber_open(const char *path)
{
    char welcome[WELCOME_MAX] = {'S'};
    memcpy(welcome + 1, path, BENCH_PATH_LEN);
    return link_open(welcome, sizeof(welcome));
}

static void receive(void *subscriber)
{
    struct link *link = subscriber;
    ssize_t n = read_input(link);
    if (n <= 0) {
        bench_fail("the broker ended");
    }
    for (size_t len = frame_len(&link->in); len > 0; len = frame_len(&link->in)) {
        bench_received(link->in.data + link->in.begin + FRAME_HEAD, len - FRAME_HEAD);
        link->in.begin += len;
    }
}

extern const struct bench_contestant bench_raw;
const struct bench_contestant bench_raw = {
    .name = "raw",
    .separator = '/',
    .broker_start = broker_start,
    .publisher_open = publisher_open,
    .publish = publish,
    .flush = flush,
    .subscriber_open = subscriber_open,
    .receive = receive,
};
