/* SPDX-License-Identifier: Apache-2.0 */
/* Callbacks: what may be done in them, and what holds when calls return. */
#include "bus/state.h"
#include "tests/unit/script.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>

struct end {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    int error;
    int nested;
    int calls;
};

static void on_ended(bb_subscription *sub, int error, const char *text, void *arg)
{
    struct end *end = arg;
    (void)pthread_mutex_lock(&end->lock);
    (void)sub;
    end->error = strcmp(text, "no") == 0 ? error : 0;
    (void)pthread_cond_signal(&end->cond);
    (void)pthread_mutex_unlock(&end->lock);
}

/* Tries what must not be done in a callback, then what may be done. */
static void on_events(bb_subscription *sub, const struct bb_event *events, size_t n, void *arg)
{
    struct end *end = arg;
    (void)events;
    (void)n;
    (void)pthread_mutex_lock(&end->lock);
    end->nested = bb_bus_flush(bb_subscription_bus(sub), 1000);
    end->calls++;
    cr_expect_eq(bb_bus_close(bb_subscription_bus(sub)), BB_EDEADLOCK);
    cr_expect_eq(bb_unsubscribe(sub, 1000), 0);
    (void)pthread_cond_signal(&end->cond);
    (void)pthread_mutex_unlock(&end->lock);
}

Test(bus_callback, a_refused_subscription_tells_why)
{
    struct script script;
    struct bb_event events[2];
    struct end end = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, 0};
    struct bb_subscribe_options options = script_to_all();
    options.on_ended = on_ended;
    options.arg = &end;
    bb_bus *bus = script_open_ready(&script);
    bb_subscription *sub = script_subscribe(bus, options);
    const struct bb_msg *msg = script_expect(&script, BB_MSG_SUBSCRIBE);
    script_send(&script, &(struct bb_msg){.type = BB_MSG_ERROR,
                                          .about = BB_MSG_SUBSCRIBE,
                                          .corr = msg->corr,
                                          .code = bb_slice_str("limit"),
                                          .text = bb_slice_str("no")});
    cr_assert_eq(bb_receive(sub, events, 2, PATIENCE_MS), BB_ELIMIT);
    (void)pthread_mutex_lock(&end.lock);
    while (end.error == 0) {
        (void)pthread_cond_wait(&end.cond, &end.lock);
    }
    (void)pthread_mutex_unlock(&end.lock);
    cr_assert_eq(end.error, BB_ELIMIT);
    /* What the broker says of it afterwards changes nothing. */
    script_send(&script, &(struct bb_msg){.type = BB_MSG_ENDED, .sub = 1, .code = bb_slice_str("done")});
    script_send(&script, &(struct bb_msg){.type = BB_MSG_PING, .token = 1});
    (void)script_expect(&script, BB_MSG_PONG);
    cr_assert_eq(bb_receive(sub, events, 2, PATIENCE_MS), BB_ELIMIT);
    cr_assert_eq(bb_unsubscribe(sub, 0), 0);
    cr_expect_eq(bus->n_callbacks, 0); /* so that a call that waits may step the bus again */
    script_finish(&script, bus);
}

/* HAT-W3: a call inside a callback answers, where it could never be answered it says so at once. */
Test(bus_callback, in_a_callback_waiting_is_refused_and_unsubscribing_is_not)
{
    struct script script;
    struct end end = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, 0};
    struct bb_subscribe_options options = script_to_all();
    options.on_events = on_events;
    options.arg = &end;
    bb_bus *bus = script_open_ready(&script);
    (void)script_subscribe(bus, options);
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x90"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x00\xcd\x03\xe8"),
                   1, 1000);
    (void)pthread_mutex_lock(&end.lock);
    while (end.calls == 0) {
        (void)pthread_cond_wait(&end.cond, &end.lock);
    }
    (void)pthread_mutex_unlock(&end.lock);
    (void)script_expect(&script, BB_MSG_UNSUBSCRIBE);
    script_finish(&script, bus);
    cr_assert_eq(end.nested, BB_EDEADLOCK);
    cr_assert_eq(end.calls, 1, "a callback came after unsubscribe");
}

/* What a callback got for asking. */
struct nested_query {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    int results[6];
    int calls;
};

static int never_found(const struct bb_event *events, size_t n, void *arg)
{
    (void)events;
    (void)n;
    (void)arg;
    cr_assert_fail("nothing was asked");
    return 0;
}

static void ask_inside(bb_bus *bus, struct nested_query *nested)
{
    struct bb_query_options options = BB_QUERY_OPTIONS_INIT;
    char *json = NULL;
    uint64_t matches = 0;
    (void)pthread_mutex_lock(&nested->lock);
    nested->results[0] = bb_query(bus, &options, PATIENCE_MS, never_found, NULL);
    nested->results[1] = bb_query(bus, &options, -1, never_found, NULL);
    nested->results[2] = bb_query(bus, &options, 0, never_found, NULL);
    nested->results[3] = bb_request_status(bus, PATIENCE_MS, &json);
    nested->results[4] = bb_request_matches(bus, "a", 1, -1, &matches);
    nested->results[5] = bb_cursor_forget(bus, "mine", -1);
    nested->calls++;
    (void)pthread_cond_broadcast(&nested->cond);
    (void)pthread_mutex_unlock(&nested->lock);
}

static void ask_on_events(bb_subscription *sub, const struct bb_event *events, size_t n, void *arg)
{
    (void)events;
    (void)n;
    ask_inside(bb_subscription_bus(sub), arg);
}

static void ask_on_ack(bb_bus *bus, const struct bb_ack *ack, void *arg)
{
    (void)ack;
    ask_inside(bus, arg);
}

static void expect_deadlock(struct nested_query *nested, int calls)
{
    (void)pthread_mutex_lock(&nested->lock);
    while (nested->calls < calls) {
        (void)pthread_cond_wait(&nested->cond, &nested->lock);
    }
    for (size_t i = 0; i < BB_COUNT(nested->results); i++) {
        cr_expect_eq(nested->results[i], BB_EDEADLOCK, "%zu: %s", i, bb_strerror(nested->results[i]));
        nested->results[i] = 0;
    }
    (void)pthread_mutex_unlock(&nested->lock);
}

static int count_found(const struct bb_event *events, size_t n, void *arg)
{
    size_t *count = arg;
    (void)events;
    *count += n;
    return 0;
}

struct outer_query {
    bb_bus *bus;
    int result;
    int inner;
    size_t n_outer;
    size_t n_inner;
};

static int ask_once_more(const struct bb_event *events, size_t n, void *arg)
{
    struct outer_query *outer = arg;
    struct bb_query_options options = BB_QUERY_OPTIONS_INIT;
    (void)events;
    outer->n_outer += n;
    outer->inner = bb_query(outer->bus, &options, PATIENCE_MS, count_found, &outer->n_inner);
    return 0;
}

static void *ask_outside(void *arg)
{
    struct outer_query *outer = arg;
    struct bb_query_options options = BB_QUERY_OPTIONS_INIT;
    outer->result = bb_query(outer->bus, &options, PATIENCE_MS, ask_once_more, outer);
    return NULL;
}

static void answer_query(struct script *script, uint64_t n)
{
    struct bb_buf body = BB_BUF_INIT;
    uint64_t corr = script_expect(script, BB_MSG_QUERY)->corr;
    script_write_block(&body, 1, n);
    script_send_body(script, &(struct bb_msg){.type = BB_MSG_EVENTS, .corr = corr}, bb_buf_slice(&body));
    bb_buf_fini(&body);
}

/* HAT-W3. The bus goes on afterwards: what is asked outside of callbacks is answered, also while it gives what it found. */
Test(bus_callback, a_query_in_a_callback_is_refused_at_once_and_outside_it_is_answered)
{
    struct script script;
    struct nested_query nested = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    struct bb_subscribe_options options = script_to_all();
    struct bb_draft draft = BB_DRAFT_INIT;
    struct outer_query outer = {.bus = script_open_ready(&script)};
    options.on_events = ask_on_events;
    options.arg = &nested;
    (void)script_subscribe(outer.bus, options);
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x90"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x00\x01"),
                   1, 1);
    expect_deadlock(&nested, 1);
    draft.path = "a";
    draft.on_ack = ask_on_ack;
    draft.arg = &nested;
    cr_assert_eq(bb_publish_event(outer.bus, &draft, NULL), 0);
    (void)script_expect(&script, BB_MSG_PUBLISH); /* and nothing before it: nothing was asked */
    script_ack_number(&script, 1);
    expect_deadlock(&nested, 2);
    pthread_t thread = script_thread(ask_outside, &outer);
    answer_query(&script, 3);
    answer_query(&script, 2); /* asked from on_found */
    (void)pthread_join(thread, NULL);
    cr_expect_eq(outer.result, 0);
    cr_expect_eq(outer.inner, 0);
    cr_expect_eq(outer.n_outer, 3);
    cr_expect_eq(outer.n_inner, 2);
    script_finish(&script, outer.bus);
}

static void step(bb_bus *bus)
{
    struct pollfd fd = {.fd = bb_bus_fd(bus), .events = POLLIN};
    (void)poll(&fd, 1, bb_bus_timeout(bus));
    cr_assert_eq(bb_bus_step(bus), 0);
}

/* Until the scripted broker has something to read. */
static void step_until_heard(bb_bus *bus, struct script *script)
{
    zmq_pollitem_t items[] = {{script->router, 0, ZMQ_POLLIN, 0}, {NULL, bb_bus_fd(bus), ZMQ_POLLIN, 0}};
    while ((items[0].revents & ZMQ_POLLIN) == 0) {
        cr_assert_gt(zmq_poll(items, 2, PATIENCE_MS), 0);
        cr_assert_eq(bb_bus_step(bus), 0);
    }
}

/* Callbacks run inside of bb_bus_step() there. */
Test(bus_callback, a_query_in_a_callback_of_an_embedded_bus_is_refused)
{
    struct script script;
    struct nested_query nested = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    struct bb_subscribe_options options = script_to_all();
    struct bb_options embedded = BB_OPTIONS_INIT;
    embedded.embedded = true;
    bb_bus *bus = script_open_bus(&script, embedded);
    options.on_events = ask_on_events;
    options.arg = &nested;
    (void)script_subscribe(bus, options);
    step_until_heard(bus, &script);
    (void)script_expect(&script, BB_MSG_HELLO);
    script_welcome(&script, 7, 0);
    while (bb_bus_state(bus) != BB_STATE_READY) {
        step(bus);
    }
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x90"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x00\x01"),
                   1, 1);
    while (nested.calls == 0) {
        step(bus);
    }
    expect_deadlock(&nested, 1);
    script_finish(&script, bus);
}

/* --- what holds when calls return ----------------------------------------------------------------- */

#define ROUNDS 300

/* A broker that takes every batch, until the client says goodbye. */
static void *serve(void *arg)
{
    struct script *script = arg;
    for (;;) {
        script_receive(script);
        if (script->msg.type == BB_MSG_PUBLISH) {
            script_ack_number(script, script->msg.number);
        } else if (script->msg.type == BB_MSG_GOODBYE) {
            return NULL;
        }
    }
}

/* Gives everybody else a chance to be too early. */
static void count_late(bb_bus *bus, const struct bb_ack *ack, void *arg)
{
    int *calls = arg;
    (void)bus;
    for (int i = 0; i < 20; i++) {
        (void)sched_yield();
    }
    *calls += ack->error == 0;
}

Test(bus_callback, flush_and_publish_wait_return_after_the_callbacks_of_what_they_waited_for)
{
    struct script script;
    struct bb_draft draft = BB_DRAFT_INIT;
    int calls = 0; /* not atomic: the thread sanitizer's program does the same */
    bb_bus *bus = script_open_ready(&script);
    pthread_t broker = script_thread(serve, &script);
    draft.path = "a";
    draft.arg = &calls;
    for (int i = 0; i < ROUNDS; i++) {
        draft.on_ack = count_late;
        cr_assert_eq(bb_publish_event(bus, &draft, NULL), 0);
        cr_assert_eq(bb_publish_event(bus, &draft, NULL), 0);
        if (i % 2 == 0) {
            cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), 0);
        } else {
            cr_assert_eq(bb_publish_wait(bus, &draft, PATIENCE_MS, NULL), 0);
        }
        cr_assert_eq(calls, 2 * (i + 1), "in round %d", i);
    }
    cr_assert_eq(bb_bus_close(bus), 0);
    (void)pthread_join(broker, NULL);
    script_stop(&script);
}

Test(bus_callback, close_calls_what_was_not_answered)
{
    struct script script;
    struct bb_draft draft = BB_DRAFT_INIT;
    int calls = 0;
    struct bb_options options = BB_OPTIONS_INIT;
    bb_bus *bus = script_open_bus(&script, options);
    draft.path = "a";
    draft.arg = &calls;
    draft.on_ack = count_late;
    cr_assert_eq(bb_publish_event(bus, &draft, NULL), 0);
    cr_assert_eq(bb_bus_close(bus), 0);
    cr_assert_eq(calls, 0, "it was not taken");
    script_stop(&script);
}

struct waiting {
    bb_bus *bus;
    bb_subscription *sub;
    int result;
};

static void *wait_publish(void *arg)
{
    struct waiting *waiting = arg;
    while (waiting->result == 0) {
        waiting->result = script_publish(waiting->bus, "0123456789");
    }
    return NULL;
}

static void *wait_flush(void *arg)
{
    struct waiting *waiting = arg;
    waiting->result = bb_bus_flush(waiting->bus, -1);
    return NULL;
}

static void *wait_receive(void *arg)
{
    struct waiting *waiting = arg;
    struct bb_event event;
    waiting->result = bb_receive(waiting->sub, &event, 1, -1);
    return NULL;
}

static void *wait_status(void *arg)
{
    struct waiting *waiting = arg;
    char *json;
    waiting->result = bb_request_status(waiting->bus, -1, &json);
    return NULL;
}

static void *wait_subscribe(void *arg)
{
    struct waiting *waiting = arg;
    struct bb_subscribe_options options = script_to_all();
    bb_subscription *sub;
    waiting->result = bb_subscribe(waiting->bus, &options, -1, &sub);
    return NULL;
}

Test(bus_callback, close_releases_the_calls_that_wait)
{
    static void *(*const calls[])(void *) = {wait_publish, wait_publish, wait_flush,
                                             wait_receive, wait_status,  wait_subscribe};
    struct script script;
    struct waiting waiting[BB_COUNT(calls)];
    pthread_t threads[BB_COUNT(calls)];
    struct bb_options options = BB_OPTIONS_INIT;
    options.queue_bytes = 4096;
    bb_bus *bus = script_open_bus(&script, options);
    bb_subscription *sub = script_subscribe(bus, script_to_all());
    cr_assert_eq(script_publish(bus, "never answered"), 0); /* or flush would have nothing to wait for */
    for (size_t i = 0; i < BB_COUNT(calls); i++) {
        waiting[i] = (struct waiting){bus, sub, 0};
        threads[i] = script_thread(calls[i], &waiting[i]);
    }
    unsigned n_waiting = 0;
    while (n_waiting < BB_COUNT(calls)) {
        (void)sched_yield();
        (void)pthread_mutex_lock(&bus->lock);
        n_waiting = bus->n_waiting;
        (void)pthread_mutex_unlock(&bus->lock);
    }
    cr_assert_eq(bb_bus_close(bus), 0);
    for (size_t i = 0; i < BB_COUNT(calls); i++) {
        (void)pthread_join(threads[i], NULL);
        cr_expect_eq(waiting[i].result, BB_ECLOSED, "call %zu", i);
    }
    script_stop(&script);
}

/* A callback that a waiting call of an embedded bus runs, while another thread closes the bus. */
struct late {
    bb_bus *bus;
    atomic_bool is_in;
    atomic_bool is_beside; /* on_ack came meanwhile */
    atomic_int n_acks;
};

static bool is_closing(bb_bus *bus)
{
    (void)pthread_mutex_lock(&bus->lock);
    bool is = bus->life == BB_LIFE_CLOSING;
    (void)pthread_mutex_unlock(&bus->lock);
    return is;
}

static void stay_until_it_closes(bb_subscription *sub, const struct bb_event *events, size_t n, void *arg)
{
    struct late *late = arg;
    (void)sub;
    (void)events;
    (void)n;
    atomic_store(&late->is_in, true);
    while (!is_closing(late->bus)) {
        (void)sched_yield();
    }
    for (int i = 0; i < 1000; i++) {
        (void)sched_yield();
    }
    atomic_store(&late->is_in, false);
}

static void look_beside(bb_bus *bus, const struct bb_ack *ack, void *arg)
{
    struct late *late = arg;
    (void)bus;
    (void)ack;
    atomic_store(&late->is_beside, atomic_load(&late->is_in));
    atomic_fetch_add(&late->n_acks, 1);
}

Test(bus_callback, close_calls_nothing_beside_a_callback_that_runs)
{
    struct script script;
    struct late late = {0};
    struct bb_options embedded = BB_OPTIONS_INIT;
    struct bb_subscribe_options options = script_to_all();
    struct bb_draft draft = BB_DRAFT_INIT;
    embedded.embedded = true;
    bb_bus *bus = late.bus = script_open_bus(&script, embedded);
    options.on_events = stay_until_it_closes;
    options.arg = &late;
    (void)script_subscribe(bus, options);
    step_until_heard(bus, &script);
    (void)script_expect(&script, BB_MSG_HELLO);
    script_welcome(&script, 7, 0);
    while (bb_bus_state(bus) != BB_STATE_READY) {
        step(bus);
    }
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x90"));
    draft.path = "a";
    draft.on_ack = look_beside;
    draft.arg = &late;
    cr_assert_eq(bb_publish_event(bus, &draft, NULL), 0);
    struct waiting waiting = {bus, NULL, 0};
    pthread_t thread = script_thread(wait_flush, &waiting);
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x00\x01"),
                   1, 1);
    while (!atomic_load(&late.is_in)) {
        (void)sched_yield();
    }
    cr_assert_eq(bb_bus_close(bus), 0);
    (void)pthread_join(thread, NULL);
    cr_expect_lt(waiting.result, 0);
    cr_expect_eq(atomic_load(&late.n_acks), 1);
    cr_expect_not(atomic_load(&late.is_beside));
    script_stop(&script);
}

/* --- what a callback may do ------------------------------------------------------------------------ */

struct nested {
    bb_subscription *other;
    bb_subscription *made;
    atomic_int calls;
};

static void do_everything(bb_subscription *sub, const struct bb_event *events, size_t n, void *arg)
{
    struct nested *nested = arg;
    bb_bus *bus = bb_subscription_bus(sub);
    struct bb_subscribe_options options = script_to_all();
    struct bb_draft draft = BB_DRAFT_INIT;
    (void)events;
    (void)n;
    cr_expect_eq(script_publish(bus, "from a callback"), 0);
    cr_expect_eq(bb_subscribe(bus, &options, 1000, &nested->made), BB_EDEADLOCK);
    cr_expect_eq(bb_subscribe(bus, &options, 0, &nested->made), 0);
    cr_expect_eq(bb_unsubscribe(nested->other, 1000), 0);
    cr_expect_eq(bb_publish_wait(bus, &draft, 1000, NULL), BB_EDEADLOCK);
    cr_expect_eq(bb_bus_drain(bus, 1000), BB_EDEADLOCK);
    atomic_fetch_add(&nested->calls, 1);
}

Test(bus_callback, may_publish_subscribe_and_end_other_subscriptions)
{
    struct script script;
    struct nested nested = {0};
    struct bb_subscribe_options options = script_to_all();
    bb_bus *bus = script_open_ready(&script);
    options.on_events = do_everything;
    options.arg = &nested;
    (void)script_subscribe(bus, options);
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x90"));
    nested.other = script_subscribe(bus, script_to_all());
    cr_assert_eq(script_expect(&script, BB_MSG_SUBSCRIBE)->sub, 2);
    script_subscribed(&script, MP("\x90"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x00\x01"),
                   1, 1);
    (void)script_expect(&script, BB_MSG_PUBLISH);
    cr_assert_eq(script_expect(&script, BB_MSG_SUBSCRIBE)->sub, 4);
    cr_assert_eq(script_expect(&script, BB_MSG_UNSUBSCRIBE)->sub, 2);
    script_ack_number(&script, 1);
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), 0);
    cr_assert_eq(bb_unsubscribe(nested.made, 0), 0);
    script_finish(&script, bus);
    cr_assert_eq(atomic_load(&nested.calls), 1);
}

static void end_itself(bb_subscription *sub, const struct bb_event *events, size_t n, void *arg)
{
    atomic_int *calls = arg;
    (void)events;
    (void)n;
    cr_expect_eq(bb_unsubscribe(sub, 0), 0);
    atomic_fetch_add(calls, 1);
}

struct subscribe_call {
    bb_bus *bus;
    struct bb_subscribe_options options;
    bb_subscription *sub;
    int result;
};

static void *call_subscribe(void *arg)
{
    struct subscribe_call *call = arg;
    call->result = bb_subscribe(call->bus, &call->options, PATIENCE_MS, &call->sub);
    return NULL;
}

Test(bus_callback, may_end_its_subscription_while_subscribe_waits)
{
    struct script script;
    atomic_int calls = 0;
    struct subscribe_call call = {.bus = script_open_ready(&script), .options = script_to_all()};
    call.options.on_events = end_itself;
    call.options.arg = &calls;
    call.sub = (bb_subscription *)&call;
    pthread_t thread = script_thread(call_subscribe, &call);
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x00\x01"),
                   1, 1);
    (void)pthread_join(thread, NULL);
    cr_expect_eq(call.result, 0);
    cr_expect_null(call.sub);
    cr_expect_eq(atomic_load(&calls), 1);
    script_finish(&script, call.bus);
}

static void *call_drain(void *arg)
{
    struct subscribe_call *call = arg;
    call->result = bb_bus_drain(call->bus, PATIENCE_MS);
    return NULL;
}

static void send_result(struct script *script, uint64_t corr)
{
    script_send(script, &(struct bb_msg){.type = BB_MSG_RESULT, .corr = corr, .value = MP("\xc3")});
}

Test(bus_callback, may_end_its_subscription_while_drain_waits)
{
    struct script script;
    atomic_int calls = 0;
    struct subscribe_call call = {.bus = script_open_ready(&script), .options = script_to_all()};
    call.options.on_events = end_itself;
    call.options.arg = &calls;
    (void)script_subscribe(call.bus, call.options);
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x90"));
    pthread_t thread = script_thread(call_drain, &call);
    uint64_t corr = script_expect(&script, BB_MSG_UNSUBSCRIBE)->corr;
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x00\x01"),
                   1, 1);
    send_result(&script, corr);
    (void)pthread_join(thread, NULL);
    cr_expect_eq(call.result, 0);
    cr_expect_eq(atomic_load(&calls), 1, "what came for it was delivered before");
    script_finish(&script, call.bus);
}

Test(bus_callback, after_drain_what_came_is_read_and_then_it_is_closed)
{
    struct script script;
    struct bb_event events[4];
    struct subscribe_call call = {.bus = script_open_ready(&script)};
    bb_subscription *sub = script_subscribe(call.bus, script_to_all());
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x90"));
    cr_assert_eq(script_publish(call.bus, "x"), 0);
    (void)script_expect(&script, BB_MSG_PUBLISH);
    pthread_t thread = script_thread(call_drain, &call);
    script_ack_number(&script, 1);
    uint64_t corr = script_expect(&script, BB_MSG_UNSUBSCRIBE)->corr;
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x00\x02"),
                   1, 2);
    send_result(&script, corr);
    (void)pthread_join(thread, NULL);
    cr_expect_eq(call.result, 0);
    cr_expect_eq(bb_receive(sub, events, 4, 0), 2);
    cr_expect_eq(events[1].sequence, 2);
    cr_expect_eq(bb_receive(sub, events, 4, 0), BB_ECLOSED);
    script_finish(&script, call.bus);
}

/* --- a callback that takes too long ---------------------------------------------------------------- */

struct stuck {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool is_inside;
    bool may_go;
    uint64_t seen[8];
    size_t n_seen;
};

static void on_stuck(bb_subscription *sub, const struct bb_event *events, size_t n, void *arg)
{
    struct stuck *stuck = arg;
    (void)sub;
    (void)pthread_mutex_lock(&stuck->lock);
    for (size_t i = 0; i < n && stuck->n_seen < BB_COUNT(stuck->seen); i++) {
        stuck->seen[stuck->n_seen++] = events[i].gap == NULL ? events[i].sequence : 0;
    }
    stuck->is_inside = true;
    (void)pthread_cond_broadcast(&stuck->cond);
    while (!stuck->may_go) {
        (void)pthread_cond_wait(&stuck->cond, &stuck->lock);
    }
    (void)pthread_mutex_unlock(&stuck->lock);
}

Test(bus_callback, a_client_given_up_during_a_long_callback_resumes_when_it_returns)
{
    struct script script;
    struct stuck stuck = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    struct bb_subscribe_options options = script_to_all();
    options.on_events = on_stuck;
    options.arg = &stuck;
    bb_bus *bus = script_open_ready(&script);
    (void)script_subscribe(bus, options);
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x90"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x00\x01"),
                   1, 1);
    (void)pthread_mutex_lock(&stuck.lock);
    while (!stuck.is_inside) {
        (void)pthread_cond_wait(&stuck.cond, &stuck.lock);
    }
    script_goodbye(&script); /* the broker's patience is over */
    stuck.may_go = true;
    (void)pthread_cond_broadcast(&stuck.cond);
    (void)pthread_mutex_unlock(&stuck.lock);
    (void)script_expect(&script, BB_MSG_HELLO);
    script_welcome(&script, 7, 0);
    cr_assert(bb_slice_equal(script_expect(&script, BB_MSG_SUBSCRIBE)->from, MP("\x82\xa3run\x07\xa5"
                                                                                "after\x81\xa1"
                                                                                "a\x01")));
    script_subscribed(&script, MP("\x91\x92\xa1"
                                  "a\x01"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x01\x03"),
                   2, 2);
    (void)pthread_mutex_lock(&stuck.lock);
    while (stuck.n_seen < 3) {
        (void)pthread_cond_wait(&stuck.cond, &stuck.lock);
    }
    (void)pthread_mutex_unlock(&stuck.lock);
    for (uint64_t i = 0; i < 3; i++) {
        cr_expect_eq(stuck.seen[i], i + 1);
    }
    script_finish(&script, bus);
}
