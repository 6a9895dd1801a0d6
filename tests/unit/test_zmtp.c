/* SPDX-License-Identifier: Apache-2.0 */
/* ZMTP as a pure machine: every way to cut the bytes, every way to be wrong. */
#include "proto/wire/zmtp.h"

#include <criterion/criterion.h>
#include <stdio.h>

#define MAX_FRAME 1000

static const uint8_t greeting[BB_ZMTP_GREETING_LEN] = {0xff, 0,    0, 0, 0,   0,   0,   0,
                                                       0,    0x7f, 3, 1, 'N', 'U', 'L', 'L'};

#define READY(len, type_len, type) "\x04" len "\x05READY\x0bSocket-Type\x00\x00\x00" type_len type
#define READY_DEALER               READY("\x1c", "\x06", "DEALER")
#define TEXT(text)                 bb_slice(text, sizeof(text) - 1)

static void add(struct bb_buf *bytes, struct bb_slice slice)
{
    bb_buf_append(bytes, slice.data, slice.len);
}

static enum bb_zmtp_step step_of(struct bb_zmtp *zmtp, struct bb_slice *bytes, struct bb_zmtp_input *input)
{
    enum bb_zmtp_step step = bb_zmtp_step(zmtp, *bytes, input);
    cr_assert_leq(input->used, bytes->len);
    *bytes = bb_slice(bytes->data + input->used, bytes->len - input->used);
    return step;
}

/* What a machine says about @bytes behind a greeting and, if it is @open, a READY. */
static enum bb_zmtp_step last_of(bool open, struct bb_slice bytes)
{
    struct bb_zmtp zmtp;
    struct bb_zmtp_input input;
    struct bb_slice start = bb_slice(greeting, sizeof(greeting));
    struct bb_slice ready = TEXT(READY_DEALER);
    bb_zmtp_init(&zmtp, BB_ZMTP_ROUTER, MAX_FRAME);
    cr_assert_eq(step_of(&zmtp, &start, &input), BB_ZMTP_SILENT);
    if (open) {
        cr_assert_eq(step_of(&zmtp, &ready, &input), BB_ZMTP_READY_IN);
        cr_assert_eq(zmtp.state, BB_ZMTP_OPEN);
    }
    return bb_zmtp_step(&zmtp, bytes, &input);
}

/* Steps over @bytes as they come in two pieces, as text. */
static void trace(struct bb_slice bytes, size_t cut, struct bb_buf *out)
{
    struct bb_zmtp zmtp;
    struct bb_zmtp_input input;
    size_t at = 0;
    bb_zmtp_init(&zmtp, BB_ZMTP_ROUTER, MAX_FRAME);
    bb_buf_reset(out);
    for (size_t end = cut; end <= bytes.len; end = end < bytes.len ? bytes.len : bytes.len + 1) {
        for (;;) {
            enum bb_zmtp_step step = bb_zmtp_step(&zmtp, bb_slice(bytes.data + at, end - at), &input);
            if (step == BB_ZMTP_MORE) {
                cr_assert_eq(input.used, 0);
                cr_assert_gt(input.wanted, end - at);
                break;
            }
            cr_assert_gt(input.used, 0);
            cr_assert_leq(input.used, end - at);
            at += input.used;
            bb_buf_printf(out, "%d %zu %d %.*s\n", (int)step, input.used, input.more, (int)input.data.len,
                          input.data.len > 0 ? (const char *)input.data.data : "");
        }
    }
    cr_assert_eq(at, bytes.len);
}

Test(zmtp, every_cut_gives_the_same_steps)
{
    struct bb_buf bytes = BB_BUF_INIT;
    struct bb_buf whole = BB_BUF_INIT;
    struct bb_buf cut = BB_BUF_INIT;
    add(&bytes, bb_slice(greeting, sizeof(greeting)));
    add(&bytes, TEXT(READY_DEALER));
    add(&bytes, TEXT("\x00\x03one"));
    add(&bytes, TEXT("\x01\x00\x04\x0c\x04PING\x00\x01later\x00\x03two")); /* a ping between two frames */
    add(&bytes, TEXT("\x02\x00\x00\x00\x00\x00\x00\x00\x05three"));        /* longer than it need be */
    add(&bytes, TEXT("\x04\x04\x03NEW"));
    add(&bytes, TEXT("\x00\x00"));
    cr_assert_eq(bytes.error, 0);
    trace(bb_buf_slice(&bytes), bytes.len, &whole);
    for (size_t i = 0; i < bytes.len; i++) {
        trace(bb_buf_slice(&bytes), i, &cut);
        cr_assert_str_eq(bb_buf_string(&cut), bb_buf_string(&whole), "cut at %zu", i);
    }
    bb_buf_fini(&bytes);
    bb_buf_fini(&whole);
    bb_buf_fini(&cut);
}

Test(zmtp, greetings_that_are_not_of_version_3_with_null_are_broken)
{
    static const struct {
        size_t at;
        uint8_t byte;
    } rows[] = {
        {0, 0x01},                     /* ZMTP 1: a length */
        {9, 0x00}, {10, 1},   {10, 2}, /* ZMTP 2 and before */
        {12, 'P'}, {12, 'C'}, {16, 'X'}, {31, 1},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct bb_zmtp zmtp;
        struct bb_zmtp_input input;
        uint8_t bytes[BB_ZMTP_GREETING_LEN];
        memcpy(bytes, greeting, sizeof(bytes));
        bytes[rows[i].at] = rows[i].byte;
        bb_zmtp_init(&zmtp, BB_ZMTP_ROUTER, MAX_FRAME);
        cr_assert_eq(bb_zmtp_step(&zmtp, bb_slice(bytes, sizeof(bytes)), &input), BB_ZMTP_BROKEN, "row %zu",
                     i);
        if (rows[i].at < 12) { /* said as soon as it is known */
            cr_assert_eq(bb_zmtp_step(&zmtp, bb_slice(bytes, rows[i].at + 1), &input), BB_ZMTP_BROKEN);
        }
    }
}

Test(zmtp, what_a_peer_may_say_before_it_is_ready)
{
    static const struct {
        struct bb_slice bytes;
        enum bb_zmtp_step step;
    } rows[] = {
        {{(const uint8_t *)READY_DEALER, 30}, BB_ZMTP_READY_IN},
        {{(const uint8_t *)READY("\x1c", "\x06", "ROUTER"), 30}, BB_ZMTP_READY_IN},
        {{(const uint8_t *)READY("\x19", "\x03", "REQ"), 27}, BB_ZMTP_READY_IN},
        {{(const uint8_t *)READY("\x19", "\x03", "REP"), 27}, BB_ZMTP_BROKEN},
        {{(const uint8_t *)READY("\x19", "\x03", "SUB"), 27}, BB_ZMTP_BROKEN},
        {{(const uint8_t *)READY("\x1a", "\x04", "PUSH"), 28}, BB_ZMTP_BROKEN},
        {{(const uint8_t *)READY("\x1c", "\x06", "dealer"), 30}, BB_ZMTP_BROKEN},
        {{(const uint8_t *)READY("\x1c", "\x07", "DEALER"), 30},
         BB_ZMTP_BROKEN}, /* longer than its command */
        {{(const uint8_t *)"\x04\x1c\x05READY\x0bsocket-TYPE\x00\x00\x00\x06"
                           "DEALER",
          30},
         BB_ZMTP_READY_IN},
        {{(const uint8_t *)"\x04\x2b\x05READY\x0bSocket-Type\x00\x00\x00\x06"
                           "DEALER\x08Identity\x00\x00\x00\x02me",
          45},
         BB_ZMTP_ROUTED},
        {{(const uint8_t *)"\x04\x29\x05READY\x0bSocket-Type\x00\x00\x00\x06"
                           "DEALER\x08Identity\x00\x00\x00\x00",
          43},
         BB_ZMTP_READY_IN},
        {{(const uint8_t *)"\x04\x06\x05READY", 8}, BB_ZMTP_BROKEN},
        {{(const uint8_t *)"\x04\x07\x05READY\x00", 9}, BB_ZMTP_BROKEN},
        {{(const uint8_t *)"\x04\x05\x05READ", 7}, BB_ZMTP_BROKEN},
        {{(const uint8_t *)"\x04\x07\x05"
                           "ERROR\x00",
          9},
         BB_ZMTP_BROKEN},
        {{(const uint8_t *)"\x04\x00", 2}, BB_ZMTP_BROKEN},
        {{(const uint8_t *)"\x00\x01x", 3}, BB_ZMTP_BROKEN}, /* a message before READY */
        {{(const uint8_t *)"\x02\x00", 2}, BB_ZMTP_MORE},
        {{(const uint8_t *)"\x06\x00\x00\x00\x00\x00\x00\x10\x01", 9}, BB_ZMTP_BROKEN}, /* a giant command */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cr_assert_eq(last_of(false, rows[i].bytes), rows[i].step, "row %zu", i);
    }
}

Test(zmtp, what_a_peer_may_say_when_it_is_ready)
{
    static const struct {
        struct bb_slice bytes;
        enum bb_zmtp_step step;
    } rows[] = {
        {{(const uint8_t *)"\x00\x00", 2}, BB_ZMTP_FRAME},
        {{(const uint8_t *)"\x01\x01x", 3}, BB_ZMTP_FRAME},
        {{(const uint8_t *)"\x08\x00", 2}, BB_ZMTP_BROKEN},
        {{(const uint8_t *)"\x80\x00", 2}, BB_ZMTP_BROKEN},
        {{(const uint8_t *)"\x05\x00", 2}, BB_ZMTP_BROKEN}, /* a command that goes on */
        {{(const uint8_t *)"\x02\x00\x00\x00\x00\x00\x00\x03\xe8", 9}, BB_ZMTP_MORE},
        {{(const uint8_t *)"\x02\x00\x00\x00\x00\x00\x00\x03\xe9", 9}, BB_ZMTP_TOO_BIG},
        {{(const uint8_t *)"\x02\xff\xff\xff\xff\xff\xff\xff\xff", 9}, BB_ZMTP_TOO_BIG},
        {{(const uint8_t *)"\x04\x07\x04PING\x00\x01", 9}, BB_ZMTP_PING},
        {{(const uint8_t *)"\x04\x06\x04PING\x00", 8}, BB_ZMTP_BROKEN},
        {{(const uint8_t *)"\x04\x17\x04PING\x00\x01"
                           "0123456789abcdef",
          25},
         BB_ZMTP_PING},
        {{(const uint8_t *)"\x04\x18\x04PING\x00\x01"
                           "0123456789abcdefg",
          26},
         BB_ZMTP_BROKEN},
        {{(const uint8_t *)"\x04\x05\x04PONG", 7}, BB_ZMTP_SILENT},
        {{(const uint8_t *)"\x04\x02\x05x", 4}, BB_ZMTP_BROKEN},
        {{(const uint8_t *)READY_DEALER, 30}, BB_ZMTP_SILENT}, /* once more, to nobody's surprise */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cr_assert_eq(last_of(true, rows[i].bytes), rows[i].step, "row %zu", i);
    }
}

/* What a machine that is @role says about a peer of @type. */
static enum bb_zmtp_step met(enum bb_zmtp_role role, const char *type, const char *identity)
{
    struct bb_zmtp zmtp;
    struct bb_zmtp_input input;
    struct bb_buf bytes = BB_BUF_INIT;
    size_t type_len = strlen(type);
    size_t identity_len = strlen(identity);
    bb_zmtp_init(&zmtp, role, MAX_FRAME);
    cr_assert_eq(bb_zmtp_step(&zmtp, bb_slice(greeting, sizeof(greeting)), &input), BB_ZMTP_SILENT);
    bb_buf_printf(&bytes, "%c%c%cREADY%cSocket-Type%c%c%c%c%s", 4, (char)(22 + type_len + 13 + identity_len),
                  5, 11, 0, 0, 0, (char)type_len, type);
    bb_buf_printf(&bytes, "%cIdentity%c%c%c%c%s", 8, 0, 0, 0, (char)identity_len, identity);
    enum bb_zmtp_step step = bb_zmtp_step(&zmtp, bb_buf_slice(&bytes), &input);
    bb_buf_fini(&bytes);
    return step;
}

Test(zmtp, each_role_has_its_peers)
{
    static const struct {
        const char *type;
        bool by_router;
        bool by_dealer;
    } rows[] = {
        {"ROUTER", true, true}, {"DEALER", true, true}, {"REQ", true, false},   {"REP", false, true},
        {"PUB", false, false},  {"SUB", false, false},  {"XPUB", false, false}, {"PULL", false, false},
        {"PAIR", false, false}, {"", false, false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        enum bb_zmtp_step by_router = rows[i].by_router ? BB_ZMTP_READY_IN : BB_ZMTP_BROKEN;
        enum bb_zmtp_step by_dealer = rows[i].by_dealer ? BB_ZMTP_READY_IN : BB_ZMTP_BROKEN;
        cr_assert_eq(met(BB_ZMTP_ROUTER, rows[i].type, ""), by_router, "row %zu", i);
        cr_assert_eq(met(BB_ZMTP_DEALER, rows[i].type, ""), by_dealer, "row %zu", i);
    }
    cr_assert_eq(met(BB_ZMTP_ROUTER, "DEALER", "me"), BB_ZMTP_ROUTED);
    cr_assert_eq(met(BB_ZMTP_DEALER, "ROUTER", "me"), BB_ZMTP_READY_IN, "a router may have a name");
}

/* What @role says first, as the other side takes it. */
static void understood(enum bb_zmtp_role role, enum bb_zmtp_role other)
{
    struct bb_zmtp zmtp;
    struct bb_zmtp_input input;
    uint8_t bytes[BB_ZMTP_GREETING_LEN];
    struct bb_buf out = BB_BUF_INIT;
    bb_zmtp_init(&zmtp, other, MAX_FRAME);
    bb_zmtp_greeting(bytes);
    bb_zmtp_ready(&out, role);
    cr_assert_eq(bb_zmtp_step(&zmtp, bb_slice(bytes, sizeof(bytes)), &input), BB_ZMTP_SILENT);
    cr_assert_eq(bb_zmtp_step(&zmtp, bb_buf_slice(&out), &input), BB_ZMTP_READY_IN);
    cr_assert_eq(input.used, out.len);
    bb_buf_fini(&out);
}

Test(zmtp, what_it_says_is_understood_by_itself)
{
    struct bb_buf out = BB_BUF_INIT;
    understood(BB_ZMTP_ROUTER, BB_ZMTP_DEALER);
    understood(BB_ZMTP_DEALER, BB_ZMTP_ROUTER);
    bb_zmtp_pong(&out, TEXT("later"));
    cr_assert(bb_slice_equal(bb_buf_slice(&out), TEXT("\x04\x0a\x04PONGlater")));
    bb_buf_fini(&out);
}

Test(zmtp, heads_are_short_up_to_255_bytes)
{
    static const size_t sizes[] = {0, 1, 255, 256, 1000};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct bb_zmtp zmtp = {.state = BB_ZMTP_OPEN, .max_frame = MAX_FRAME};
        struct bb_zmtp_input input;
        uint8_t frame[BB_ZMTP_HEAD_MAX + MAX_FRAME] = {0};
        size_t head = bb_zmtp_head(frame, sizes[i], i % 2 == 0);
        cr_assert_eq(head, sizes[i] <= 255 ? 2 : 9);
        cr_assert_eq(bb_zmtp_step(&zmtp, bb_slice(frame, head + sizes[i]), &input), BB_ZMTP_FRAME);
        cr_assert_eq(input.data.len, sizes[i]);
        cr_assert_eq(input.more, i % 2 == 0);
    }
}
