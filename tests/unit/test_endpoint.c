/* SPDX-License-Identifier: Apache-2.0 */
/* Binding: what is refused before libzmq is asked, what is noted, what is cleaned up. */
#include "proto/base/error.h"

#include "broker/plug/endpoint.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
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
    return bk_endpoint_bind(f->socket, endpoint, insecure, &f->endpoints, &f->err);
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
