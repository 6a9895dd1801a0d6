/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a url to a connection: addresses that refuse, do not answer or are no broker, and names. The test decides what names
 * lead to: getaddrinfo() is its own, but for numbers.
 */
#include "proto/base/error.h"
#include "proto/base/time.h"

#include "bus/link.h"
#include "tests/unit/script.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define OPEN_MS 1000

/* --- names -------------------------------------------------------------------------------------- */

/* ld --wrap calls what it wraps __wrap_NAME and the original __real_NAME. */
#define LINKER_NAME(name) __asm__("__" #name)

int real_getaddrinfo(const char *host,
                     const char *port,
                     const struct addrinfo *hints,
                     struct addrinfo **ret_list) LINKER_NAME(real_getaddrinfo);
int wrap_getaddrinfo(const char *host,
                     const char *port,
                     const struct addrinfo *hints,
                     struct addrinfo **ret_list) LINKER_NAME(wrap_getaddrinfo);

static sem_t slow_begun;
static sem_t slow_may_end;

static int is_slow(void)
{
    (void)sem_post(&slow_begun);
    while (sem_wait(&slow_may_end) != 0) {
    }
    return EAI_AGAIN;
}

/* none.test is nowhere, slow.test takes its time, two.test is 127.0.0.2 and then 127.0.0.1. */
int wrap_getaddrinfo(const char *host,
                     const char *port,
                     const struct addrinfo *hints,
                     struct addrinfo **ret_list)
{
    if ((hints->ai_flags & AI_NUMERICHOST) != 0) {
        return real_getaddrinfo(host, port, hints, ret_list);
    }
    if (strcmp(host, "slow.test") == 0) {
        return is_slow();
    }
    if (strcmp(host, "two.test") != 0) {
        return EAI_NONAME;
    }
    struct addrinfo *second = NULL;
    int r = real_getaddrinfo("127.0.0.2", port, hints, ret_list);
    r = r == 0 ? real_getaddrinfo("127.0.0.1", port, hints, &second) : r;
    if (r == 0) {
        (*ret_list)->ai_next = second;
    }
    return r;
}

/* --- a link and who it connects to -------------------------------------------------------------- */

struct fixture {
    int epoll;
    uint64_t now;
    struct bb_link link;
    struct bb_frame frames[BB_FRAMES_MAX];
    size_t n_frames;
    char url[160];
};

static void start(struct fixture *f)
{
    *f = (struct fixture){.epoll = epoll_create1(EPOLL_CLOEXEC)};
    bb_link_init(&f->link, f->epoll);
}

static void end(struct fixture *f)
{
    bb_link_fini(&f->link);
    (void)close(f->epoll);
}

static int listen_at(const char *host, uint16_t *port, int backlog)
{
    const int one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(*port)};
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    cr_assert_eq(inet_pton(AF_INET, host, &address.sin_addr), 1);
    cr_assert_eq(bind(fd, (const struct sockaddr *)&address, len), 0);
    cr_assert_eq(listen(fd, backlog), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

/* Nobody accepts, so that at some time further connections are not answered. */
static void fill(int listener, int fds[8])
{
    struct sockaddr_in address;
    socklen_t len = sizeof(address);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    for (int i = 0; i < 8; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)connect(fds[i], (const struct sockaddr *)&address, len);
    }
}

static void close_all(const int *fds, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        (void)close(fds[i]);
    }
}

static int open_tcp(struct fixture *f, const char *host, uint16_t port)
{
    (void)snprintf(f->url, sizeof(f->url), "tcp://%s:%u", host, port);
    return bb_link_open(&f->link, f->url, f->now, OPEN_MS);
}

static enum bb_link_event step(struct fixture *f)
{
    bb_link_look(&f->link);
    return bb_link_next(&f->link, f->now, f->frames, &f->n_frames);
}

/* Until something happens; NOTHING if nothing does for a while. */
static enum bb_link_event await(struct fixture *f, int timeout_ms)
{
    enum bb_link_event event = step(f);
    struct epoll_event ignored;
    while (event == BB_LINK_NOTHING && epoll_wait(f->epoll, &ignored, 1, timeout_ms) == 1) {
        event = step(f);
    }
    return event;
}

static void expect_lost(struct fixture *f, const char *text)
{
    cr_assert_eq(await(f, PATIENCE_MS), BB_LINK_LOST);
    cr_assert_eq(f->link.error, BB_ECONNECT);
    cr_assert_not_null(strstr(f->link.text, text), "%s", f->link.text);
    cr_assert_eq(strncmp(f->link.text, f->url, strlen(f->url)), 0, "%s", f->link.text);
}

/* The greeting comes to @listener. */
static void expect_greeting(struct fixture *f, int listener)
{
    uint8_t greeting[BB_ZMTP_GREETING_LEN];
    uint8_t expected[BB_ZMTP_GREETING_LEN];
    cr_assert_eq(await(f, 100), BB_LINK_NOTHING);
    cr_assert_eq(f->link.state, BB_LINK_GREETING, "state %d: %s", (int)f->link.state, f->link.text);
    int fd = accept(listener, NULL, NULL);
    cr_assert_geq(fd, 0);
    bb_zmtp_greeting(expected);
    cr_assert_eq(recv(fd, greeting, sizeof(greeting), MSG_WAITALL), sizeof(greeting));
    cr_assert_eq(memcmp(greeting, expected, sizeof(greeting)), 0);
    cr_assert_neq(fcntl(f->link.fd, F_GETFD) & FD_CLOEXEC, 0);
    (void)close(fd);
}

static uint16_t free_port(void)
{
    uint16_t port = 0;
    (void)close(listen_at("127.0.0.1", &port, 1));
    return port;
}

/* --- addresses ---------------------------------------------------------------------------------- */

Test(bus_dial, where_nobody_listens_it_is_refused)
{
    struct fixture f;
    start(&f);
    int r = open_tcp(&f, "127.0.0.1", free_port());
    if (r == 0) { /* it may be known at once */
        expect_lost(&f, "Connection refused");
    } else {
        cr_assert_eq(r, BB_ECONNECT);
    }
    cr_assert_eq(f.link.state, BB_LINK_CLOSED);
    cr_assert_eq(bb_link_open(&f.link, "ipc:///nonexistent/busbar", 0, OPEN_MS), BB_ECONNECT);
    cr_assert_str_eq(f.link.text, "ipc:///nonexistent/busbar: No such file or directory");
    cr_assert_eq(f.link.state, BB_LINK_CLOSED);
    end(&f);
}

Test(bus_dial, numbers_of_both_families_lead_there)
{
    struct fixture f;
    uint16_t port = 0;
    start(&f);
    int listener = listen_at("127.0.0.1", &port, 8);
    cr_assert_eq(open_tcp(&f, "127.0.0.1", port), 0);
    expect_greeting(&f, listener);
    bb_link_close(&f.link);
    cr_assert_eq(open_tcp(&f, "[::ffff:127.0.0.1]", port), 0);
    expect_greeting(&f, listener);
    (void)close(listener);
    end(&f);
}

Test(bus_dial, local_sockets_have_paths_or_abstract_names)
{
    struct fixture f;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char name[64];
    start(&f);
    (void)snprintf(name, sizeof(name), "busbar-test-dial-%d", (int)getpid());
    memcpy(address.sun_path + 1, name, strlen(name));
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(listener, (const struct sockaddr *)&address, len), 0);
    cr_assert_eq(listen(listener, 1), 0);
    (void)snprintf(f.url, sizeof(f.url), "ipc://@%s", name);
    cr_assert_eq(bb_link_open(&f.link, f.url, 0, OPEN_MS), 0);
    expect_greeting(&f, listener);
    (void)close(listener);
    end(&f);
}

Test(bus_dial, who_does_not_answer_is_given_up_in_time)
{
    struct fixture f;
    uint16_t port = 0;
    int fds[8];
    start(&f);
    int listener = listen_at("127.0.0.1", &port, 0);
    fill(listener, fds);
    cr_assert_eq(open_tcp(&f, "127.0.0.1", port), 0);
    cr_assert_eq(await(&f, 50), BB_LINK_NOTHING);
    cr_assert_eq(f.link.deadline, OPEN_MS);
    f.now = OPEN_MS;
    expect_lost(&f, "no answer in time");
    close_all(fds, 8);
    (void)close(listener);
    end(&f);
}

/* --- names -------------------------------------------------------------------------------------- */

Test(bus_dial, a_name_that_is_nowhere_says_so)
{
    struct fixture f;
    start(&f);
    cr_assert_eq(open_tcp(&f, "none.test", 5555), 0);
    expect_lost(&f, "not known");
    end(&f);
}

Test(bus_dial, an_address_that_refuses_is_followed_by_the_next)
{
    struct fixture f;
    uint16_t port = 0;
    start(&f);
    int listener = listen_at("127.0.0.1", &port, 1);
    cr_assert_eq(open_tcp(&f, "two.test", port), 0);
    cr_assert_eq(f.link.state, BB_LINK_LOOKING);
    expect_greeting(&f, listener);
    cr_assert_eq(f.link.deadline, OPEN_MS);
    (void)close(listener);
    end(&f);
}

Test(bus_dial, an_address_that_does_not_answer_has_its_share_of_the_time)
{
    struct fixture f;
    uint16_t port = 0;
    int fds[8];
    start(&f);
    int listener = listen_at("127.0.0.1", &port, 1);
    int dumb = listen_at("127.0.0.2", &port, 0);
    fill(dumb, fds);
    cr_assert_eq(open_tcp(&f, "two.test", port), 0);
    while (f.link.state == BB_LINK_LOOKING) {
        cr_assert_eq(await(&f, 50), BB_LINK_NOTHING);
    }
    cr_assert_eq(await(&f, 50), BB_LINK_NOTHING);
    cr_assert_eq(f.link.state, BB_LINK_CONNECTING);
    cr_assert_eq(f.link.deadline, OPEN_MS / 2);
    f.now = OPEN_MS / 2;
    expect_greeting(&f, listener);
    cr_assert_eq(f.link.deadline, OPEN_MS);
    close_all(fds, 8);
    (void)close(dumb);
    (void)close(listener);
    end(&f);
}

Test(bus_dial, an_address_with_something_else_is_followed_by_the_next)
{
    struct fixture f;
    uint16_t port = 0;
    start(&f);
    int listener = listen_at("127.0.0.1", &port, 1);
    int other = listen_at("127.0.0.2", &port, 1);
    cr_assert_eq(open_tcp(&f, "two.test", port), 0);
    expect_greeting(&f, other); /* which is hung up then */
    expect_greeting(&f, listener);
    (void)close(listener);
    cr_assert_eq(await(&f, 100), BB_LINK_LOST);
    (void)close(other);
    end(&f);
}

Test(bus_dial, a_look_up_that_takes_too_long_is_left_behind)
{
    struct fixture f;
    (void)sem_init(&slow_begun, 0, 0);
    (void)sem_init(&slow_may_end, 0, 0);
    start(&f);
    cr_assert_eq(open_tcp(&f, "slow.test", 5555), 0);
    (void)sem_wait(&slow_begun);
    cr_assert_eq(await(&f, 10), BB_LINK_NOTHING);
    f.now = OPEN_MS;
    expect_lost(&f, "the name could not be looked up in time");
    cr_assert_eq(open_tcp(&f, "none.test", 5555), 0);
    (void)sem_post(&slow_may_end);
    expect_lost(&f, "not known");
    end(&f);
}

/* --- a whole bus -------------------------------------------------------------------------------- */

static void look_up_slowly(bool is_embedded)
{
    struct bb_options options = BB_OPTIONS_INIT;
    bb_bus *bus = NULL;
    (void)sem_init(&slow_begun, 0, 0);
    (void)sem_init(&slow_may_end, 0, 0);
    options.url = "tcp://slow.test:5555";
    options.embedded = is_embedded;
    int64_t begin = bb_clock_monotonic_us();
    cr_assert_eq(bb_bus_open(&options, &bus), 0);
    cr_assert_eq(bb_bus_wait_ready(bus, 20), BB_ECONNECT);
    (void)sem_wait(&slow_begun);
    cr_assert_eq(bb_publish(bus, "a", BB_PAYLOAD_NIL, NULL, 0), 0);
    cr_assert_eq(bb_bus_state(bus), BB_STATE_CONNECTING);
    cr_assert_eq(is_embedded ? bb_bus_step(bus) : 0, 0);
    cr_assert_eq(bb_bus_close(bus), 0);
    cr_assert_lt(bb_clock_monotonic_us() - begin, 1000 * PATIENCE_MS);
    (void)sem_post(&slow_may_end);
}

Test(bus_dial, a_look_up_holds_nobody_up)
{
    look_up_slowly(false);
}

Test(bus_dial, a_look_up_does_not_hold_up_the_callers_loop)
{
    look_up_slowly(true);
}

Test(bus_dial, the_error_of_a_bus_says_what_is_wrong)
{
    struct bb_options options = BB_OPTIONS_INIT;
    bb_bus *bus = NULL;
    char text[256];
    options.url = "ipc:///nonexistent/busbar";
    cr_assert_eq(bb_bus_open(&options, &bus), 0);
    cr_assert_eq(bb_bus_wait_ready(bus, 50), BB_ECONNECT);
    cr_assert_str_eq(bb_bus_last_error(bus, text, sizeof(text)),
                     "ipc:///nonexistent/busbar: No such file or directory");
    cr_assert_eq(bb_bus_close(bus), 0);
}

Test(bus_dial, a_name_leads_to_a_broker)
{
    struct script script;
    struct bb_options options = BB_OPTIONS_INIT;
    bb_bus *bus = NULL;
    char url[64];
    script_start(&script);
    (void)snprintf(url, sizeof(url), "tcp://two.test%s", strrchr(script.url, ':'));
    options.url = url;
    cr_assert_eq(bb_bus_open(&options, &bus), 0);
    (void)script_expect(&script, BB_MSG_HELLO);
    script_welcome(&script, 7, 0);
    cr_assert_eq(bb_bus_wait_ready(bus, PATIENCE_MS), 0);
    script_finish(&script, bus);
}
