/* SPDX-License-Identifier: Apache-2.0 */
/* The core where the simulation is not precise enough: single answers to single messages. */
#include "proto/base/error.h"
#include "proto/wire/event.h"
#include "proto/wire/message.h"
#include "proto/wire/mp.h"

#include "broker/core/core.h"

#include <criterion/criterion.h>

/* What a peer got: the last messages of each type, and how many. */
struct peer {
    struct bk_client *client;
    struct bb_buf last[BB_MSG_ERROR + 1];
    size_t n_got[BB_MSG_ERROR + 1];
    size_t max_parts;
    int answer; /* of send */
    bool is_closed;
    bool is_shut_out;
};

#define PEERS 4

struct fixture {
    struct bk_core *core;
    struct bk_config config;
    struct bk_out out;
    struct peer peers[PEERS];
};

static int note_send(void *context, void *peer_ptr, const struct bk_part *parts, size_t n_parts)
{
    struct peer *peer = peer_ptr;
    struct bb_buf bytes = BB_BUF_INIT;
    struct bb_msg msg = {0};
    (void)context;
    if (peer->answer != 0) {
        return peer->answer;
    }
    for (size_t i = 0; i < n_parts; i++) {
        bb_buf_append(&bytes, parts[i].data, parts[i].len);
    }
    cr_assert_eq(bb_msg_decode(bb_buf_slice(&bytes), &msg), 0);
    bb_buf_fini(&peer->last[msg.type]);
    peer->last[msg.type] = bytes;
    peer->n_got[msg.type]++;
    peer->max_parts = BB_MAX(peer->max_parts, n_parts);
    return 0;
}

static void note_close(void *context, void *peer_ptr, bool shut_out)
{
    struct peer *peer = peer_ptr;
    (void)context;
    cr_assert(!peer->is_closed);
    peer->is_closed = true;
    peer->is_shut_out = shut_out;
}

static void fixture_start(struct fixture *fixture)
{
    fixture->out = (struct bk_out){.context = fixture, .send = note_send, .close = note_close};
    cr_assert_eq(bk_core_new(&fixture->config, &fixture->out, &fixture->core), 0);
    bk_core_set_time(fixture->core, 1, 1000);
    for (size_t i = 0; i < PEERS; i++) {
        fixture->peers[i].client = bk_core_client_add(fixture->core, &fixture->peers[i]);
    }
}

static void fixture_fini(struct fixture *fixture)
{
    bk_core_free(fixture->core);
    for (size_t i = 0; i < PEERS; i++) {
        cr_assert(fixture->peers[i].client == NULL || fixture->peers[i].is_closed);
        for (size_t j = 0; j < BB_COUNT(fixture->peers[i].last); j++) {
            bb_buf_fini(&fixture->peers[i].last[j]);
        }
    }
}

static void say(struct fixture *fixture, size_t i, const struct bb_msg *msg)
{
    struct bb_buf out = BB_BUF_INIT;
    bb_msg_encode(&out, msg);
    bb_buf_append(&out, msg->body.data, msg->body.len);
    bk_core_message(fixture->core, fixture->peers[i].client, bb_buf_slice(&out), NULL);
    bb_buf_fini(&out);
}

static void say_hello(struct fixture *fixture, size_t i, const char *id)
{
    say(fixture, i,
        &(struct bb_msg){
            .type = BB_MSG_HELLO,
            .corr = 1,
            .version = BB_PROTOCOL_VERSION,
            .client = id != NULL ? bb_slice(id, BB_CLIENT_ID_LEN) : (struct bb_slice){0},
        });
}

static void
subscribe(struct fixture *fixture, size_t i, const char *pattern, const char *overflow, uint64_t bytes)
{
    struct bb_buf patterns = BB_BUF_INIT;
    struct bb_buf options = BB_BUF_INIT;
    bb_mp_write_array(&patterns, 1);
    bb_mp_write_str(&patterns, bb_slice_str(pattern));
    bb_mp_write_map(&options, 3);
    bb_mp_write_str(&options, bb_slice_str("overflow"));
    bb_mp_write_str(&options, bb_slice_str(overflow));
    bb_mp_write_str(&options, bb_slice_str("budget"));
    bb_mp_write_uint(&options, 100);
    bb_mp_write_str(&options, bb_slice_str("bytes"));
    bb_mp_write_uint(&options, bytes);
    say(fixture, i,
        &(struct bb_msg){
            .type = BB_MSG_SUBSCRIBE,
            .corr = 7,
            .sub = 1,
            .patterns = bb_buf_slice(&patterns),
            .options = bb_buf_slice(&options),
        });
    bb_buf_fini(&patterns);
    bb_buf_fini(&options);
}

static void publish(struct fixture *fixture, size_t i, uint64_t number, uint64_t level, const char *path)
{
    static const uint8_t payload[] = "\xd9\x7f"
                                     "0123456789012345678901234567890123456789012345678901234567890123"
                                     "012345678901234567890123456789012345678901234567890123456789012";
    struct bb_buf body = BB_BUF_INIT;
    bb_event_write(&body, bb_slice_str(path), bb_slice(payload, sizeof(payload) - 1), NULL);
    say(fixture, i,
        &(struct bb_msg){
            .type = BB_MSG_PUBLISH, .number = number, .level = level, .body = bb_buf_slice(&body)});
    bk_core_flush(fixture->core);
    bb_buf_fini(&body);
}

static struct bb_msg last(const struct fixture *fixture, size_t i, enum bb_msg_type type)
{
    struct bb_msg msg = {0};
    cr_assert_gt(fixture->peers[i].n_got[type], 0, "no message of type %d", (int)type);
    cr_assert_eq(bb_msg_decode(bb_buf_slice(&fixture->peers[i].last[type]), &msg), 0);
    return msg;
}

static void assert_error(const struct fixture *fixture, size_t i, enum bb_msg_type about, int error)
{
    struct bb_msg msg = last(fixture, i, BB_MSG_ERROR);
    cr_assert_eq(msg.about, about);
    cr_assert(bb_slice_equal(msg.code, bb_slice_str(bb_errcode(error))), "%.*s", (int)msg.code.len,
              msg.code.data);
}

static struct fixture fixture_default(void)
{
    struct fixture fixture = {.config = BK_CONFIG_INIT};
    fixture.config.check = BK_CHECK_ALWAYS;
    return fixture;
}

Test(broker_core, nothing_but_hello_and_bare_events_is_taken_first)
{
    struct fixture fixture = fixture_default();
    fixture_start(&fixture);
    publish(&fixture, 0, 1, 1, "a/x");
    assert_error(&fixture, 0, BB_MSG_PUBLISH, BB_EHELLO);
    say(&fixture, 0, &(struct bb_msg){.type = BB_MSG_PING, .token = 1});
    assert_error(&fixture, 0, BB_MSG_PING, BB_EHELLO);
    cr_assert_eq(fixture.peers[0].n_got[BB_MSG_PONG], 0, "who was forgotten must find out");
    publish(&fixture, 0, 0, 0, "a/x");
    cr_assert_eq(bk_core_counter(fixture.core, BK_COUNTER_events_in), 1);
    fixture_fini(&fixture);
}

Test(broker_core, a_client_that_returns_takes_over_and_goes_on_counting)
{
    struct fixture fixture = fixture_default();
    fixture_start(&fixture);
    say_hello(&fixture, 0, "0123456789abcdef");
    publish(&fixture, 0, 1, 1, "a/x");
    say_hello(&fixture, 1, "0123456789abcdef");
    cr_assert(fixture.peers[0].is_closed);
    cr_assert(bb_slice_equal(last(&fixture, 0, BB_MSG_GOODBYE).code, bb_slice_str("exists")));
    cr_assert_eq(last(&fixture, 1, BB_MSG_WELCOME).last, 1);
    publish(&fixture, 1, 1, 1, "a/x");
    cr_assert_eq(bk_core_counter(fixture.core, BK_COUNTER_batches_repeated), 1);
    cr_assert_eq(bk_core_counter(fixture.core, BK_COUNTER_events_in), 1);
    publish(&fixture, 1, 3, 1, "a/x");
    assert_error(&fixture, 1, BB_MSG_PUBLISH, BB_ESEQUENCE);
    fixture_fini(&fixture);
}

Test(broker_core, what_was_refused_is_refused_again_when_it_is_repeated)
{
    struct fixture fixture = fixture_default();
    fixture_start(&fixture);
    say_hello(&fixture, 0, "0123456789abcdef");
    publish(&fixture, 0, 1, 3, "a/x");
    assert_error(&fixture, 0, BB_MSG_PUBLISH, BB_EUNSUPPORTED);
    publish(&fixture, 0, 1, 3, "a/x");
    cr_assert_eq(fixture.peers[0].n_got[BB_MSG_ERROR], 2);
    cr_assert_eq(fixture.peers[0].n_got[BB_MSG_ACK], 0);
    publish(&fixture, 0, 2, 1, "a/x");
    publish(&fixture, 0, 2, 1, "a/x");
    cr_assert_eq(fixture.peers[0].n_got[BB_MSG_ACK], 2);
    fixture_fini(&fixture);
}

Test(broker_core, the_ack_of_level_routed_counts_subscriptions)
{
    struct fixture fixture = fixture_default();
    fixture_start(&fixture);
    for (size_t i = 0; i < 3; i++) {
        say_hello(&fixture, i, NULL);
    }
    subscribe(&fixture, 1, "a/*", "slide", 10000);
    subscribe(&fixture, 2, "?/x", "slide", 10000);
    publish(&fixture, 0, 1, 2, "a/x");
    struct bb_msg ack = last(&fixture, 0, BB_MSG_ACK);
    cr_assert(bb_slice_equal(ack.entries, bb_slice("\x91\x94\x01\x02\x02\x91\x93\xa1"
                                                   "a\x01\x01",
                                                   11)));
    fixture_fini(&fixture);
}

Test(broker_core, refuse_names_who_is_behind_until_it_has_caught_up)
{
    struct fixture fixture = fixture_default();
    fixture_start(&fixture);
    say_hello(&fixture, 0, NULL);
    say_hello(&fixture, 1, NULL);
    subscribe(&fixture, 1, "a/*", "refuse", 0);
    publish(&fixture, 0, 1, 1, "a/x");
    publish(&fixture, 0, 2, 1, "a/x");
    assert_error(&fixture, 0, BB_MSG_PUBLISH, BB_EOVERFLOW);
    cr_assert(bb_slice_equal(last(&fixture, 0, BB_MSG_ERROR).detail, bb_slice("\x81\xa6"
                                                                              "client\x02",
                                                                              9)));
    publish(&fixture, 0, 3, 1, "b/x");
    cr_assert_eq(fixture.peers[0].n_got[BB_MSG_ACK], 2, "others are not refused");
    say(&fixture, 1, &(struct bb_msg){.type = BB_MSG_CREDIT, .sub = 1, .bytes = 10000, .events = 100});
    bk_core_flush(fixture.core);
    publish(&fixture, 0, 4, 1, "a/x");
    cr_assert_eq(fixture.peers[0].n_got[BB_MSG_ACK], 3);
    fixture_fini(&fixture);
}

static void publish_living(struct fixture *fixture, uint64_t number, const uint64_t *ttls, size_t n)
{
    struct bb_buf body = BB_BUF_INIT;
    for (size_t i = 0; i < n; i++) {
        const struct bb_attributes attributes = {.has_ttl = ttls[i] != 0, .ttl_ms = ttls[i]};
        bb_event_write(&body, bb_slice_str("a/x"), bb_slice("\xc0", 1), ttls[i] != 0 ? &attributes : NULL);
    }
    say(fixture, 0,
        &(struct bb_msg){.type = BB_MSG_PUBLISH, .number = number, .level = 1, .body = bb_buf_slice(&body)});
    bk_core_flush(fixture->core);
    bb_buf_fini(&body);
}

/* The channel's one gap in the last message of a type, and its count. */
static void assert_gap(struct bb_slice gaps, uint64_t from, uint64_t to, uint64_t count, const char *reason)
{
    struct bb_mp_reader reader = bb_mp_reader(gaps);
    cr_assert_eq(bb_mp_read_array(&reader), 1);
    uint32_t n_fields = bb_mp_read_array(&reader);
    cr_assert(n_fields == 5 || n_fields == 6); /* the last one is the life, if it was not told before */
    cr_assert(bb_slice_equal(bb_mp_read_str(&reader), bb_slice_str("a")));
    cr_assert_eq(bb_mp_read_uint(&reader), from);
    cr_assert_eq(bb_mp_read_uint(&reader), to);
    cr_assert_eq(bb_mp_read_uint(&reader), count);
    cr_assert(bb_slice_equal(bb_mp_read_str(&reader), bb_slice_str(reason)));
    if (n_fields == 6) {
        cr_assert_gt(bb_mp_read_uint(&reader), 0);
    }
    cr_assert_eq(reader.error, 0);
}

Test(broker_core, what_has_waited_longer_than_its_time_to_live_is_a_gap_with_its_count)
{
    static const uint64_t some[] = {0, 10, 1000, 10, 0, 10};
    static const uint64_t all[] = {10, 20};
    struct fixture fixture = fixture_default();
    fixture_start(&fixture);
    bk_core_set_time(fixture.core, 1000, 1000000);
    say_hello(&fixture, 0, NULL);
    say_hello(&fixture, 1, NULL);
    subscribe(&fixture, 1, "a/*", "slide", 0);
    publish_living(&fixture, 1, some, BB_COUNT(some));
    bk_core_set_time(fixture.core, 20000, 1020000);
    say(&fixture, 1, &(struct bb_msg){.type = BB_MSG_CREDIT, .sub = 1, .bytes = 10000, .events = 100});
    bk_core_flush(fixture.core);
    struct bb_msg msg = last(&fixture, 1, BB_MSG_DELIVER);
    assert_gap(msg.gaps, 1, 6, 3, "expired");
    uint64_t n = 0;
    for (struct bb_block block; msg.body.len > 0; n += block.count) {
        cr_assert_eq(bb_block_read(&msg.body, &block), 0);
        cr_assert(block.sequence == 1 || block.sequence == 3 || block.sequence == 5);
        msg.body = bb_slice(msg.body.data + block.length, msg.body.len - (size_t)block.length);
    }
    cr_assert_eq(n, 3);
    fixture_fini(&fixture);

    fixture = fixture_default();
    fixture_start(&fixture);
    bk_core_set_time(fixture.core, 1000, 1000000);
    say_hello(&fixture, 0, NULL);
    say_hello(&fixture, 1, NULL);
    subscribe(&fixture, 1, "a/*", "slide", 0);
    publish_living(&fixture, 1, all, BB_COUNT(all));
    bk_core_set_time(fixture.core, 40000, 1040000);
    say(&fixture, 1, &(struct bb_msg){.type = BB_MSG_CREDIT, .sub = 1, .bytes = 10000, .events = 100});
    bk_core_flush(fixture.core);
    cr_assert_eq(fixture.peers[1].n_got[BB_MSG_DELIVER], 0);
    assert_gap(last(&fixture, 1, BB_MSG_GAP).gaps, 1, 2, 2, "expired");
    publish_living(&fixture, 2, some, 1);
    cr_assert_eq(fixture.peers[1].n_got[BB_MSG_DELIVER], 1, "live again");
    fixture_fini(&fixture);
}

Test(broker_core, disconnect_sends_the_client_away)
{
    struct fixture fixture = fixture_default();
    fixture_start(&fixture);
    say_hello(&fixture, 0, NULL);
    say_hello(&fixture, 1, NULL);
    subscribe(&fixture, 1, "a/*", "disconnect", 0);
    publish(&fixture, 0, 1, 1, "a/x");
    cr_assert(fixture.peers[1].is_closed);
    cr_assert(!fixture.peers[1].is_shut_out);
    cr_assert(bb_slice_equal(last(&fixture, 1, BB_MSG_GOODBYE).code, bb_slice_str("overflow")));
    fixture_fini(&fixture);
}

Test(broker_core, sixteen_strikes_shut_a_peer_out)
{
    struct fixture fixture = fixture_default();
    fixture_start(&fixture);
    for (int i = 0; i < 16; i++) {
        cr_assert(!fixture.peers[0].is_closed);
        bk_core_message(fixture.core, fixture.peers[0].client, bb_slice("\xc1", 1), NULL);
    }
    cr_assert(fixture.peers[0].is_closed);
    cr_assert(fixture.peers[0].is_shut_out);
    fixture_fini(&fixture);
}

/* As a loop does that nothing keeps from it. */
static void tick_until(struct fixture *fixture, uint64_t end)
{
    for (uint64_t at = bk_core_tick_at(fixture->core); at <= end; at = bk_core_tick_at(fixture->core)) {
        bk_core_set_time(fixture->core, BB_MAX(at, 2),
                         1000); /* the first look is due at once, and now is 2 */
        (void)bk_core_tick(fixture->core);
    }
    bk_core_set_time(fixture->core, end, 1000);
}

Test(broker_core, a_silent_client_is_pinged_then_forgotten)
{
    struct fixture fixture = fixture_default();
    fixture_start(&fixture);
    say_hello(&fixture, 0, NULL);
    tick_until(&fixture, 11000000);
    cr_assert_eq(fixture.peers[0].n_got[BB_MSG_PING], 1);
    tick_until(&fixture, 29000000);
    cr_assert_not(fixture.peers[0].is_closed);
    tick_until(&fixture, 31500000);
    cr_assert(fixture.peers[0].is_closed);
    cr_assert_eq(bk_core_counter(fixture.core, BK_COUNTER_clients_expired), 1);
    fixture_fini(&fixture);
}

Test(broker_core, a_broker_that_could_not_listen_blames_nobody)
{
    struct fixture fixture = fixture_default();
    fixture_start(&fixture);
    say_hello(&fixture, 0, NULL);
    tick_until(&fixture, 11000000);
    bk_core_set_time(fixture.core, 500000000,
                     1000); /* stopped for minutes, and the answer was not read yet */
    (void)bk_core_tick(fixture.core);
    cr_assert_not(fixture.peers[0].is_closed);
    tick_until(&fixture, 515000000);
    cr_assert_not(fixture.peers[0].is_closed);
    tick_until(&fixture, 525000000);
    cr_assert(fixture.peers[0].is_closed, "but from there on silence counts");
    fixture_fini(&fixture);
}

Test(broker_core, a_client_that_takes_no_answers_goes)
{
    struct fixture fixture = fixture_default();
    fixture_start(&fixture);
    say_hello(&fixture, 0, NULL);
    fixture.peers[0].answer = BB_EAGAIN;
    say(&fixture, 0, &(struct bb_msg){.type = BB_MSG_STATUS, .corr = 3});
    cr_assert(fixture.peers[0].is_closed);
    cr_assert_eq(bk_core_counter(fixture.core, BK_COUNTER_clients_unread), 1);
    fixture_fini(&fixture);
}

Test(broker_core, matches_waits_for_subscriptions_or_time)
{
    struct fixture fixture = fixture_default();
    fixture_start(&fixture);
    say_hello(&fixture, 0, NULL);
    say_hello(&fixture, 1, NULL);
    struct bb_msg ask = {
        .type = BB_MSG_MATCHES, .corr = 5, .path = bb_slice_str("a/x"), .min = 1, .timeout = 50};
    say(&fixture, 0, &ask);
    cr_assert_eq(fixture.peers[0].n_got[BB_MSG_RESULT], 0);
    subscribe(&fixture, 1, "a/*", "slide", 1000);
    cr_assert(bk_core_wants_flush(fixture.core));
    bk_core_flush(fixture.core);
    cr_assert_eq(last(&fixture, 0, BB_MSG_RESULT).corr, 5);
    ask.min = 2;
    say(&fixture, 0, &ask);
    bk_core_set_time(fixture.core, 50001, 1000);
    (void)bk_core_tick(fixture.core);
    assert_error(&fixture, 0, BB_MSG_MATCHES, BB_ETIMEOUT);
    fixture_fini(&fixture);
}

Test(broker_core, a_peer_found_gone_while_it_asks_leaves_nothing_behind)
{
    struct fixture fixture = fixture_default();
    fixture_start(&fixture);
    say_hello(&fixture, 0, NULL);
    say_hello(&fixture, 1, NULL);
    subscribe(&fixture, 1, "a/*", "slide", 10000);
    struct bb_buf event = BB_BUF_INIT;
    bb_event_write(&event, bb_slice_str("a/x"), bb_slice("\x01", 1), NULL);
    bk_core_message(fixture.core, fixture.peers[0].client, bb_buf_slice(&event), NULL);
    bb_buf_fini(&event);
    fixture.peers[1].answer = BB_ECLOSED;
    say(&fixture, 1,
        &(struct bb_msg){
            .type = BB_MSG_MATCHES, .corr = 5, .path = bb_slice_str("a/x"), .min = 3, .timeout = 50});
    cr_assert(fixture.peers[1].is_closed);
    bk_core_set_time(fixture.core, 100000, 1000);
    (void)bk_core_tick(fixture.core);
    fixture_fini(&fixture);
}

Test(broker_core, limits_are_errors)
{
    struct fixture fixture = fixture_default();
    fixture.config.max_clients = 2;
    fixture.config.max_patterns = 1;
    fixture.config.max_channels = 1;
    fixture_start(&fixture);
    cr_assert_null(fixture.peers[2].client);
    say_hello(&fixture, 0, NULL);
    subscribe(&fixture, 0, "a/*", "slide", 100);
    cr_assert_eq(fixture.peers[0].n_got[BB_MSG_SUBSCRIBED], 1);
    subscribe(&fixture, 0, "b/*", "slide", 100);
    assert_error(&fixture, 0, BB_MSG_SUBSCRIBE, BB_ELIMIT);
    publish(&fixture, 0, 1, 1, "a/x");
    publish(&fixture, 0, 2, 1, "b/x");
    cr_assert_eq(bk_core_counter(fixture.core, BK_COUNTER_events_refused), 1);
    fixture_fini(&fixture);
}

Test(broker_core, shutting_down_refuses_publishes_and_says_goodbye)
{
    struct fixture fixture = fixture_default();
    fixture_start(&fixture);
    say_hello(&fixture, 0, NULL);
    bk_core_shut_down(fixture.core);
    publish(&fixture, 0, 1, 1, "a/x");
    assert_error(&fixture, 0, BB_MSG_PUBLISH, BB_ESHUTDOWN);
    cr_assert(bk_core_is_drained(fixture.core));
    cr_assert_null(bk_core_client_add(fixture.core, &fixture));
    bk_core_say_goodbye(fixture.core);
    cr_assert(bb_slice_equal(last(&fixture, 0, BB_MSG_GOODBYE).code, bb_slice_str("shutting_down")));
    fixture_fini(&fixture);
}
