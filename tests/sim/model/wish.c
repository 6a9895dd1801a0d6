/* SPDX-License-Identifier: Apache-2.0 */
/* What a subscribe message asks for (PROTOCOL 7.1). */
#include "proto/wire/mp.h"

#include "tests/sim/model/account.h"
#include "tests/sim/world.h"

#define CREDIT_BYTES  ((uint64_t)1 << 20)
#define CREDIT_EVENTS ((uint64_t)65536)
#define BUDGET        ((uint64_t)16 << 20)

static bool is_word(struct bb_slice text, const char *word)
{
    return bb_slice_equal(text, bb_slice_str(word));
}

static bool read_from_map(struct wish *wish, struct bb_mp_reader *reader)
{
    bool has_run = false;
    uint32_t n = bb_mp_read_map(reader);
    for (uint32_t i = 0; i < n && reader->error == 0; i++) {
        struct bb_slice key = bb_mp_read_str(reader);
        if (is_word(key, "time")) {
            wish->from = WISH_TIME;
            wish->number = bb_mp_read_uint(reader);
        } else if (is_word(key, "id")) {
            wish->from = WISH_ID;
            (void)bb_mp_read_array(reader);
            wish->server = bb_mp_read_uint(reader);
            wish->session = bb_mp_read_uint(reader);
            wish->instance = bb_mp_read_uint(reader);
        } else if (is_word(key, "run")) {
            has_run = true;
            wish->run = bb_mp_read_uint(reader);
        } else if (is_word(key, "after")) {
            wish->from = WISH_AFTER;
            wish->after = bb_mp_read_raw(reader);
        } else {
            bb_mp_skip(reader);
        }
    }
    wish->from = has_run ? WISH_RUN : wish->from;
    return reader->error == 0;
}

static bool read_from(struct wish *wish, struct bb_slice from)
{
    struct bb_mp_reader reader = bb_mp_reader(from);
    enum bb_mp_type type = from.len > 0 ? bb_mp_peek_type(&reader) : BB_MP_NIL;
    wish->from = WISH_NEW;
    if (type == BB_MP_UINT) {
        wish->from = WISH_SEQUENCE;
        wish->number = bb_mp_read_uint(&reader);
    } else if (type == BB_MP_STR) {
        struct bb_slice word = bb_mp_read_str(&reader);
        wish->from = is_word(word, "last") ? WISH_LAST : is_word(word, "oldest") ? WISH_OLDEST : WISH_NEW;
    } else if (type == BB_MP_MAP) {
        return read_from_map(wish, &reader);
    }
    return reader.error == 0;
}

static void read_until(struct wish *wish, struct bb_mp_reader *reader)
{
    enum bb_mp_type type = bb_mp_peek_type(reader);
    if (type == BB_MP_UINT) {
        wish->until = WISH_UNTIL_SEQUENCE;
        wish->until_sequence = bb_mp_read_uint(reader);
        return;
    }
    if (type == BB_MP_STR) {
        (void)bb_mp_read_str(reader);
        wish->until = WISH_UNTIL_NOW;
        return;
    }
    (void)bb_mp_read_map(reader);
    if (is_word(bb_mp_read_str(reader), "time")) {
        wish->until = WISH_UNTIL_TIME;
        wish->until_time = bb_mp_read_uint(reader);
    } else {
        wish->until = WISH_UNTIL_LAST;
        wish->last = bb_mp_read_raw(reader);
    }
}

static void read_policy(struct wish *wish, struct bb_slice word)
{
    static const char *const words[] = {"slide",    "drop_oldest", "drop_newest",
                                        "conflate", "refuse",      "disconnect"};
    wish->says_policy = true;
    for (uint32_t i = 0; i < BB_COUNT(words); i++) {
        wish->policies |= is_word(word, words[i]) ? UINT32_C(1) << i : 0;
    }
}

static void read_option(struct wish *wish, struct bb_slice key, struct bb_mp_reader *reader)
{
    if (is_word(key, "bytes")) {
        wish->bytes_credit = bb_mp_read_uint(reader);
    } else if (is_word(key, "events")) {
        wish->events_credit = bb_mp_read_uint(reader);
    } else if (is_word(key, "budget")) {
        wish->budget = bb_mp_read_uint(reader);
    } else if (is_word(key, "overflow")) {
        read_policy(wish, bb_mp_read_str(reader));
    } else if (is_word(key, "until")) {
        read_until(wish, reader);
    } else if (is_word(key, "view")) {
        wish->must_be_early = is_word(bb_mp_read_str(reader), "early");
        wish->may_be_early = wish->must_be_early;
    } else if (is_word(key, "retained")) {
        wish->retained = bb_mp_read_bool(reader);
    } else if (is_word(key, "lives")) {
        wish->lives = bb_mp_read_bool(reader);
    } else if (is_word(key, "durable")) {
        wish->durable = bb_mp_read_str(reader);
    } else {
        bb_mp_skip(reader);
    }
}

bool wish_read(struct world *world, struct wish *wish, struct bb_slice bytes)
{
    struct bb_msg msg = {0};
    *wish = (struct wish){.bytes_credit = CREDIT_BYTES,
                          .events_credit = CREDIT_EVENTS,
                          .budget = BUDGET,
                          .may_be_early = true,
                          .until_time = UINT64_MAX};
    bb_buf_append(&wish->bytes, bytes.data, bytes.len);
    if (bb_msg_decode(bb_buf_slice(&wish->bytes), &msg) < 0 || !read_from(wish, msg.from)) {
        return false;
    }
    wish->patterns = msg.patterns;
    struct bb_mp_reader reader = bb_mp_reader(msg.options);
    bool has_some = msg.options.len > 0 && bb_mp_peek_type(&reader) == BB_MP_MAP;
    uint32_t n = has_some ? bb_mp_read_map(&reader) : 0;
    for (uint32_t i = 0; i < n && reader.error == 0; i++) {
        struct bb_slice key = bb_mp_read_str(&reader);
        read_option(wish, key, &reader);
    }
    bool resumes = wish->from == WISH_AFTER || wish->from == WISH_RUN;
    wish->without_cursor = wish->from;
    if (wish->durable.len > 0 && !resumes) {
        wish->from = WISH_CURSOR;
    }
    if (!wish->says_policy) { /* that of the channels: which of them is not said */
        wish->policies = UINT32_MAX;
    }
    return reader.error == 0 && !(wish->without_cursor == WISH_ID && wish->server != world->config.server);
}
