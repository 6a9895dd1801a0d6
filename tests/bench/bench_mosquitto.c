/* SPDX-License-Identifier: Apache-2.0 */
/* mosquitto and libmosquitto at QoS 0, nothing limited, TCP_NODELAY on both sides. */
#include "tests/bench/bench.h"

#include <mosquitto.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define RECEIVE_MS  100
#define KEEPALIVE_S 60
#define LOOP_EVERY  64 /* publishes */

enum state {
    STATE_CONNECTING,
    STATE_CONNECTED,
    STATE_SUBSCRIBED,
};

struct client {
    struct mosquitto *mosquitto;
    enum state state;
    unsigned published; /* since the last loop */
};

static pid_t broker_start(void)
{
    const char *conf = bench_file("mosquitto.conf");
    /* else it would change to a user of its own; NOLINTNEXTLINE(concurrency-mt-unsafe): one thread */
    const struct passwd *user = getpwuid(getuid());
    FILE *file = fopen(conf, "w");
    if (file == NULL || user == NULL || bench_is_ipc()) {
        bench_fail("only tcp, with a file for its options");
    }
    (void)fprintf(file,
                  "listener %u 127.0.0.1\nuser %s\nallow_anonymous true\nmax_queued_messages 0\n"
                  "max_inflight_messages 0\nset_tcp_nodelay true\nlog_type error\n",
                  (unsigned)bench_port(0), user->pw_name);
    (void)fclose(file);
    const char *const argv[] = {"mosquitto", "-c", conf, NULL};
    pid_t pid = bench_exec(argv);
    (void)close(bench_connect(0));
    return pid;
}

static void check(int r, const char *what)
{
    if (r != MOSQ_ERR_SUCCESS) {
        bench_fail("%s: %s", what, mosquitto_strerror(r));
    }
}

static void connected(struct mosquitto *mosquitto, void *arg, int r)
{
    struct client *client = arg;
    (void)mosquitto;
    check(r, "connect");
    client->state = STATE_CONNECTED;
}

static void subscribed(struct mosquitto *mosquitto, void *arg, int id, int n, const int *granted)
{
    struct client *client = arg;
    (void)mosquitto;
    (void)id;
    (void)n;
    (void)granted;
    client->state = STATE_SUBSCRIBED;
}

static void take_message(struct mosquitto *mosquitto, void *arg, const struct mosquitto_message *message)
{
    (void)mosquitto;
    (void)arg;
    bench_received(message->payload, (size_t)message->payloadlen);
}

static void wait_state(struct client *client, enum state state)
{
    while (client->state != state) {
        check(mosquitto_loop(client->mosquitto, RECEIVE_MS, 1), "mosquitto_loop");
    }
}

static struct client *client_open(void)
{
    struct client *client = calloc(1, sizeof(*client));
    (void)mosquitto_lib_init();
    if (client == NULL || (client->mosquitto = mosquitto_new(NULL, true, client)) == NULL) {
        bench_fail("no memory");
    }
    mosquitto_connect_callback_set(client->mosquitto, connected);
    mosquitto_subscribe_callback_set(client->mosquitto, subscribed);
    mosquitto_message_callback_set(client->mosquitto, take_message);
    (void)mosquitto_int_option(client->mosquitto, MOSQ_OPT_TCP_NODELAY, 1);
    check(mosquitto_connect(client->mosquitto, "127.0.0.1", bench_port(0), KEEPALIVE_S), "mosquitto_connect");
    wait_state(client, STATE_CONNECTED);
    return client;
}

static void *publisher_open(uint32_t index)
{
    (void)index;
    return client_open();
}

static void flush(void *publisher)
{
    struct client *client = publisher;
    client->published = 0;
    check(mosquitto_loop(client->mosquitto, 0, 1), "mosquitto_loop");
}

static void publish(void *publisher, const char *path, const void *data, size_t len)
{
    struct client *client = publisher;
    check(mosquitto_publish(client->mosquitto, NULL, path, (int)len, data, 0, false), "mosquitto_publish");
    if (++client->published >= LOOP_EVERY) {
        flush(client);
    }
}

static void *subscriber_open(const char *path)
{
    struct client *client = client_open();
    check(mosquitto_subscribe(client->mosquitto, NULL, path, 0), "mosquitto_subscribe");
    wait_state(client, STATE_SUBSCRIBED);
    return client;
}

static void receive(void *subscriber)
{
    const struct client *client = subscriber;
    check(mosquitto_loop(client->mosquitto, RECEIVE_MS, 1), "mosquitto_loop");
}

extern const struct bench_contestant bench_mosquitto;
const struct bench_contestant bench_mosquitto = {
    .name = "mosquitto",
    .separator = '/',
    .broker_start = broker_start,
    .publisher_open = publisher_open,
    .publish = publish,
    .flush = flush,
    .subscriber_open = subscriber_open,
    .receive = receive,
};
