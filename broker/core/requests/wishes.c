/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/requests/wishes.h"

#include "proto/wire/path.h"

#include "broker/core/backend.h"
#include "broker/core/deliver/until.h"
#include "broker/core/keep/policy.h"
#include "broker/core/state.h"
#include "broker/core/subs/claim.h"
#include "broker/core/subs/sub.h"

#define CREDIT_BYTES_DEFAULT  ((uint64_t)1 << 20)
#define CREDIT_EVENTS_DEFAULT ((uint64_t)65536)
#define BUDGET_DEFAULT        ((uint64_t)16 << 20)
#define DURABLE_MAX           64

/* --- from ------------------------------------------------------------------------------------------------ */

static void read_id(struct bb_mp_reader *reader, struct bk_event_id *ret_id)
{
    if (bb_mp_read_array(reader) != 3) {
        bb_mp_reader_fail(reader, BB_EINVAL);
    }
    ret_id->server = bb_mp_read_uint(reader);
    ret_id->session = bb_mp_read_uint(reader);
    ret_id->instance = bb_mp_read_uint(reader);
}

static int read_from_map(struct bb_mp_reader *reader, struct bk_from *from)
{
    bool has_id = false;
    bool has_after = false;
    bool has_time = false;
    uint64_t n = bb_mp_read_map(reader);
    for (uint64_t i = 0; i < n; i++) {
        struct bb_slice key = bb_mp_read_str(reader);
        if (bb_slice_equal(key, bb_slice_str("time"))) {
            from->number = bb_mp_read_uint(reader);
            has_time = true;
        } else if (bb_slice_equal(key, bb_slice_str("id"))) {
            read_id(reader, &from->id);
            has_id = true;
        } else if (bb_slice_equal(key, bb_slice_str("run"))) {
            from->run = bb_mp_read_uint(reader);
        } else if (bb_slice_equal(key, bb_slice_str("after"))) {
            from->after = bb_mp_read_raw(reader);
            has_after = true;
        } else {
            bb_mp_skip(reader);
        }
    }
    from->kind = has_time ? BK_FROM_TIME : has_id ? BK_FROM_ID : BK_FROM_AFTER;
    return reader->error == 0 && has_time + has_id + has_after == 1 ? 0 : BB_EINVAL;
}

/* What is relied on later. */
static int check_after(const struct bk_from *from)
{
    struct bb_mp_reader reader = bb_mp_reader(from->after);
    uint64_t n = bb_mp_read_map(&reader);
    for (uint64_t i = 0; i < n && reader.error == 0; i++) {
        struct bk_claim claim;
        (void)bb_mp_read_str(&reader);
        bk_claim_read(&reader, &claim);
        if (claim.life == 0 && from->run == 0) {
            return BB_EINVAL; /* a sequence alone says nothing */
        }
    }
    return reader.error != 0 ? BB_EINVAL : 0;
}

static int read_word(struct bb_slice word, struct bk_from *from)
{
    static const struct {
        const char *word;
        enum bk_from_kind kind;
    } words[] = {{"new", BK_FROM_NEW}, {"last", BK_FROM_LAST}, {"oldest", BK_FROM_OLDEST}};
    for (size_t i = 0; i < BB_COUNT(words); i++) {
        if (bb_slice_equal(word, bb_slice_str(words[i].word))) {
            from->kind = words[i].kind;
            return 0;
        }
    }
    return BB_EINVAL;
}

static int read_from(struct bb_slice value, struct bk_from *from)
{
    struct bb_mp_reader reader = bb_mp_reader(value);
    enum bb_mp_type type = value.len > 0 ? bb_mp_peek_type(&reader) : BB_MP_NIL;
    if (type == BB_MP_NIL) {
        return 0;
    }
    if (type == BB_MP_UINT) {
        from->kind = BK_FROM_SEQUENCE;
        from->number = bb_mp_read_uint(&reader);
        return 0;
    }
    if (type != BB_MP_MAP) {
        return read_word(bb_mp_read_str(&reader), from);
    }
    int r = read_from_map(&reader, from);
    return r == 0 && from->kind == BK_FROM_AFTER ? check_after(from) : r;
}

/* --- options --------------------------------------------------------------------------------------------- */

static int read_view(struct bb_mp_reader *reader, struct bk_wishes *wishes)
{
    struct bb_slice word = bb_mp_read_str(reader);
    wishes->is_early = bb_slice_equal(word, bb_slice_str("early"));
    wishes->has_view = true;
    return wishes->is_early || bb_slice_equal(word, bb_slice_str("durable")) ? 0 : BB_EINVAL;
}

static int read_option(struct bb_mp_reader *reader, struct bb_slice key, struct bk_wishes *wishes)
{
    if (bb_slice_equal(key, bb_slice_str("bytes"))) {
        wishes->credit_bytes = bb_mp_read_uint(reader);
    } else if (bb_slice_equal(key, bb_slice_str("events"))) {
        wishes->credit_events = bb_mp_read_uint(reader);
    } else if (bb_slice_equal(key, bb_slice_str("budget"))) {
        wishes->budget = bb_mp_read_uint(reader);
    } else if (bb_slice_equal(key, bb_slice_str("overflow"))) {
        wishes->has_overflow = true;
        return bk_overflow_find(bb_mp_read_str(reader), &wishes->overflow);
    } else if (bb_slice_equal(key, bb_slice_str("until"))) {
        return bk_until_read(reader, &wishes->until);
    } else if (bb_slice_equal(key, bb_slice_str("view"))) {
        return read_view(reader, wishes);
    } else if (bb_slice_equal(key, bb_slice_str("retained"))) {
        wishes->wants_retained = bb_mp_read_bool(reader);
    } else if (bb_slice_equal(key, bb_slice_str("lives"))) {
        wishes->wants_lives = bb_mp_read_bool(reader);
    } else if (bb_slice_equal(key, bb_slice_str("durable"))) {
        wishes->durable = bb_mp_read_str(reader);
        return wishes->durable.len == 0 || wishes->durable.len > DURABLE_MAX ? BB_EINVAL : 0;
    } else {
        bb_mp_skip(reader);
    }
    return 0;
}

/* What an option must be, for who has given something else. */
static const char *form_of(struct bb_slice key)
{
    static const struct {
        const char *key;
        const char *form;
    } forms[] = {
        {"bytes", "the option \"bytes\" is a number"},
        {"events", "the option \"events\" is a number"},
        {"budget", "the option \"budget\" is a number of bytes"},
        {"overflow",
         "the option \"overflow\" is \"slide\", \"drop_oldest\", \"drop_newest\", \"conflate\", \"refuse\" or "
         "\"disconnect\""},
        {"until",
         "the option \"until\" is a sequence above 0, \"now\", {\"time\": us} or {\"last\": {channel: sequence}}"},
        {"view", "the option \"view\" is \"durable\" or \"early\""},
        {"retained", "the option \"retained\" is true or false"},
        {"lives", "the option \"lives\" is true or false"},
        {"durable", "the option \"durable\" is a name of 1 to 64 bytes"},
    };
    for (size_t i = 0; i < BB_COUNT(forms); i++) {
        if (bb_slice_equal(key, bb_slice_str(forms[i].key))) {
            return forms[i].form;
        }
    }
    return "the options are no map of names to values";
}

static int read_options(struct bb_slice options, struct bk_wishes *wishes)
{
    struct bb_mp_reader reader = bb_mp_reader(options);
    struct bb_slice key = {0};
    int r = 0;
    uint64_t n = options.len > 0 && bb_mp_peek_type(&reader) != BB_MP_NIL ? bb_mp_read_map(&reader) : 0;
    for (uint64_t i = 0; i < n && r == 0 && reader.error == 0; i++) {
        key = bb_mp_read_str(&reader);
        r = read_option(&reader, key, wishes);
    }
    if (r < 0 || reader.error != 0) {
        wishes->wrong = form_of(key);
        return BB_EINVAL;
    }
    return 0;
}

/* --- patterns -------------------------------------------------------------------------------------------- */

static int check_patterns(struct bb_slice patterns, uint32_t *ret_n, const char **ret_wrong)
{
    struct bb_mp_reader reader = bb_mp_reader(patterns);
    uint32_t n = bb_mp_peek_type(&reader) == BB_MP_ARRAY ? bb_mp_read_array(&reader) : 0;
    if (n == 0) {
        *ret_wrong = "\"patterns\" is an array of one pattern or more";
        return BB_EINVAL;
    }
    for (uint32_t i = 0; i < n; i++) {
        struct bb_slice pattern = bb_mp_read_str(&reader);
        if (reader.error != 0 || bb_pattern_check(pattern) < 0) {
            return BB_EPATTERN;
        }
    }
    *ret_n = n;
    return 0;
}

bool bk_wishes_cover(struct bb_slice patterns, struct bb_slice channel)
{
    struct bb_mp_reader reader = bb_mp_reader(patterns);
    uint64_t n = bb_mp_read_array(&reader);
    for (uint64_t i = 0; i < n; i++) {
        struct bb_slice pattern = bb_mp_read_str(&reader);
        bool all = bb_slice_equal(pattern, bb_slice_str("*"));
        bool channel_all = channel.len > 0 && pattern.len == channel.len + 2 &&
                           pattern.data[pattern.len - 1] == '*' &&
                           bb_slice_equal(bb_path_channel(pattern), channel);
        if (all || channel_all) {
            return true;
        }
    }
    return false;
}

bool bk_wishes_can_match(struct bb_slice patterns, struct bb_slice channel)
{
    struct bb_mp_reader reader = bb_mp_reader(patterns);
    uint64_t n = bb_mp_read_array(&reader);
    for (uint64_t i = 0; i < n; i++) {
        struct bb_slice first = bb_path_channel(bb_mp_read_str(&reader));
        bool is_any = first.len == 1 && (first.data[0] == '?' || first.data[0] == '*');
        if (is_any || bb_slice_equal(first, channel)) {
            return true;
        }
    }
    return false;
}

int bk_wishes_read(const struct bb_msg *msg, struct bk_wishes *ret_wishes)
{
    *ret_wishes = (struct bk_wishes){
        .until = {.kind = BK_UNTIL_NONE, .time = UINT64_MAX, .stop = UINT64_MAX},
        .credit_bytes = CREDIT_BYTES_DEFAULT,
        .credit_events = CREDIT_EVENTS_DEFAULT,
        .budget = BUDGET_DEFAULT,
    };
    int r = check_patterns(msg->patterns, &ret_wishes->n_patterns, &ret_wishes->wrong);
    if (r == 0 && read_from(msg->from, &ret_wishes->from) < 0) {
        ret_wishes->wrong =
            "\"from\" is \"new\", \"last\", \"oldest\", a sequence, {\"time\": us}, {\"id\": [server, session, "
            "instance]} or {\"after\": {channel: [sequence, life]}}";
        r = BB_EINVAL;
    }
    return r == 0 ? read_options(msg->options, ret_wishes) : r;
}
