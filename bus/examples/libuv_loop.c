/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bus inside a libuv loop; publishes to itself: libuv_loop [url]
 *
 * The descriptor alone is enough: it becomes readable for the timers of the bus as well.
 */
#include "bus/busbar.h"

#include <stdio.h>
#include <uv.h>

#define NUMBER 1000

struct app {
    bb_bus *bus;
    uv_poll_t poll;
    int seen;
    int result;
};

static void stop(struct app *app, int result)
{
    app->result = result;
    if (!uv_is_closing((uv_handle_t *)&app->poll)) {
        (void)uv_poll_stop(&app->poll);
        uv_close((uv_handle_t *)&app->poll, NULL);
    }
}

static void on_events(bb_subscription *sub, const struct bb_event *events, size_t n, void *arg)
{
    struct app *app = arg;
    (void)sub;
    for (size_t i = 0; i < n; i++) {
        app->seen += events[i].gap == NULL;
    }
    if (app->seen == NUMBER) {
        stop(app, 0);
    }
}

static void on_ended(bb_subscription *sub, int error, const char *text, void *arg)
{
    (void)sub;
    (void)fprintf(stderr, "%s\n", text);
    stop(arg, error);
}

/* Ready: events come from here on, since the subscription was asked for first. */
static void on_state(bb_bus *bus, enum bb_bus_state state, int error, const char *text, void *arg)
{
    int r = state == BB_STATE_CLOSED ? error : 0;
    (void)text;
    for (int i = 0; i < NUMBER && r == 0 && state == BB_STATE_READY; i++) {
        r = bb_publish(bus, "example/tick", BB_PAYLOAD_TEXT, "tick", 4);
    }
    if (r < 0) {
        stop(arg, r);
    }
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct app *app = poll->data;
    (void)events;
    int r = status < 0 ? BB_ESYSTEM : bb_bus_step(app->bus);
    if (r < 0) {
        stop(app, r);
    }
}

static int subscribe(struct app *app)
{
    struct bb_subscribe_options options = BB_SUBSCRIBE_OPTIONS_INIT;
    const char *patterns[] = {"example/*"};
    bb_subscription *sub = NULL;
    options.patterns = patterns;
    options.n_patterns = 1;
    options.on_events = on_events;
    options.on_ended = on_ended;
    options.arg = app;
    return bb_subscribe(app->bus, &options, 0, &sub);
}

int main(int argc, char **argv)
{
    struct bb_options options = BB_OPTIONS_INIT;
    struct app app = {0};
    options.url = argc > 1 ? argv[1] : NULL;
    options.embedded = true;
    options.on_state = on_state;
    options.arg = &app;
    int r = bb_bus_open(&options, &app.bus);
    if (r < 0) {
        (void)fprintf(stderr, "%s\n", bb_strerror(r));
        return 1;
    }
    r = subscribe(&app);
    if (r == 0 && uv_poll_init(uv_default_loop(), &app.poll, bb_bus_fd(app.bus)) == 0) {
        app.poll.data = &app;
        (void)uv_poll_start(&app.poll, UV_READABLE, on_readable);
        (void)uv_run(uv_default_loop(), UV_RUN_DEFAULT);
        r = app.result;
    }
    (void)uv_loop_close(uv_default_loop());
    (void)printf("%d events\n", app.seen);
    (void)bb_bus_close(app.bus);
    return r < 0;
}
