/* SPDX-License-Identifier: Apache-2.0 */
/* The edge with a real core behind it: what JSON clients send and get. */
#include "proto/base/error.h"
#include "proto/wire/event.h"
#include "proto/wire/mp.h"

#include "broker/plug/edge.h"
#include "broker/plug/input.h"

#include <criterion/criterion.h>
#include <stdio.h>

#define PEERS 2

struct peer {
    struct bk_client *client;
    struct bk_edge edge;
    struct bb_buf got; /* the JSON of all messages, one a line */
};

/* A transport: one scratch memory for all its peers, as both doors have it. */
struct fixture {
    struct bk_core *core;
    struct bk_plug_context context;
    struct bk_edge_scratch scratch;
    struct peer peers[PEERS];
    struct bk_out out;
    uint64_t now;
};

static int on_send(void *context, void *to, const struct bk_part *parts, size_t n_parts)
{
    struct fixture *fixture = context;
    struct peer *peer = to;
    struct bb_slice text = {0};
    if (!peer->edge.json) {
        bb_buf_printf(&peer->got, "MessagePack\n");
        return 0;
    }
    cr_assert_eq(bk_edge_to_json(&fixture->context, &peer->edge, &fixture->scratch, parts, n_parts, &text),
                 0);
    bb_buf_append(&peer->got, text.data, text.len);
    bb_buf_append_byte(&peer->got, '\n');
    return 0;
}

static void on_close(void *context, void *to, bool shut_out)
{
    struct peer *peer = to;
    (void)context;
    (void)shut_out;
    peer->client = NULL;
}

static void open_fixture(struct fixture *fixture)
{
    struct bk_config config = BK_CONFIG_INIT;
    *fixture = (struct fixture){
        .out = {.context = fixture, .send = on_send, .close = on_close},
        .context = {.max_message = config.max_message, .server = config.server},
        .now = 1000000,
    };
    cr_assert_eq(bk_core_new(&config, &fixture->out, &fixture->core), 0);
    fixture->context.core = fixture->core;
    bk_core_set_time(fixture->core, fixture->now, fixture->now);
}

static void close_fixture(struct fixture *fixture)
{
    bk_core_free(fixture->core);
    for (size_t i = 0; i < PEERS; i++) {
        bk_edge_fini(&fixture->peers[i].edge);
        bb_buf_fini(&fixture->peers[i].got);
    }
    bk_edge_scratch_fini(&fixture->scratch);
}

static void send_text(struct fixture *fixture, struct peer *peer, const char *text)
{
    if (peer->client == NULL) {
        peer->client = bk_core_client_add(fixture->core, peer);
        cr_assert_neq(peer->client, NULL);
    }
    bk_edge_take(&fixture->context, &peer->edge, peer->client, bb_slice_str(text), NULL);
}

/* All that @peer got for it, one message a line; what it got before is forgotten. */
static const char *answer_to(struct fixture *fixture, struct peer *peer, const char *text)
{
    bb_buf_reset(&peer->got);
    send_text(fixture, peer, text);
    bk_core_flush(fixture->core);
    cr_assert_gt(peer->got.len, 0, "no answer to %.100s", text);
    return bb_buf_string(&peer->got);
}

static bool has(struct peer *peer, const char *text)
{
    return strstr(bb_buf_string(&peer->got), text) != NULL;
}

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

static void greet(struct fixture *fixture, struct peer *peer)
{
    const char *answer =
        answer_to(fixture, peer, "{\"op\":\"hello\",\"corr\":1,\"version\":1,\"client\":null,\"epoch\":0}");
    cr_assert(begins(answer, "{\"op\":\"welcome\""), "%s", answer);
}

/* Publishes that are answered in the middle of what they set off: what was read must still be there. */
Test(edge, input_stands_while_the_core_writes)
{
    struct fixture fixture;
    struct peer *reader = &fixture.peers[0];
    struct peer *writer = &fixture.peers[1];
    char text[256];
    open_fixture(&fixture);
    greet(&fixture, reader);
    greet(&fixture, writer);
    (void)answer_to(&fixture, reader,
                    "{\"op\":\"subscribe\",\"corr\":2,\"sub\":1,\"patterns\":[\"a/*\"],"
                    "\"options\":{\"bytes\":1073741824,\"events\":1000000}}");
    for (int i = 1; i <= 100; i++) {
        (void)snprintf(text, sizeof(text),
                       "{\"op\":\"publish\",\"number\":%d,\"level\":1,\"events\":[{\"path\":\"a/b\","
                       "\"payload\":{\"n\":%d}}]}",
                       i, i);
        send_text(&fixture, writer, text);
        (void)snprintf(text, sizeof(text),
                       "{\"op\":\"subscribe\",\"corr\":%d,\"sub\":%d,\"patterns\":[\"other/%d/*\"]}", i, i,
                       i);
        const char *answer = answer_to(&fixture, writer, text);
        cr_assert(has(writer, "\"op\":\"subscribed\"") && !has(writer, "error"), "%d: %s", i, answer);
        (void)snprintf(text, sizeof(text), "\"payload\":{\"n\":%d}}", i);
        cr_assert(has(reader, text), "%d", i);
    }
    close_fixture(&fixture);
}

/* A large one waits to be fanned out when the next is read: that is done before the next is looked at. */
Test(edge, a_small_message_after_a_large_one_is_whole)
{
    struct fixture fixture;
    struct peer *peer = &fixture.peers[0];
    struct bb_buf large = BB_BUF_INIT;
    open_fixture(&fixture);
    greet(&fixture, peer);
    (void)answer_to(&fixture, peer,
                    "{\"op\":\"subscribe\",\"corr\":2,\"sub\":1,\"patterns\":[\"*\"],"
                    "\"options\":{\"bytes\":1073741824,\"events\":1000000}}");
    bb_buf_printf(&large, "{\"path\":\"large\",\"payload\":\"");
    for (int i = 0; i < 270000; i++) {
        bb_buf_append_byte(&large, 'x');
    }
    bb_buf_printf(&large, "\"}");
    for (int i = 0; i < 4; i++) {
        send_text(&fixture, peer, bb_buf_string(&large));
        (void)answer_to(&fixture, peer, "{\"path\":\"small\",\"payload\":7}");
        cr_assert(has(peer, "\"path\":\"large\""));
        cr_assert(has(peer, "\"path\":\"small\"") && !has(peer, "\"op\":\"error\""));
    }
    bb_buf_fini(&large);
    close_fixture(&fixture);
}

Test(edge, converted_bytes_belong_to_their_message)
{
    struct bk_meter meter;
    struct bb_buf buf = BB_BUF_INIT;
    atomic_init(&meter.bytes, 0);
    bb_buf_append(&buf, "abc", 3);
    struct bk_bytes *input = bk_input_own(&meter, &buf);
    cr_assert_eq(buf.data, NULL);
    cr_assert(bb_slice_equal(bk_input_slice(input), bb_slice_str("abc")));
    cr_assert_eq(atomic_load(&meter.bytes), 3); /* what growing left over was given back */
    bk_bytes_unref(input);
    cr_assert_eq(atomic_load(&meter.bytes), 0);
    buf.error = BB_ENOMEM;
    cr_assert_eq(bk_input_own(&meter, &buf), NULL);
}

Test(edge, frames_that_were_put_together_are_a_message)
{
    struct fixture fixture;
    struct peer *peer = &fixture.peers[0];
    struct bb_buf joined = BB_BUF_INIT;
    open_fixture(&fixture);
    greet(&fixture, peer);
    bb_buf_reset(&peer->got);
    bb_buf_printf(&joined, "{\"op\":\"ping\",\"token\":5}");
    bk_edge_take_joined(&fixture.context, &peer->edge, peer->client, &joined);
    cr_assert_str_eq(bb_buf_string(&peer->got), "{\"op\":\"pong\",\"token\":5}\n");
    close_fixture(&fixture);
}

Test(edge, answers_have_the_form_of_hello)
{
    struct fixture fixture;
    struct peer *peer = &fixture.peers[0];
    open_fixture(&fixture);
    (void)answer_to(&fixture, peer, "\x92\x08\x01"); /* not before hello */
    cr_expect_str_eq(bb_buf_string(&peer->got), "MessagePack\n");
    (void)answer_to(&fixture, peer, "{\"op\":\"status\",\"corr\":1}");
    cr_expect(has(peer, "{\"op\":\"error\""));
    greet(&fixture, peer);
    (void)answer_to(&fixture, peer, "\x92\x06\x05");
    cr_expect_str_eq(bb_buf_string(&peer->got), "{\"op\":\"pong\",\"token\":5}\n");
    (void)answer_to(&fixture, &fixture.peers[1], "\x95\x01\x01\x01\xc0\x10");
    (void)answer_to(&fixture, &fixture.peers[1], "{\"op\":\"ping\",\"token\":5}");
    cr_expect_str_eq(bb_buf_string(&fixture.peers[1].got), "MessagePack\n");
    close_fixture(&fixture);
}

/* --- what cannot be taken ------------------------------------------------------------------------- */

/* Sends @text and expects an answer with @answer in it. */
static void expect(struct fixture *fixture, struct peer *peer, const char *text, const char *answer)
{
    const char *got = answer_to(fixture, peer, text);
    cr_expect_neq(strstr(got, answer), NULL, "%.200s: %s", text, got);
}

Test(edge, a_publish_that_cannot_be_taken_is_answered_by_its_number)
{
    static const char *const rows[][2] = {
        {"\"number\":1,\"events\":[{\"path\":\"a\"},{\"path\":\"a\",\"x\":1},{\"path\":\"?\"}]}",
         "\"entries\":[[1,1,null,[[\"a\",1,1]],[[1,\"bad_event\"],[2,\"bad_path\"]]]]"},
        {"\"number\":2,\"events\":[{\"path\":\"a\",\"payload\":1e400},{\"path\":\"a\"}]}",
         "\"entries\":[[2,1,null,[[\"a\",2,1]],[[0,\"bad_event\"]]]]"},
        {"\"number\":3,\"levle\":1,\"events\":[{\"path\":\"a\"}]}",
         "\"about\":2,\"corr\":3,\"code\":\"bad_argument\""},
        {"\"number\":4,\"level\":\"1\"}", "\"about\":2,\"corr\":4,\"code\":\"malformed\""},
        {"\"number\":5,\"options\":{\"expect\":{\"a\":1e400}}}",
         "\"about\":2,\"corr\":5,\"code\":\"bad_argument\""},
        {"\"number\":6,\"events\":[{\"path\":\"a\"}", "\"about\":2,\"corr\":6,\"code\":\"malformed\""},
        {"\"number\":7,\"events\":[{\"path\":\"a\"}]}", "\"entries\":[[7,1,null,[[\"a\",3,1]]]]"},
        {"\"number\":3,\"events\":[{\"path\":\"a\"}]}", "\"about\":2,\"corr\":3,\"code\":\"bad_argument\""},
    };
    struct fixture fixture;
    char text[512];
    open_fixture(&fixture);
    expect(&fixture, &fixture.peers[0],
           "{\"op\":\"hello\",\"corr\":1,\"version\":1,\"client\":{\"$binary\":\"AAECAwQFBgcICQoLDA0ODw==\"},"
           "\"epoch\":1}",
           "welcome");
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        (void)snprintf(text, sizeof(text), "{\"op\":\"publish\",%s", rows[i][0]);
        expect(&fixture, &fixture.peers[0], text, rows[i][1]);
    }
    close_fixture(&fixture);
}

Test(edge, a_request_that_cannot_be_taken_is_answered_by_its_corr)
{
    struct fixture fixture;
    struct peer *peer = &fixture.peers[0];
    open_fixture(&fixture);
    expect(
        &fixture, peer, "{\"op\":\"hello\",\"corr\":1,\"version\":1,\"epoch\":0,\"nam\":1}",
        "\"about\":1,\"corr\":1,\"code\":\"bad_argument\",\"text\":\"\\\"nam\\\" is not a member of this message\"");
    greet(&fixture, peer);
    expect(&fixture, peer, "{\"op\":\"subscribe\",\"corr\":2,\"sub\":1,\"pattern\":[\"a\"]}",
           "\"about\":3,\"corr\":2,\"code\":\"bad_argument\"");
    expect(&fixture, peer, "{\"op\":\"matches\",\"corr\":3,\"path\":7}",
           "\"about\":9,\"corr\":3,\"code\":\"malformed\"");
    expect(&fixture, peer, "{\"op\":\"status\",\"corr\":4,\"what\":[",
           "\"about\":8,\"corr\":4,\"code\":\"malformed\"");
    expect(&fixture, peer, "{\"op\":\"nothing\",\"corr\":5}",
           "\"about\":0,\"corr\":0,\"code\":\"unknown_message\"");
    expect(&fixture, peer, "[{\"path\":\"a\"},{\"path\":\"a\",\"x\":1}]",
           "\"about\":2,\"corr\":0,\"code\":\"bad_event\"");
    close_fixture(&fixture);
}

/* PROTOCOL 9: the bytes can be taken. */
Test(edge, what_can_be_followed_is_no_strike)
{
    struct fixture fixture;
    struct peer *peer = &fixture.peers[0];
    open_fixture(&fixture);
    greet(&fixture, peer);
    for (int i = 0; i < 20; i++) {
        expect(&fixture, peer, "{\"path\":\"a\",\"x\":1}", "bad_event");
        expect(&fixture, peer, "{\"op\":\"status\",\"corr\":4,\"wat\":1}", "bad_argument");
        expect(&fixture, peer, "{\"op\":\"query\",\"corr\":4,\"query\":{\"payload\":1e400}}", "bad_argument");
    }
    cr_assert_neq(peer->client, NULL);
    for (int i = 0; i < 16; i++) {
        send_text(&fixture, peer, "{\"op\":\"status\",\"corr\":4");
    }
    cr_assert_eq(peer->client, NULL);
    close_fixture(&fixture);
}

Test(edge, what_grows_beyond_the_limit_is_too_big)
{
    struct fixture fixture;
    struct peer *peer = &fixture.peers[0];
    struct bb_buf text = BB_BUF_INIT;
    open_fixture(&fixture);
    greet(&fixture, peer);
    bb_buf_printf(&text, "{\"op\":\"publish\",\"number\":1,\"events\":[{\"path\":\"a\",\"payload\":[1e1");
    for (size_t i = 0; i < 200000; i++) {
        bb_buf_printf(&text, ",1e1");
    }
    bb_buf_printf(&text, "]}]}");
    expect(&fixture, peer, bb_buf_string(&text), "\"about\":2,\"corr\":1,\"code\":\"too_big\"");
    expect(&fixture, peer, "{\"op\":\"publish\",\"number\":2}", "\"entries\":[[2,1,null,[]]]");
    bb_buf_fini(&text);
    close_fixture(&fixture);
}
