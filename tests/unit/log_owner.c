/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/log_owner.h"

#include "proto/base/time.h"
#include "proto/wire/mp.h"

#include <errno.h>
#include <ftw.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SERVER 7
#define TIME0  UINT64_C(1700000000000000) /* us */

static const char *const names[] = {"one", "two", "three"};
#define DEADLINE_US 30000000

/* --- the journal's disk ----------------------------------------------------------------------------- */

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    enum disk is;
    bool is_holding;
    void (*when)(void *context);
    void *context;
} disk = {.mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};

/* ld --wrap calls what it wraps __wrap_NAME and the original __real_NAME. */
#define LINKER_NAME(name) __asm__("__" #name)

ssize_t real_pwrite(int fd, const void *from, size_t len, off_t offset) LINKER_NAME(real_pwrite);
ssize_t wrap_pwrite(int fd, const void *from, size_t len, off_t offset) LINKER_NAME(wrap_pwrite);

void disk_be(enum disk is, void (*when)(void *), void *context)
{
    (void)pthread_mutex_lock(&disk.mutex);
    disk.is = is;
    disk.when = when;
    disk.context = context;
    (void)pthread_cond_broadcast(&disk.cond);
    (void)pthread_mutex_unlock(&disk.mutex);
}

void disk_wait_held(void)
{
    (void)pthread_mutex_lock(&disk.mutex);
    while (!disk.is_holding) {
        (void)pthread_cond_wait(&disk.cond, &disk.mutex);
    }
    (void)pthread_mutex_unlock(&disk.mutex);
}

/* What the disk is for this call. */
static enum disk disk_begin(void)
{
    (void)pthread_mutex_lock(&disk.mutex);
    while (disk.is == DISK_HOLDS) {
        disk.is_holding = true;
        (void)pthread_cond_broadcast(&disk.cond);
        (void)pthread_cond_wait(&disk.cond, &disk.mutex);
    }
    disk.is_holding = false;
    enum disk is = disk.is;
    disk.is = DISK_WELL;
    (void)pthread_mutex_unlock(&disk.mutex);
    return is;
}

ssize_t wrap_pwrite(int fd, const void *from, size_t len, off_t offset)
{
    enum disk is = disk_begin();
    ssize_t n = is == DISK_LOSES ? -1 : real_pwrite(fd, from, len, offset);
    if (is != DISK_WELL) {
        cr_assert(is == DISK_LOSES || (n == (ssize_t)len && fsync(fd) == 0));
        if (disk.when != NULL) {
            disk.when(disk.context);
        }
        errno = EIO;
        n = -1;
    }
    return n;
}

/* --- what it is told -------------------------------------------------------------------------------- */

static void on_registered(void *context, uint64_t ticket)
{
    struct owner *owner = context;
    cr_assert_eq(ticket, owner->ticket + 1);
}

static void on_flushed(void *context, uint64_t ticket, int error)
{
    struct owner *owner = context;
    cr_assert_gt(ticket, owner->decided, "decided twice");
    cr_assert_leq(ticket, owner->ticket);
    if (error == 0) {
        owner->decided = ticket;
        return;
    }
    owner->error = error;
    owner->n_failed += owner->ticket - ticket + 1;
    owner->decided = owner->ticket;
    owner->at =
        ((const struct owner_mark *)(const void *)owner->marks.data)[ticket - 1]; /* go on from there */
}

static void on_trimmed(void *context, uint32_t channel, uint64_t first)
{
    struct owner *owner = context;
    cr_assert_geq(first, owner->trimmed[channel]);
    owner->trimmed[channel] = first;
}

static void on_state(void *context, enum bk_backend_state state, const char *text)
{
    struct owner *owner = context;
    owner->state = state;
    owner->n_states++;
    owner->n_failures += state == BK_BACKEND_FAILED;
    (void)snprintf(owner->text, sizeof(owner->text), "%s", text);
}

static void on_done(void *context, struct bk_request *request)
{
    struct owner *owner = context;
    (void)request;
    owner->n_waiting--;
}

/* --- opening and closing ------------------------------------------------------------------------------ */

static uint64_t now(void *context)
{
    struct owner *owner = context;
    return TIME0 + atomic_load(&owner->aged);
}

int owner_try_open(struct owner *owner, struct bk_backend **ret_backend)
{
    size_t n = 0;
    struct bk_backend_env env = {
        .directory = owner->directory,
        .server = SERVER,
        .min_ticket = owner->min_ticket,
        .now = now,
        .now_context = owner,
        .listener = &owner->listener,
        .meter = &owner->meter,
    };
    while (owner->options[n] != NULL) {
        n++;
    }
    bb_buf_reset(&owner->err);
    return bk_backend_open("lmdb", owner->options, n, &env, ret_backend, &owner->err);
}

static int see_channel(void *context, const struct bk_log_channel *channel)
{
    struct owner *owner = context;
    owner->at.last[channel->id] = channel->last;
    return 0;
}

void owner_enter(struct owner *owner)
{
    const struct bk_backend_loader loader = {owner, see_channel, NULL, NULL};
    struct bk_event_id id;
    uint64_t time = 0;
    int r = owner_try_open(owner, &owner->backend);
    cr_assert_eq(r, 0, "%s: %s", bb_strerror(r), bb_buf_string(&owner->err));
    cr_assert_eq(owner->backend->ops->load(owner->backend, &loader), 0);
    owner->backend->ops->get_last_event_id(owner->backend, SERVER, &id, &time);
    owner->at.session = id.session;
    owner->ticket = owner->decided = 0;
    bb_buf_reset(&owner->marks);
    bb_buf_append(&owner->marks, &owner->at, sizeof(owner->at));
}

void owner_open(struct owner *owner, const char *const *options)
{
    *owner = (struct owner){.options = options};
    owner->listener = (struct bk_backend_listener){owner, on_registered, on_flushed, on_trimmed, on_state};
    (void)snprintf(owner->directory, sizeof(owner->directory), "/tmp/busbar-owner-XXXXXX");
    cr_assert_not_null(mkdtemp(owner->directory));
    owner_enter(owner);
    struct bk_log_channel channels[OWNER_CHANNELS - 1];
    for (uint32_t i = 0; i < BB_COUNT(channels); i++) {
        channels[i] = (struct bk_log_channel){
            .id = i + 1, .name = bb_slice_str(names[i]), .retention = BK_RETENTION_INIT};
    }
    struct bk_append append = {.channels = channels, .n_channels = BB_COUNT(channels)};
    cr_assert_eq(owner->backend->ops->register_(owner->backend, &append, owner->ticket + 1), 0);
    owner->ticket++;
    bb_buf_append(&owner->marks, &owner->at, sizeof(owner->at));
}

void owner_leave(struct owner *owner)
{
    owner->backend->ops->close(owner->backend);
    owner->backend = NULL;
    cr_assert_eq(owner->decided, owner->ticket, "close() leaves a ticket undecided");
    cr_assert_eq(owner->n_waiting, 0, "close() leaves a request unanswered");
    cr_assert_eq(atomic_load(&owner->meter.bytes), 0);
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status;
    (void)type;
    (void)place;
    return remove(path);
}

void owner_close(struct owner *owner)
{
    if (owner->backend != NULL) {
        owner_leave(owner);
    }
    bb_buf_fini(&owner->marks);
    bb_buf_fini(&owner->err);
    cr_assert_eq(nftw(owner->directory, remove_one, 8, FTW_DEPTH | FTW_PHYS), 0);
}

/* --- events ------------------------------------------------------------------------------------------- */

void owner_set_age(struct owner *owner, uint32_t channel, uint64_t max_age_us)
{
    struct bk_log_channel entry = {
        .id = channel, .name = bb_slice_str(names[channel - 1]), .retention = BK_RETENTION_INIT};
    entry.retention.max_age_us = max_age_us;
    struct bk_append append = {.channels = &entry, .n_channels = 1};
    cr_assert_eq(owner->backend->ops->register_(owner->backend, &append, owner->ticket + 1), 0);
    owner->ticket++;
    bb_buf_append(&owner->marks, &owner->at, sizeof(owner->at));
}

int owner_put(struct owner *owner, uint32_t channel, size_t n, size_t padding)
{
    struct bb_buf events = BB_BUF_INIT;
    struct bb_buf payload = BB_BUF_INIT;
    uint8_t *zeros = calloc(1, padding + 1);
    bb_mp_write_bin(&payload, bb_slice(zeros, padding));
    free(zeros);
    for (size_t i = 0; i < n; i++) {
        char path[32];
        owner->next_path += padding == 0 ? 1 : 0;
        (void)snprintf(path, sizeof(path), "p/%llu", padding == 0 ? (unsigned long long)owner->next_path : 0);
        bb_event_write(&events, bb_slice_str(path), bb_buf_slice(&payload), NULL);
    }
    struct bk_log_block block = {
        .channel = channel,
        .server = SERVER,
        .head =
            {
                .session = owner->at.session + 1,
                .time = TIME0 + owner->at.session,
                .source = 3,
                .sequence = owner->at.last[channel] + 1,
                .instance = 1,
                .count = n,
                .length = events.len,
            },
        .events = events.data,
    };
    struct bk_append append = {.blocks = &block, .n_blocks = 1};
    int r = owner->backend->ops->register_(owner->backend, &append, owner->ticket + 1);
    bb_buf_fini(&payload);
    bb_buf_fini(&events);
    cr_assert(r != BB_ELOGFULL || owner->state == BK_BACKEND_FULL, "refused, and the state is %d",
              (int)owner->state);
    cr_assert(r != BB_ELOGFAILED || owner->state == BK_BACKEND_FAILED, "refused, and the state is %d",
              (int)owner->state);
    if (r == 0) {
        cr_assert_eq(block.error, 0, "%s", bb_strerror(block.error));
        owner->ticket++;
        owner->at.session++;
        owner->at.last[channel] += n;
        bb_buf_append(&owner->marks, &owner->at, sizeof(owner->at));
    }
    return r;
}

void owner_pump(struct owner *owner, bool (*is_done)(const struct owner *))
{
    int64_t deadline = bb_clock_monotonic_us() + DEADLINE_US;
    while (!is_done(owner)) {
        struct pollfd fd = {.fd = owner->backend->ops->fd(owner->backend), .events = POLLIN};
        int64_t left = deadline - bb_clock_monotonic_us();
        cr_assert_gt(left, 0, "nothing more is told; the last state: %s", owner->text);
        cr_assert_eq(poll(&fd, 1, (int)(left / 1000) + 1), 1, "nothing is told; the last state: %s",
                     owner->text);
        owner->backend->ops->dispatch(owner->backend);
    }
}

static bool is_settled(const struct owner *owner)
{
    return owner->decided == owner->ticket;
}

void owner_settle(struct owner *owner)
{
    owner_pump(owner, is_settled);
}

/* --- requests ----------------------------------------------------------------------------------------- */

void owner_submit(struct owner *owner, struct bk_request *request)
{
    request->done = on_done;
    request->context = owner;
    owner->n_waiting++;
    owner->backend->ops->submit(owner->backend, request);
}

static bool is_answered(const struct owner *owner)
{
    return owner->n_waiting == 0;
}

void owner_wait(struct owner *owner)
{
    owner_pump(owner, is_answered);
}

int owner_run(struct owner *owner, struct bk_request *request)
{
    owner_submit(owner, request);
    owner_wait(owner);
    return request->error;
}

uint64_t owner_count(struct owner *owner, uint32_t channel)
{
    struct bk_read_range range = {channel, .stop = BK_NO_LIMIT, .stop_time = BK_NO_LIMIT};
    uint64_t n = 0;
    while (!range.at_end) {
        struct bk_read read = {
            .request = {.kind = BK_REQUEST_READ},
            .ranges = &range,
            .n_ranges = 1,
            .max_bytes = SIZE_MAX,
            .now = TIME0,
        };
        range.after = range.reached;
        cr_assert_eq(owner_run(owner, &read.request), 0);
        bk_bytes_unref(read.body);
        bb_buf_fini(&read.losses);
        n += range.events;
    }
    return n;
}

/* The value of @name in a map of numbers and texts. */
static uint64_t value_of(struct bb_slice map, const char *name, char ret_text[400])
{
    struct bb_mp_reader reader = bb_mp_reader(map);
    uint64_t n = bb_mp_read_map(&reader);
    uint64_t value = UINT64_MAX;
    for (uint64_t i = 0; i < n && value == UINT64_MAX; i++) {
        bool is_it = bb_slice_equal(bb_mp_read_str(&reader), bb_slice_str(name));
        bool is_text = bb_mp_peek_type(&reader) == BB_MP_STR;
        struct bb_slice text = is_text ? bb_mp_read_str(&reader) : bb_slice("", 0);
        uint64_t number = is_text ? text.len : bb_mp_read_uint(&reader);
        value = is_it ? number : value;
        if (is_it && is_text && ret_text != NULL) {
            (void)snprintf(ret_text, 400, "%.*s", (int)text.len, (const char *)text.data);
        }
    }
    cr_assert_neq(value, UINT64_MAX, "there is no %s", name);
    return value;
}

uint64_t owner_status(struct owner *owner, const char *name, char ret_text[400])
{
    struct bb_buf status = BB_BUF_INIT;
    owner->backend->ops->status(owner->backend, &status);
    uint64_t value = value_of(bb_buf_slice(&status), name, ret_text);
    bb_buf_fini(&status);
    return value;
}

void owner_verify(struct owner *owner)
{
    struct bk_upkeep verify = {.request = {.kind = BK_REQUEST_VERIFY}};
    char text[400];
    cr_assert_eq(owner_run(owner, &verify.request), 0);
    (void)value_of(bb_buf_slice(&verify.report), "first", text);
    cr_assert_eq(value_of(bb_buf_slice(&verify.report), "problems", NULL), 0, "%s", text);
    bb_buf_fini(&verify.report);
}
