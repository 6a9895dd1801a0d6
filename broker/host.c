/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/host.h"

#include "proto/base/error.h"
#include "proto/base/time.h"

#include "broker/plug/plug_zmq.h"
#include "broker/plug/plug_zmtp.h"
#include "broker/plug/windows.h"
#include "broker/ports_file.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

/* Bytes taken from a plug before what came is fanned out. */
#define STEP_BUDGET ((size_t)512 << 10)

/* The core and the plugs are given the time at least this often. */
#define TICK_MAX_US ((uint64_t)1000000)

/* Descriptors that are not for clients: libzmq's own, the windows', the log. */
#define DESCRIPTORS_RESERVED 96

#define LINGER_MS 1000

#define HOST_PLUGS 2

/* What the loop waits on. libzmq tells of input by edges, which any call on a socket may take: it is asked before each sleep. */
struct waits {
    struct pollfd fds[2 + BK_STORES + HOST_PLUGS * BK_PLUG_ITEMS];
    size_t n_fds;
    void *sockets[HOST_PLUGS * BK_PLUG_ITEMS];
    size_t n_sockets;
};

struct host {
    const struct bk_host_options *options;
    struct bk_log *log;
    struct bk_plug_context context;
    struct bk_crowd crowd;
    struct bk_core *core;
    struct bk_door *door;
    struct bk_plug *windows;
    struct bk_plug *plugs[HOST_PLUGS]; /* both of them */
    struct bk_backend *backends[BK_STORES];
    struct bk_out out;
    bool has_ports_file; /* it is this broker's, not that of one which runs already */
    int signals;
    int wake;                /* eventfd: the loop is to look again */
    pthread_mutex_t running; /* of the core and the plugs: the loop's, but while it sleeps */
    struct waits waits;
    uint64_t sleeps_until;
    uint64_t next_tick;
    uint64_t drain_end; /* 0: not ending */
    bool ended;
};

static void log_error(const struct host *host, const char *id, const char *text)
{
    bk_log_write(host->log, BK_LOG_ERROR, id, text);
}

/* --- what the core calls ---------------------------------------------------------------------------- */

static int out_send(void *context, void *peer, const struct bk_part *parts, size_t n_parts)
{
    const struct host *host = context;
    return host->door->ops->send(host->door, peer, parts, n_parts);
}

static void out_close(void *context, void *peer, bool shut_out)
{
    const struct host *host = context;
    host->door->ops->close_peer(host->door, peer, shut_out);
}

static void out_pause(void *context, void *peer, bool paused)
{
    const struct host *host = context;
    if (host->door->ops->pause != NULL) {
        host->door->ops->pause(host->door, peer, paused);
    }
}

static void out_window(void *context, const struct bk_window_event *event)
{
    const struct host *host = context;
    bk_windows_show(host->windows, event);
}

static void out_log(void *context, enum bk_log_level level, const char *id, const char *text)
{
    const struct host *host = context;
    bk_log_write(host->log, level, id, text);
}

static uint64_t set_time(struct host *host)
{
    uint64_t now = (uint64_t)bb_clock_monotonic_us();
    bk_core_set_time(host->core, now, (uint64_t)bb_clock_wall_us());
    return now;
}

/* --- starting ------------------------------------------------------------------------------------- */

static int open_signals(struct host *host)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGHUP);
    (void)sigaddset(&set, SIGUSR1);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN); /* a file that may not grow any more is the log's affair: EFBIG */
    if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0) { /* before any thread: they all inherit it */
        return BB_ESYSTEM;
    }
    host->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return host->signals >= 0 ? 0 : BB_ESYSTEM;
}

/* How many connections there is room for. */
static int raise_descriptors(struct host *host)
{
    char text[160];
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return BB_ESYSTEM;
    }
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < (rlim_t)2 * DESCRIPTORS_RESERVED) {
        (void)snprintf(text, sizeof(text), "only %llu files may be open; the broker needs %d (ulimit -n)",
                       (unsigned long long)limit.rlim_cur, 2 * DESCRIPTORS_RESERVED);
        log_error(host, "BB-DESCRIPTORS", text);
        return BB_ELIMIT;
    }
    host->crowd.max = (size_t)limit.rlim_cur - DESCRIPTORS_RESERVED;
    host->context.crowd = &host->crowd;
    return 0;
}

static int open_zmq(struct host *host)
{
    host->context.zmq = zmq_ctx_new();
    if (host->context.zmq == NULL) {
        return BB_ESYSTEM;
    }
    (void)zmq_ctx_set(host->context.zmq, ZMQ_IO_THREADS, host->options->io_threads);
    int r = host->options->libzmq ? bk_plug_zmq_new(&host->context, &host->door)
                                  : bk_plug_zmtp_new(&host->context, &host->door);
    if (r == 0) {
        host->plugs[0] = &host->door->plug;
        r = bk_windows_new(&host->context, &host->windows);
    }
    host->plugs[1] = host->windows;
    return r;
}

static int open_core(struct host *host)
{
    host->out = (struct bk_out){
        .context = host,
        .send = out_send,
        .close = out_close,
        .pause = out_pause,
        .window = out_window,
        .window_is_open = bk_windows_is_open(host->windows),
        .log = out_log,
    };
    int r = bk_core_new(&host->options->core, &host->out, &host->core);
    host->context.core = host->core;
    return r;
}

static void log_backend(void *context, int level, const char *id, const char *text)
{
    const struct host *host = context;
    bk_log_write(host->log, (enum bk_log_level)level, id, text);
}

static bool offer_backend(void *context);

static int open_backend(struct host *host,
                        enum bk_store store,
                        const char *name,
                        const char *const *options,
                        size_t n_options)
{
    struct bb_buf err = BB_BUF_INIT;
    struct bk_backend_env env = {
        .directory = store == BK_STORE_LOG ? host->options->data : NULL,
        .server = host->options->core.server,
        .listener = bk_core_listener(host->core, store),
        .meter = bk_core_meter(host->core),
        .offer = offer_backend,
        .offer_context = host,
        .log = log_backend,
        .log_context = host,
    };
    int r = bk_backend_open(name, options, n_options, &env, &host->backends[store], &err);
    if (r == 0) {
        r = bk_core_set_backend(host->core, store, host->backends[store]);
    }
    if (r < 0) {
        /* What is damaged is said by nobody else; the other sentences say less than the backend did. */
        if (err.len == 0 || r == BB_ECORRUPT) {
            bb_buf_printf(&err, "%s%s", err.len > 0 ? ": " : "", bb_strerror(r));
        }
        log_error(host, "BB-BACKEND", bb_buf_string(&err));
    }
    bb_buf_fini(&err);
    return r;
}

static int make_directory(const struct host *host)
{
    if (mkdir(host->options->data, 0700) == 0 || errno == EEXIST) {
        return 0;
    }
    char text[320];
    (void)snprintf(text, sizeof(text), "cannot make the directory %s: %m", host->options->data);
    log_error(host, "BB-DATA", text);
    return BB_ESYSTEM;
}

static int open_backends(struct host *host)
{
    char channel_size[48];
    char total_size[48];
    const char *sizes[] = {channel_size, total_size};
    const struct bk_host_options *options = host->options;
    (void)snprintf(channel_size, sizeof(channel_size), "channel-size=%zu", options->core.ring_bytes);
    (void)snprintf(total_size, sizeof(total_size), "total-size=%zu", options->core.memory_bytes);
    set_time(host);
    int r = open_backend(host, BK_STORE_MEMORY, "memory", sizes, BB_COUNT(sizes));
    if (r < 0 || (options->data == NULL && options->backend == NULL && options->n_backend_options == 0)) {
        return r;
    }
    r = options->data != NULL ? make_directory(host) : 0; /* whether it needs one the backend says */
    return r < 0 ? r
                 : open_backend(host, BK_STORE_LOG, options->backend != NULL ? options->backend : "lmdb",
                                options->backend_options, options->n_backend_options);
}

static int bind_door(struct host *host, enum bk_door_kind door, const char *endpoint, struct bb_buf *err)
{
    static const enum bk_window_kind kinds[BK_DOORS] = {
        [BK_DOOR_PUBLISH] = BK_WINDOW_PUBLISH,
        [BK_DOOR_PUBLISH_JSON] = BK_WINDOW_PUBLISH_JSON,
        [BK_DOOR_INGEST] = BK_WINDOW_INGEST,
        [BK_DOOR_INGEST_SUB] = BK_WINDOW_INGEST_SUB,
    };
    bool insecure = host->options->insecure;
    return door == BK_DOOR_LISTEN ? host->door->ops->bind(host->door, endpoint, insecure, err)
                                  : bk_windows_bind(host->windows, kinds[door], endpoint, insecure, err);
}

static int bind_doors(struct host *host)
{
    struct bb_buf err = BB_BUF_INIT;
    int r = 0;
    for (enum bk_door_kind door = 0; door < BK_DOORS && r == 0; door++) {
        for (size_t i = 0; i < host->options->n_endpoints[door] && r == 0; i++) {
            r = bind_door(host, door, host->options->endpoints[door][i], &err);
        }
    }
    if (r < 0) {
        log_error(host, "BB-BIND", bb_buf_string(&err));
    }
    bb_buf_fini(&err);
    return r;
}

static int tell_ports(struct host *host)
{
    const struct bk_endpoints *doors[BK_DOORS] = {
        [BK_DOOR_LISTEN] = &host->door->endpoints,
        [BK_DOOR_PUBLISH] = bk_windows_endpoints(host->windows, BK_WINDOW_PUBLISH),
        [BK_DOOR_PUBLISH_JSON] = bk_windows_endpoints(host->windows, BK_WINDOW_PUBLISH_JSON),
        [BK_DOOR_INGEST] = bk_windows_endpoints(host->windows, BK_WINDOW_INGEST),
        [BK_DOOR_INGEST_SUB] = bk_windows_endpoints(host->windows, BK_WINDOW_INGEST_SUB),
    };
    for (size_t i = 0; i < doors[BK_DOOR_LISTEN]->n_names; i++) {
        char text[320];
        (void)snprintf(text, sizeof(text), "listening on %s", doors[BK_DOOR_LISTEN]->names[i]);
        bk_log_write(host->log, BK_LOG_NOTICE, "BB-LISTENING", text);
    }
    if (host->options->ports_file == NULL) {
        return 0;
    }
    if (bk_ports_file_write(host->options->ports_file, doors) == 0) {
        host->has_ports_file = true;
        return 0;
    }
    char text[320];
    (void)snprintf(text, sizeof(text), "cannot write %s: %m", host->options->ports_file);
    log_error(host, "BB-PORTS-FILE", text);
    return BB_ESYSTEM;
}

static int open_host(struct host *host)
{
    int r = host->wake >= 0 ? open_signals(host) : BB_ESYSTEM;
    if (r == 0) {
        r = raise_descriptors(host);
    }
    if (r == 0) {
        r = open_zmq(host);
    }
    if (r == 0) {
        r = open_core(host);
    }
    if (r == 0) {
        r = open_backends(host);
    }
    if (r == 0) {
        r = bind_doors(host);
    }
    return r == 0 ? tell_ports(host) : r;
}

/* --- the loop ------------------------------------------------------------------------------------- */

static void begin_end(struct host *host, uint64_t now)
{
    bk_log_write(host->log, BK_LOG_NOTICE, "BB-ENDING", "ending: no new clients, delivering what waits");
    host->door->ops->stop_accepting(host->door);
    bk_core_shut_down(host->core);
    host->drain_end = now + host->options->drain_us;
}

static void log_counters(const struct host *host)
{
    char text[256];
    (void)snprintf(text, sizeof(text),
                   "events in %" PRIu64 ", out %" PRIu64 ", refused %" PRIu64 ", bad messages %" PRIu64,
                   bk_core_counter(host->core, BK_COUNTER_events_in),
                   bk_core_counter(host->core, BK_COUNTER_events_out),
                   bk_core_counter(host->core, BK_COUNTER_events_refused),
                   bk_core_counter(host->core, BK_COUNTER_bad_messages));
    bk_log_write(host->log, BK_LOG_NOTICE, "BB-COUNTERS", text);
}

static void take_signals(struct host *host, uint64_t now)
{
    struct signalfd_siginfo info;
    while (read(host->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGUSR1) {
            log_counters(host);
        } else if (info.ssi_signo == SIGHUP) {
            bk_log_write(host->log, BK_LOG_NOTICE, "BB-HANGUP", "there is nothing to reload");
        } else if (host->drain_end == 0) {
            begin_end(host, now);
        } else {
            _exit(EXIT_FAILURE); /* the second one means now */
        }
    }
}

static bool is_drained(const struct host *host, uint64_t now)
{
    return host->drain_end != 0 && (now >= host->drain_end || bk_core_is_drained(host->core));
}

static void flush_plugs(struct host *host)
{
    for (size_t i = 0; i < HOST_PLUGS; i++) {
        if (host->plugs[i]->ops->flush != NULL) {
            host->plugs[i]->ops->flush(host->plugs[i]);
        }
    }
}

static void tick(struct host *host, uint64_t now)
{
    if (now < bk_core_tick_at(host->core) && now < host->next_tick) {
        return;
    }
    (void)bk_core_tick(host->core);
    for (size_t i = 0; i < HOST_PLUGS; i++) {
        if (host->plugs[i]->ops->tick != NULL) {
            host->plugs[i]->ops->tick(host->plugs[i], now);
        }
    }
    flush_plugs(host);
    host->next_tick = now + TICK_MAX_US;
}

/* How long to wait for something to happen, in ms. */
static int wait_ms(const struct host *host, uint64_t now, bool more)
{
    uint64_t at = BB_MIN(bk_core_tick_at(host->core), host->next_tick);
    if (more || bk_core_wants_flush(host->core) || at <= now) {
        return 0;
    }
    return (int)((at - now + 999) / 1000); /* a second at most */
}

static void flush(struct host *host)
{
    bk_core_flush(host->core);
    flush_plugs(host);
}

static void wait_for(struct waits *waits, int fd)
{
    waits->fds[waits->n_fds++] = (struct pollfd){.fd = fd, .events = POLLIN};
}

static void list_waits(const struct host *host, struct waits *waits)
{
    wait_for(waits, host->signals);
    wait_for(waits, host->wake);
    for (size_t i = 0; i < BK_STORES; i++) {
        wait_for(waits, host->backends[i] != NULL ? host->backends[i]->ops->fd(host->backends[i]) : -1);
    }
    for (size_t i = 0; i < HOST_PLUGS; i++) {
        zmq_pollitem_t items[BK_PLUG_ITEMS];
        size_t n = host->plugs[i]->ops->items(host->plugs[i], items);
        for (size_t j = 0; j < n; j++) {
            int fd = items[j].fd;
            size_t size = sizeof(fd);
            if (items[j].socket != NULL) {
                (void)zmq_getsockopt(items[j].socket, ZMQ_FD, &fd, &size);
                waits->sockets[waits->n_sockets++] = items[j].socket;
            }
            wait_for(waits, fd);
        }
    }
}

static bool has_input(const struct waits *waits)
{
    bool found = false;
    for (size_t i = 0; i < waits->n_sockets; i++) {
        int events = 0;
        size_t size = sizeof(events);
        found = found || (zmq_getsockopt(waits->sockets[i], ZMQ_EVENTS, &events, &size) == 0 &&
                          (events & ZMQ_POLLIN) != 0);
    }
    return found;
}

/* A backend that has something to tell runs the core in its own thread while the loop sleeps. */
static bool offer_backend(void *context)
{
    struct host *host = context;
    if (pthread_mutex_trylock(&host->running) != 0) {
        return false;
    }
    (void)set_time(host);
    for (size_t i = 0; i < BK_STORES; i++) {
        if (host->backends[i] != NULL) {
            host->backends[i]->ops->dispatch(host->backends[i]);
        }
    }
    flush(host);
    bool is_late = bk_core_wants_flush(host->core) || bk_core_tick_at(host->core) < host->sleeps_until;
    if (is_late || host->drain_end != 0 || has_input(&host->waits)) {
        (void)eventfd_write(host->wake, 1);
    }
    (void)pthread_mutex_unlock(&host->running);
    return true;
}

static int sleep_until_something(struct host *host, int timeout)
{
    struct waits *waits = &host->waits;
    if (timeout == 0 || has_input(waits)) {
        return poll(waits->fds, waits->n_fds, 0);
    }
    (void)pthread_mutex_unlock(&host->running);
    int n = poll(waits->fds, waits->n_fds, timeout);
    (void)pthread_mutex_lock(&host->running);
    return n;
}

static void dispatch_backends(struct host *host, const struct pollfd *fds)
{
    for (size_t i = 0; i < BK_STORES; i++) {
        if (host->backends[i] != NULL && (fds[i].revents & POLLIN) != 0) {
            host->backends[i]->ops->dispatch(host->backends[i]);
        }
    }
}

static void turn(struct host *host)
{
    bool more = false;
    list_waits(host, &host->waits);
    const struct pollfd *fds = host->waits.fds;
    while (!host->ended) {
        eventfd_t ignored;
        uint64_t now = set_time(host);
        tick(host, now);
        int timeout = wait_ms(host, now, more);
        host->sleeps_until = now + (uint64_t)timeout * 1000;
        if (sleep_until_something(host, timeout) < 0 && errno != EINTR) {
            log_error(host, "BB-POLL", strerror(errno)); /* NOLINT(concurrency-mt-unsafe) */
            return;
        }
        now = set_time(host);
        if ((fds[0].revents & POLLIN) != 0) {
            take_signals(host, now);
        }
        if ((fds[1].revents & POLLIN) != 0) {
            (void)eventfd_read(host->wake, &ignored);
        }
        dispatch_backends(host, fds + 2);
        more = false;
        for (size_t i = 0; i < HOST_PLUGS; i++) {
            more = host->plugs[i]->ops->step(host->plugs[i], now, STEP_BUDGET) || more;
        }
        flush(host);
        host->ended = is_drained(host, now);
    }
}

/* --- ending --------------------------------------------------------------------------------------- */

static void close_host(struct host *host)
{
    if (host->core != NULL) {
        set_time(host);
        bk_core_say_goodbye(host->core);
    }
    for (size_t i = 0; i < HOST_PLUGS; i++) {
        if (host->plugs[i] != NULL) {
            host->plugs[i]->ops->close(host->plugs[i]);
        }
    }
    if (host->context.zmq != NULL) {
        (void)zmq_ctx_term(host->context.zmq);
    }
    for (size_t i = 0; i < HOST_PLUGS; i++) {
        if (host->plugs[i] != NULL) {
            host->plugs[i]->ops->free(host->plugs[i]); /* before the core: what they hold is metered there */
        }
    }
    for (size_t i = 0; i < BK_STORES; i++) {
        if (host->backends[i] != NULL) {
            host->backends[i]->ops->close(host->backends[i]);
        }
    }
    bk_core_free(host->core);
    if (host->signals >= 0) {
        (void)close(host->signals);
    }
    if (host->wake >= 0) {
        (void)close(host->wake);
    }
    if (host->has_ports_file) {
        (void)unlink(host->options->ports_file);
    }
    bk_log_free(host->log);
}

int bk_host_run(const struct bk_host_options *options)
{
    struct host host = {
        .options = options,
        .log = bk_log_new(options->log_format, options->log_level),
        .context =
            {
                .max_message = options->core.max_message,
                .max_peers = options->core.max_clients,
                .server = options->core.server,
                .seed = options->core.seed,
                .linger_ms = LINGER_MS,
            },
        .signals = -1,
        .running = PTHREAD_MUTEX_INITIALIZER,
        .wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
    };
    if (host.log == NULL) {
        return BB_ENOMEM;
    }
    /* Chunks and batches come and go all the time: give their memory back to the system late. No thread yet. */
    (void)mallopt(M_MMAP_THRESHOLD, 4 << 20);  /* NOLINT(concurrency-mt-unsafe) */
    (void)mallopt(M_TRIM_THRESHOLD, 64 << 20); /* NOLINT(concurrency-mt-unsafe) */
    (void)pthread_mutex_lock(&host.running);
    int r = open_host(&host);
    if (r == 0) {
        turn(&host);
        bk_log_write(host.log, BK_LOG_NOTICE, "BB-ENDED", "ended");
    } else {
        char text[64];
        (void)snprintf(text, sizeof(text), "the broker does not start (%s)", bb_errcode(r));
        log_error(&host, "BB-START", text);
    }
    close_host(&host);
    (void)pthread_mutex_unlock(&host.running);
    (void)pthread_mutex_destroy(&host.running);
    return r;
}
