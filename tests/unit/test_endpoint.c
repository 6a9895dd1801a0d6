/* SPDX-License-Identifier: Apache-2.0 */
/* Binding: what is refused before libzmq is asked, what is noted, what is cleaned up. */
#include "proto/base/error.h"

#include "broker/plug/endpoint.h"
#include "broker/plug/zmq/zmq_socket.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

/* A socket to bind, and what it was bound to. */
struct fixture {
    void *context;
    void *socket;
    struct bk_endpoints endpoints;
    struct bb_buf err;
};

static void setup(struct fixture *f)
{
    *f = (struct fixture){0};
    f->context = zmq_ctx_new();
    f->socket = zmq_socket(f->context, ZMQ_ROUTER);
    cr_assert_not_null(f->socket);
}

static void teardown(struct fixture *f)
{
    (void)zmq_close(f->socket);
    bk_endpoints_fini(&f->endpoints);
    bb_buf_fini(&f->err);
    (void)zmq_ctx_term(f->context);
}

static int bind_to(struct fixture *f, const char *endpoint, bool insecure)
{
    return bk_zmq_bind(f->socket, endpoint, insecure, &f->endpoints, &f->err);
}

Test(endpoint, a_port_that_libzmq_chose_is_noted)
{
    struct fixture f;
    setup(&f);
    cr_assert_eq(bind_to(&f, "tcp://127.0.0.1:*", false), 0, "%s", bb_buf_string(&f.err));
    cr_assert_eq(f.endpoints.n_names, 1);
    cr_assert_eq(strncmp(f.endpoints.names[0], "tcp://127.0.0.1:", 16), 0);
    cr_assert_neq(f.endpoints.names[0][16], '*');
    teardown(&f);
}

Test(endpoint, what_others_could_reach_needs_insecure)
{
    static const char *const open[] = {"tcp://*:*", "tcp://0.0.0.0:*", "tcp://[::]:*", "tcp://1.2.3.4:5"};
    struct fixture f;
    setup(&f);
    for (size_t i = 0; i < BB_COUNT(open); i++) {
        cr_assert_eq(bind_to(&f, open[i], false), BB_EREFUSED, "%s", open[i]);
        cr_assert_gt(f.err.len, 0);
    }
    cr_assert_eq(f.endpoints.n_names, 0);
    cr_assert_eq(bind_to(&f, "tcp://*:*", true), 0);
    teardown(&f);
}

Test(endpoint, what_is_no_endpoint_is_refused_with_a_sentence)
{
    char too_long[300] = "ipc:///tmp/";
    memset(too_long + 11, 'x', sizeof(too_long) - 12);
    const char *const wrong[] = {
        "", "inproc://x", "udp://127.0.0.1:1", "ipc://", "tcp://127.0.0.1", "tcp://localhost:x", too_long};
    struct fixture f;
    setup(&f);
    for (size_t i = 0; i < BB_COUNT(wrong); i++) {
        cr_assert_eq(bind_to(&f, wrong[i], false), BB_EINVAL, "%s", wrong[i]);
        cr_assert_gt(f.err.len, 0);
    }
    teardown(&f);
}

Test(endpoint, an_ipc_path_gets_its_directories_and_goes_at_the_end)
{
    char directory[] = "/tmp/busbar-test-XXXXXX";
    char endpoint[128];
    char inner[128];
    struct fixture f;
    cr_assert_not_null(mkdtemp(directory));
    (void)snprintf(endpoint, sizeof(endpoint), "ipc://%s/a/b/bus", directory);
    setup(&f);
    cr_assert_eq(bind_to(&f, endpoint, false), 0, "%s", bb_buf_string(&f.err));
    cr_assert_eq(access(endpoint + 6, F_OK), 0);
    teardown(&f);
    cr_assert_neq(access(endpoint + 6, F_OK), 0, "the file was left");
    (void)snprintf(inner, sizeof(inner), "%s/a/b", directory);
    cr_assert_eq(rmdir(inner), 0);
    (void)snprintf(inner, sizeof(inner), "%s/a", directory);
    cr_assert_eq(rmdir(inner), 0);
    cr_assert_eq(rmdir(directory), 0);
}

Test(endpoint, a_path_on_which_a_broker_answers_is_not_taken_over)
{
    char directory[] = "/tmp/busbar-test-XXXXXX";
    char endpoint[128];
    struct fixture first;
    struct fixture second;
    cr_assert_not_null(mkdtemp(directory));
    (void)snprintf(endpoint, sizeof(endpoint), "ipc://%s/bus", directory);
    setup(&first);
    setup(&second);
    cr_assert_eq(bind_to(&first, endpoint, false), 0);
    cr_assert_eq(bind_to(&second, endpoint, false), BB_EEXISTS);
    cr_assert_eq(second.endpoints.n_names, 0);
    teardown(&second);
    cr_assert_eq(access(endpoint + 6, F_OK), 0, "the other broker's file went");
    teardown(&first);
    cr_assert_eq(rmdir(directory), 0);
}

Test(endpoint, a_port_in_use_is_said_to_be)
{
    struct fixture first;
    struct fixture second;
    setup(&first);
    setup(&second);
    cr_assert_eq(bind_to(&first, "tcp://127.0.0.1:*", false), 0);
    cr_assert_eq(bind_to(&second, first.endpoints.names[0], false), BB_EEXISTS);
    teardown(&second);
    teardown(&first);
}

/* --- listening without libzmq ----------------------------------------------------------------------- */

/* Listens, and says what @ret_name it got; the caller does not want the socket. */
static int listen_on(struct fixture *f, const char *endpoint, bool insecure, const char **ret_name)
{
    int fd = -1;
    int r = bk_endpoint_listen(endpoint, insecure, &f->endpoints, &f->err, &fd);
    cr_assert_eq(r == 0, fd >= 0, "%s: %s", endpoint, bb_buf_string(&f->err));
    cr_assert_eq(r == 0, f->err.len == 0);
    if (r == 0) {
        (void)close(fd);
        *ret_name = f->endpoints.names[f->endpoints.n_names - 1];
    }
    return r;
}

Test(endpoint, a_listening_socket_says_where_it_is)
{
    static const struct {
        const char *endpoint;
        bool insecure;
        const char *start;
    } rows[] = {
        {"tcp://127.0.0.1:*", false, "tcp://127.0.0.1:"}, {"tcp://127.0.0.1:0", false, "tcp://127.0.0.1:"},
        {"tcp://localhost:*", false, "tcp://127.0.0.1:"}, {"tcp://*:*", true, "tcp://0.0.0.0:"},
        {"tcp://[::1]:*", false, "tcp://[::1]:"},
    };
    struct fixture f;
    setup(&f);
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        const char *name = NULL;
        int r = listen_on(&f, rows[i].endpoint, rows[i].insecure, &name);
        if (r == BB_ESYSTEM && strstr(rows[i].endpoint, "::") != NULL) {
            continue; /* a machine without IPv6 */
        }
        cr_assert_eq(r, 0, "%s: %s", rows[i].endpoint, bb_buf_string(&f.err));
        cr_assert_eq(strncmp(name, rows[i].start, strlen(rows[i].start)), 0, "%s", name);
        cr_assert_gt(strtol(name + strlen(rows[i].start), NULL, 10), 0, "%s", name);
    }
    teardown(&f);
}

Test(endpoint, what_nobody_can_listen_on_is_refused_with_a_sentence)
{
    static const struct {
        const char *endpoint;
        int error;
    } rows[] = {
        {"tcp://*:*", BB_EREFUSED},
        {"tcp://127.evil.example:1", BB_EREFUSED},
        {"tcp://127.0.0.1:70000", BB_EINVAL},
        {"tcp://127.0.0.1:", BB_EINVAL},
        {"tcp://127.0.0.1:http", BB_EINVAL},
        {"tcp://127.0.0.1:-1", BB_EINVAL},
        {"tcp://127.0.0.1", BB_EINVAL},
        {"tcp://127.0.0.1.2:1", BB_EINVAL},
        {"tcp://[::1]", BB_EREFUSED},
        {"ipc://*", BB_EINVAL},
        {"ipc://", BB_EINVAL},
        {"udp://127.0.0.1:1", BB_EINVAL},
    };
    struct fixture f;
    setup(&f);
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        const char *name = NULL;
        cr_assert_eq(listen_on(&f, rows[i].endpoint, false, &name), rows[i].error, "%s", rows[i].endpoint);
    }
    cr_assert_eq(f.endpoints.n_names, 0);
    teardown(&f);
}

Test(endpoint, a_socket_file_left_behind_is_taken_over_and_another_file_is_not)
{
    struct fixture f;
    char dir[] = "/tmp/busbar-endpoint-XXXXXX";
    char endpoint[80];
    const char *name = NULL;
    struct stat found;
    setup(&f);
    cr_assert_not_null(mkdtemp(dir));
    (void)snprintf(endpoint, sizeof(endpoint), "ipc://%s/below/bus", dir);
    const char *path = endpoint + strlen("ipc://");
    cr_assert_eq(listen_on(&f, endpoint, false, &name), 0);
    cr_assert_eq(lstat(path, &found), 0, "nobody answers there any more, but the file is there");
    cr_assert_eq(listen_on(&f, endpoint, false, &name), 0);
    int fd = -1;
    cr_assert_eq(bk_endpoint_listen(endpoint, false, &f.endpoints, &f.err, &fd), 0);
    cr_assert_eq(listen_on(&f, endpoint, false, &name), BB_EEXISTS, "somebody answers there");
    (void)close(fd);
    bk_endpoints_fini(&f.endpoints);
    cr_assert_neq(lstat(path, &found), 0);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    (void)fclose(file);
    cr_assert_eq(listen_on(&f, endpoint, false, &name), BB_EEXISTS);
    cr_assert_eq(bind_to(&f, endpoint, false), BB_EEXISTS);
    cr_assert_eq(lstat(path, &found), 0);
    (void)unlink(path);
    (void)snprintf(endpoint, sizeof(endpoint), "%s/below", dir);
    (void)rmdir(endpoint);
    (void)rmdir(dir);
    teardown(&f);
}

Test(endpoint, an_abstract_name_leaves_no_file)
{
    struct fixture f;
    char endpoint[80];
    const char *name = NULL;
    struct stat found;
    setup(&f);
    (void)snprintf(endpoint, sizeof(endpoint), "ipc://@busbar-test-%ld", (long)getpid());
    cr_assert_eq(listen_on(&f, endpoint, false, &name), 0);
    cr_assert_str_eq(name, endpoint);
    cr_assert_neq(lstat(endpoint + strlen("ipc://"), &found), 0);
    teardown(&f);
}
