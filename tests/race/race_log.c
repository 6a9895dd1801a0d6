/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The LMDB backend as the host drives it: its owner is whoever holds one mutex, a loop that sleeps on its descriptor or a thread of
 * the backend that has something to tell. Writes, reads, queries, trims, copies and checks go on at once, and the end
 * comes while requests wait. What was told as durable is there, before and after it is opened again.
 *
 *   race_log [TICKETS]
 */
#include "proto/base/error.h"
#include "proto/base/time.h"
#include "proto/wire/event.h"

#include "broker/backend/registry.h"
#include "tests/check.h"

#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#define TICKETS_DEFAULT 3000
#define TICKETS_AHEAD   32 /* registered, not durable */
#define BLOCK_EVENTS    3
#define SERVER          1
#define KEPT            300 /* events of the channel that is trimmed */

enum {
    WHOLE = 1,   /* a channel that keeps everything, */
    TRIMMED = 2, /* and one that does not */
};

struct log {
    pthread_mutex_t running; /* who holds it is the owner; guards the rest */
    pthread_cond_t news;
    struct bk_backend *backend;
    struct bk_backend_listener listener;
    struct bk_meter meter;
    char directory[64];
    uint64_t n_tickets; /* to be registered */
    uint64_t registered;
    uint64_t flushed;
    uint64_t loaded_last[TRIMMED + 1];
    uint64_t trimmed;
    uint64_t n_copies;
    bool is_told; /* inside dispatch() or close() */
    bool is_over; /* the loop ends */
};

/* --- what the backend tells --------------------------------------------------------------------------- */

static void on_registered(void *context, uint64_t ticket)
{
    struct log *log = context;
    CHECK(ticket > log->registered);
    log->registered = ticket;
}

static void on_flushed(void *context, uint64_t ticket, int error)
{
    struct log *log = context;
    CHECK(log->is_told);
    CHECK_INT(error, 0);
    CHECK(ticket > log->flushed && ticket <= log->registered);
    log->flushed = ticket;
    CHECK_INT(pthread_cond_broadcast(&log->news), 0);
}

static void on_trimmed(void *context, uint32_t channel, uint64_t first)
{
    struct log *log = context;
    CHECK(log->is_told);
    CHECK_INT(channel, TRIMMED);
    CHECK(first >= log->trimmed);
    log->trimmed = first;
}

static void on_state(void *context, enum bk_backend_state state, const char *text)
{
    (void)context;
    (void)fprintf(stderr, "state %d: %s\n", (int)state, text);
    CHECK_INT(state, BK_BACKEND_OK);
}

static void on_log(void *context, int level, const char *id, const char *text)
{
    (void)context;
    (void)level;
    (void)fprintf(stderr, "%s: %s\n", id, text);
}

/* With the mutex. */
static void dispatch(struct log *log)
{
    log->is_told = true;
    log->backend->ops->dispatch(log->backend);
    log->is_told = false;
}

static bool on_offer(void *context)
{
    struct log *log = context;
    if (pthread_mutex_trylock(&log->running) != 0) {
        return false;
    }
    dispatch(log);
    CHECK_INT(pthread_mutex_unlock(&log->running), 0);
    return true;
}

static void *loop(void *arg)
{
    struct log *log = arg;
    bool is_over = false;
    while (!is_over) {
        struct pollfd fd = {log->backend->ops->fd(log->backend), POLLIN, 0};
        (void)poll(&fd, 1, 10);
        CHECK_INT(pthread_mutex_lock(&log->running), 0);
        dispatch(log);
        is_over = log->is_over;
        CHECK_INT(pthread_mutex_unlock(&log->running), 0);
    }
    return NULL;
}

/* --- opening and closing -------------------------------------------------------------------------------- */

static int load_channel(void *context, const struct bk_log_channel *channel)
{
    struct log *log = context;
    CHECK(channel->id == WHOLE || channel->id == TRIMMED);
    log->loaded_last[channel->id] = channel->last;
    CHECK(channel->id != WHOLE || channel->last == 0 || channel->first == 1);
    return 0;
}

static int load_producer(void *context, const struct bk_log_producer *producer)
{
    (void)context;
    (void)producer;
    return 0;
}

static int load_cursor(void *context, const struct bk_log_cursor *cursor)
{
    (void)context;
    (void)cursor;
    return 0;
}

static void log_open(struct log *log)
{
    static const char *const options[] = {
        "map-size=256M",      "reserve=0",           "journal-size=1M",
        "apply-interval=1ms", "retain-interval=1ms", "query-turn=1ms",
    };
    struct bb_buf err = BB_BUF_INIT;
    struct bk_backend_env env = {
        .directory = log->directory,
        .server = SERVER,
        .listener = &log->listener,
        .meter = &log->meter,
        .offer = on_offer,
        .offer_context = log,
        .log = on_log,
    };
    const struct bk_backend_loader loader = {log, load_channel, load_producer, load_cursor};
    CHECK_INT(pthread_mutex_lock(&log->running), 0);
    log->is_over = false;
    log->registered = log->flushed = 0;
    CHECK_INT(
        bk_backend_open("lmdb", options, sizeof(options) / sizeof(options[0]), &env, &log->backend, &err), 0);
    CHECK(log->backend != NULL);
    CHECK_INT(log->backend->ops->load(log->backend, &loader), 0);
    CHECK_INT(pthread_mutex_unlock(&log->running), 0);
    bb_buf_fini(&err);
}

static void log_close(struct log *log)
{
    CHECK_INT(pthread_mutex_lock(&log->running), 0);
    log->is_told = true;
    log->backend->ops->close(log->backend);
    log->is_told = false;
    CHECK_INT(pthread_mutex_unlock(&log->running), 0);
}

/* --- writing -------------------------------------------------------------------------------------------- */

/* Returns what the events lie in, for the caller to let go. */
static struct bk_bytes *
add_block(struct bk_log_block *block, struct log *log, uint32_t channel, uint64_t ticket, bool is_owned)
{
    static const uint8_t payload[] = {0xc4, 100, [101] = 0};
    struct bb_buf events = BB_BUF_INIT;
    const char *path = channel == WHOLE ? "whole/x" : "trimmed/x";
    for (int i = 0; i < BLOCK_EVENTS; i++) {
        bb_event_write(&events, bb_slice_str(path), bb_slice(payload, sizeof(payload)), NULL);
    }
    struct bk_bytes *owner = bk_bytes_new(&log->meter, events.len);
    CHECK(owner != NULL && events.error == 0);
    memcpy(owner->data, events.data, events.len);
    owner->len = events.len;
    *block = (struct bk_log_block){
        .channel = channel,
        .flags = BK_LOG_UNIFORM,
        .server = SERVER,
        .head = {.session = ticket,
                 .time = ticket,
                 .sequence = (ticket - 1) * BLOCK_EVENTS + 1,
                 .instance = channel == WHOLE ? 1 : BLOCK_EVENTS + 1,
                 .count = BLOCK_EVENTS,
                 .length = events.len},
        .events = owner->data,
        .owner = is_owned ? owner : NULL,
    };
    bb_buf_fini(&events);
    return owner;
}

/* With the mutex. */
static void register_ticket(struct log *log, uint64_t ticket)
{
    struct bk_log_channel channels[2] = {
        {.id = WHOLE, .name = bb_slice_str("whole"), .retention = BK_RETENTION_INIT},
        {.id = TRIMMED, .name = bb_slice_str("trimmed"), .retention = BK_RETENTION_INIT},
    };
    struct bk_log_block blocks[2];
    struct bk_log_producer producer = {.last = ticket, .time = ticket};
    struct bk_log_cursor cursor = {.name = bb_slice_str("here"), .value = bb_slice_str("\x90")};
    channels[1].retention.max_events = KEPT;
    struct bk_bytes *kept = add_block(&blocks[0], log, WHOLE, ticket, true);
    struct bk_bytes *copied = add_block(&blocks[1], log, TRIMMED, ticket, false);
    struct bk_append append = {channels, ticket == 1 ? 2 : 0, blocks, 2, &producer, 1, &cursor, 1};
    CHECK_INT(log->backend->ops->register_(log->backend, &append, ticket), 0);
    CHECK_INT(blocks[0].error, 0);
    CHECK_INT(blocks[1].error, 0);
    bk_bytes_unref(kept);
    bk_bytes_unref(copied);
}

static void *write_log(void *arg)
{
    struct log *log = arg;
    for (uint64_t ticket = 1; ticket <= log->n_tickets; ticket++) {
        struct bk_event_id id;
        uint64_t time = 0;
        CHECK_INT(pthread_mutex_lock(&log->running), 0);
        while (ticket > log->flushed + TICKETS_AHEAD) {
            CHECK_INT(pthread_cond_wait(&log->news, &log->running), 0);
        }
        register_ticket(log, ticket);
        log->backend->ops->get_last_event_id(log->backend, SERVER, &id, &time);
        CHECK(id.session == ticket && time == ticket);
        CHECK_INT(pthread_mutex_unlock(&log->running), 0);
    }
    return NULL;
}

/* --- asking --------------------------------------------------------------------------------------------- */

struct asking {
    struct log *log;
    bool is_done;
};

static void on_done(void *context, struct bk_request *request)
{
    struct asking *asking = context;
    (void)request;
    CHECK(asking->log->is_told);
    CHECK(!asking->is_done);
    asking->is_done = true;
    CHECK_INT(pthread_cond_broadcast(&asking->log->news), 0);
}

static struct bk_request request_of(enum bk_request_kind kind, struct asking *asking)
{
    return (struct bk_request){.kind = kind, .done = on_done, .context = asking};
}

/* Submit, and wait for the answer. With the mutex. */
static int ask(struct asking *asking, struct bk_request *request)
{
    struct log *log = asking->log;
    asking->is_done = false;
    log->backend->ops->submit(log->backend, request);
    while (!asking->is_done) {
        CHECK_INT(pthread_cond_wait(&log->news, &log->running), 0);
    }
    return request->error;
}

/* Whether the writer has all on the disk. With the mutex. */
static bool is_written(const struct log *log)
{
    return log->flushed == log->n_tickets;
}

/* From the first event to the end of what was durable when it was asked for. */
static void read_whole(struct asking *asking)
{
    struct log *log = asking->log;
    struct bk_read_range range = {.channel = WHOLE, .stop = log->flushed * BLOCK_EVENTS};
    uint64_t n = 0;
    while (range.reached < range.stop) {
        range.after = range.reached;
        range.stop_time = BK_NO_LIMIT;
        struct bk_read read = {
            .request = request_of(BK_REQUEST_READ, asking),
            .ranges = &range,
            .n_ranges = 1,
            .max_bytes = 8192,
        };
        CHECK_INT(ask(asking, &read.request), 0);
        CHECK(range.reached > range.after);
        n += read.n_events;
        CHECK_INT(n, range.reached);
        bk_bytes_unref(read.body);
        bb_buf_fini(&read.losses);
    }
}

static void *read_log(void *arg)
{
    struct asking asking = {.log = arg};
    struct log *log = arg;
    bool is_last = false;
    CHECK_INT(pthread_mutex_lock(&log->running), 0);
    while (!is_last) {
        is_last = is_written(log);
        read_whole(&asking);
        struct bk_request flush = request_of(BK_REQUEST_FLUSH, &asking);
        uint64_t registered = log->registered;
        CHECK_INT(ask(&asking, &flush), 0);
        CHECK(log->flushed >= registered);
    }
    CHECK_INT(pthread_mutex_unlock(&log->running), 0);
    return NULL;
}

static void query_newest(struct asking *asking)
{
    struct bb_query query = BB_QUERY_INIT;
    uint64_t durable = asking->log->flushed * BLOCK_EVENTS;
    struct bk_query asked = {
        .request = request_of(BK_REQUEST_QUERY, asking),
        .query = &query,
        .max_bytes = 65536,
    };
    query.max_results = 20;
    CHECK_INT(ask(asking, &asked.request), 0);
    CHECK(asked.n_events >= (durable < 20 ? durable : 20));
    bk_bytes_unref(asked.body);
    struct bk_locate_place place = {.channel = WHOLE};
    struct bk_locate locate = {
        .request = request_of(BK_REQUEST_LOCATE, asking),
        .kind = BK_LOCATE_PATH,
        .path = bb_slice_str("whole/x"),
        .places = &place,
        .n_places = 1,
    };
    CHECK_INT(ask(asking, &locate.request), 0);
    CHECK(place.sequence >= durable);
}

static void trim(struct asking *asking)
{
    struct log *log = asking->log;
    uint64_t durable = log->flushed * BLOCK_EVENTS;
    struct bk_trim asked = {
        .request = request_of(BK_REQUEST_TRIM, asking),
        .channel = TRIMMED,
        .before = durable > 100 ? durable - 100 : 0,
    };
    if (durable > 0) {
        CHECK_INT(ask(asking, &asked.request), 0);
        CHECK(asked.first >= asked.before);
    }
}

static void keep_up(struct asking *asking, enum bk_request_kind kind, const char *name)
{
    struct bk_upkeep upkeep = {.request = request_of(kind, asking), .name = bb_slice_str(name)};
    CHECK_INT(ask(asking, &upkeep.request), 0);
    bb_buf_fini(&upkeep.report);
}

static void *query_log(void *arg)
{
    struct asking asking = {.log = arg};
    struct log *log = arg;
    CHECK_INT(pthread_mutex_lock(&log->running), 0);
    for (uint64_t i = 0; i < 4 || !is_written(log); i++) {
        struct bb_buf status = BB_BUF_INIT;
        char name[32];
        query_newest(&asking);
        trim(&asking);
        log->backend->ops->status(log->backend, &status);
        CHECK(status.len > 0);
        bb_buf_fini(&status);
        if (i % 16 == 3) {
            (void)snprintf(name, sizeof(name), "copy%llu", (unsigned long long)log->n_copies++);
            keep_up(&asking, BK_REQUEST_SNAPSHOT, name);
            keep_up(&asking, BK_REQUEST_VERIFY, "");
        }
    }
    CHECK_INT(pthread_mutex_unlock(&log->running), 0);
    return NULL;
}

/* --- the whole ------------------------------------------------------------------------------------------ */

static void all_at_once(struct log *log)
{
    static void *(*const work[])(void *) = {loop, write_log, read_log, query_log, query_log};
    pthread_t threads[sizeof(work) / sizeof(work[0])];
    log_open(log);
    for (size_t i = 0; i < sizeof(work) / sizeof(work[0]); i++) {
        CHECK_INT(pthread_create(&threads[i], NULL, work[i], log), 0);
    }
    for (size_t i = 1; i < sizeof(work) / sizeof(work[0]); i++) {
        CHECK_INT(pthread_join(threads[i], NULL), 0);
    }
    CHECK_INT(pthread_mutex_lock(&log->running), 0);
    log->is_over = true;
    CHECK_INT(pthread_mutex_unlock(&log->running), 0);
    CHECK_INT(pthread_join(threads[0], NULL), 0);
}

/* Closed while requests wait and tickets are on their way: all of them are answered, and what was registered is durable. */
static void close_in_the_middle(struct log *log)
{
    struct asking asking[3] = {{log, false}, {log, false}, {log, false}};
    struct bk_read_range range = {.channel = WHOLE, .stop = BK_NO_LIMIT, .stop_time = BK_NO_LIMIT};
    struct bk_read read = {
        .request = request_of(BK_REQUEST_READ, &asking[0]),
        .ranges = &range,
        .n_ranges = 1,
        .max_bytes = (size_t)1 << 20,
    };
    struct bk_upkeep verify = {.request = request_of(BK_REQUEST_VERIFY, &asking[1])};
    struct bk_request flush = request_of(BK_REQUEST_FLUSH, &asking[2]);
    CHECK_INT(pthread_mutex_lock(&log->running), 0);
    for (uint64_t i = 0; i < 4; i++) {
        register_ticket(log, ++log->n_tickets);
    }
    log->backend->ops->submit(log->backend, &read.request);
    log->backend->ops->submit(log->backend, &verify.request);
    log->backend->ops->submit(log->backend, &flush);
    CHECK_INT(pthread_mutex_unlock(&log->running), 0);
    log_close(log);
    CHECK_INT(log->flushed, log->n_tickets);
    for (size_t i = 0; i < sizeof(asking) / sizeof(asking[0]); i++) {
        CHECK(asking[i].is_done);
    }
    CHECK(read.request.error == 0 || read.request.error == BB_ECLOSED);
    bk_bytes_unref(read.body);
    bb_buf_fini(&read.losses);
    bb_buf_fini(&verify.report);
}

static void remove_tree(const char *directory)
{
    DIR *dir = opendir(directory);
    const struct dirent *entry = NULL;
    CHECK(dir != NULL);
    while ((entry = readdir(dir)) != NULL) { /* NOLINT(concurrency-mt-unsafe): a stream of its own */
        char path[512];
        struct stat status;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        (void)snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
        if (lstat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
            remove_tree(path); /* NOLINT(misc-no-recursion) */
        } else {
            (void)unlink(path);
        }
    }
    (void)closedir(dir);
    (void)rmdir(directory);
}

int main(int argc, char **argv)
{
    static struct log log = {
        .running = PTHREAD_MUTEX_INITIALIZER,
        .news = PTHREAD_COND_INITIALIZER,
        .directory = "/tmp/busbar-race-log-XXXXXX",
    };
    log.listener = (struct bk_backend_listener){&log, on_registered, on_flushed, on_trimmed, on_state};
    log.n_tickets = argc > 1 ? strtoull(argv[1], NULL, 10) : TICKETS_DEFAULT;
    CHECK(mkdtemp(log.directory) != NULL);
    all_at_once(&log);
    close_in_the_middle(&log);
    log_open(&log);
    CHECK_INT(log.loaded_last[WHOLE], log.n_tickets * BLOCK_EVENTS);
    CHECK_INT(log.loaded_last[TRIMMED], log.n_tickets * BLOCK_EVENTS);
    log_close(&log);
    CHECK_INT(atomic_load(&log.meter.bytes), 0);
    remove_tree(log.directory);
    return 0;
}
