/* SPDX-License-Identifier: Apache-2.0 */
/* Memory runs out in what lies below broker and library, at every allocation: BB_ENOMEM, nothing half done, nothing lost. */
#include "proto/base/error.h"
#include "proto/base/map.h"
#include "proto/json/event_json.h"
#include "proto/json/json_value.h"
#include "proto/json/message_json.h"
#include "proto/wire/event.h"
#include "proto/wire/message.h"
#include "proto/wire/mp.h"
#include "proto/wire/pattern_set.h"
#include "proto/wire/query.h"
#include "proto/wire/trie.h"

#include "tests/lib/fault.h"

#include <criterion/criterion.h>
#include <stdio.h>

#define MANY 200

static const char *const patterns[] = {"a/?/c", "a/b/*", "?/b/c", "*", "a/?/?/d", "x/*", "a/b/c"};
static const char *const others[] = {"a/*", "?/?/c", "y", "a/b/?"};
static const char value_text[] =
    "{\"a\":[1,2.5,\"three\",null,true,{\"$binary\":\"AAECAw==\"}],\"b\":{\"c\":-7}}";

/* What is tested: writes its result to @out. Return: 0 or an error. */
typedef int step_fn(struct bb_buf *out);

static void set_write(struct bb_buf *out, const struct bb_pattern_set *set)
{
    for (size_t i = 0; i < bb_pattern_set_count(set); i++) {
        bb_mp_write_str(out, bb_pattern_set_get(set, i));
    }
}

static int set_of(const char *const *texts, size_t n, struct bb_pattern_set **ret_set)
{
    struct bb_slice slices[BB_COUNT(patterns)];
    for (size_t i = 0; i < n; i++) {
        slices[i] = bb_slice_str(texts[i]);
    }
    return bb_pattern_set_new(slices, n, ret_set);
}

static int step_sets(struct bb_buf *out)
{
    struct bb_pattern_set *a = NULL;
    struct bb_pattern_set *b = NULL;
    struct bb_pattern_set *both = NULL;
    struct bb_pattern_set *either = NULL;
    int r = set_of(patterns, BB_COUNT(patterns), &a);
    r = r == 0 ? set_of(others, BB_COUNT(others), &b) : r;
    r = r == 0 ? bb_pattern_set_union(a, b, &either) : r;
    r = r == 0 ? bb_pattern_set_intersection(a, b, &both) : r;
    if (r == 0) {
        set_write(out, either);
        set_write(out, both);
        r = out->error;
    }
    bb_pattern_set_free(a);
    bb_pattern_set_free(b);
    bb_pattern_set_free(both);
    bb_pattern_set_free(either);
    return r;
}

static int note_entry(void *context, struct bb_trie_entry *entry)
{
    (void)entry;
    bb_buf_append_byte(context, 'x');
    return 0;
}

/* An addition that fails leaves the trie as it was. */
static int trie_fill(struct bb_trie *trie, struct bb_trie_entry *entries)
{
    for (size_t i = 0; i < MANY; i++) {
        char pattern[32];
        size_t count = bb_trie_count(trie);
        (void)snprintf(pattern, sizeof(pattern), i % 3 == 0 ? "a/?/%zu" : "a/%zu/b/*", i);
        int r = bb_trie_add(trie, &entries[i], bb_slice_str(pattern));
        if (r < 0) {
            cr_assert_eq(bb_trie_count(trie), count);
            return r;
        }
    }
    return 0;
}

static int step_trie(struct bb_buf *out)
{
    struct bb_trie_entry entries[MANY] = {0};
    struct bb_trie *trie = NULL;
    int r = bb_trie_new(1, &trie);
    if (r < 0) {
        return r;
    }
    r = trie_fill(trie, entries);
    if (r == 0) {
        (void)bb_trie_match(trie, bb_slice_str("a/7/b"), note_entry, out);
        (void)bb_trie_match(trie, bb_slice_str("a/7/3"), note_entry, out);
        r = out->error;
    }
    for (size_t i = 0; i < MANY; i++) {
        bb_trie_remove(trie, &entries[i]);
    }
    cr_assert_eq(bb_trie_count(trie), 0);
    bb_trie_free(trie);
    return r;
}

static int step_map(struct bb_buf *out)
{
    static uint32_t keys[MANY];
    struct bb_map map;
    int r = 0;
    bb_map_init(&map, 1, MANY);
    for (uint32_t i = 0; i < MANY && r == 0; i++) {
        keys[i] = i;
        r = bb_map_add(&map, bb_slice(&keys[i], sizeof(keys[i])), &keys[i]);
        cr_assert_eq(bb_map_count(&map), r == 0 ? i + 1 : i);
    }
    for (uint32_t i = 0; i < bb_map_count(&map); i++) {
        cr_assert_eq(bb_map_find(&map, bb_slice(&i, sizeof(i))), &keys[i]);
    }
    bb_mp_write_uint(out, bb_map_count(&map));
    bb_map_fini(&map);
    return r == 0 ? out->error : r;
}

static int step_event(struct bb_buf *out)
{
    struct bb_buf payload = BB_BUF_INIT;
    struct bb_attributes attributes = {.payload_type = bb_slice_str("text/plain"), .priority = 3};
    bb_mp_write_str(
        &payload,
        bb_slice_str("twenty-one and a half, which is long enough to need more than the first bytes"));
    int r = payload.error;
    if (r == 0) {
        bb_event_write(out, bb_slice_str("a/b"), bb_buf_slice(&payload), &attributes);
        bb_msg_encode(out, &(struct bb_msg){.type = BB_MSG_PONG, .token = 5});
        r = out->error;
    }
    bb_buf_fini(&payload);
    return r;
}

static int step_query(struct bb_buf *out)
{
    static const char where[] = ".abc.def[1].\"\" == \"x\" && (.q || !.state ~ \"on\") && 5 < .n";
    struct bb_buf map = BB_BUF_INIT;
    struct bb_buf err = BB_BUF_INIT;
    struct bb_query query;
    bb_mp_write_map(&map, 1);
    bb_mp_write_str(&map, bb_slice_str("where"));
    bb_mp_write_str(&map, bb_slice_str(where));
    int r = map.error != 0 ? map.error : bb_query_read(bb_buf_slice(&map), &query, &err);
    if (r == 0) {
        bb_query_write(out, &query);
        r = out->error;
    }
    bb_buf_fini(&map);
    bb_buf_fini(&err);
    return r;
}

static int step_json_value(struct bb_buf *out)
{
    struct bb_buf value = BB_BUF_INIT;
    struct bb_buf err = BB_BUF_INIT;
    int r = bb_json_value_to_mp(value_text, sizeof(value_text) - 1, &value, &err);
    r = r == 0 ? bb_mp_to_json(bb_buf_slice(&value), out) : r;
    bb_buf_fini(&value);
    bb_buf_fini(&err);
    return r;
}

static int there_and_back(const char *text, struct bb_buf *out)
{
    struct bb_buf bytes = BB_BUF_INIT;
    struct bb_buf err = BB_BUF_INIT;
    struct bb_message_head head;
    int r = bb_message_json_read(bb_slice_str(text), &bytes, &head, &err);
    r = r == 0 ? bb_message_json_write(bb_buf_slice(&bytes), 1, BB_SHAPE_EVENT, out) : r;
    bb_buf_fini(&bytes);
    bb_buf_fini(&err);
    return r;
}

static int step_message_json(struct bb_buf *out)
{
    return there_and_back(
        "{\"op\":\"subscribe\",\"corr\":7,\"sub\":1,\"patterns\":[\"a/b\",\"a/*\"],\"from\":\"last\"}", out);
}

static int step_events_json(struct bb_buf *out)
{
    static const char text[] =
        "{\"op\":\"publish\",\"number\":1,\"level\":1,\"events\":[{\"path\":\"a/b\",\"payload\":1,"
        "\"headers\":{\"k\":\"v\"}},{\"path\":\"a/c\",\"payload\":{\"x\":[1,2,3]}}]}";
    struct bb_buf err = BB_BUF_INIT;
    struct bb_message_head head;
    int r = bb_message_json_read(bb_slice(text, sizeof(text) - 1), out, &head, &err);
    bb_buf_fini(&err);
    return r;
}

static int step_events_json_pieces(struct bb_buf *out)
{
    static const char text[] =
        "{\"op\":\"publish\",\"number\":1,\"options\":{},\"events\":[{\"path\":\"a/b\",\"payload\":1e400},"
        "{\"path\":\"a/c\",\"payload\":{\"x\":[1,2,3]}}]}";
    struct bb_buf err = BB_BUF_INIT;
    struct bb_message_head head;
    int r = bb_message_json_read(bb_slice(text, sizeof(text) - 1), out, &head, &err);
    bb_buf_fini(&err);
    return r;
}

static int step_event_json(struct bb_buf *out)
{
    static const uint8_t bytes[] = {0x92, 0xa3, 'a',  '/',  'b', 0x93, 0x01, 0xa1, 'x',
                                    0xcb, 0x40, 0x35, 0x80, 0,   0,    0,    0,    0};
    struct bb_event_meta meta = {1, 2, 3, 4, 5, 6};
    struct bb_slice rest = bb_slice(bytes, sizeof(bytes));
    struct bb_event_view event;
    cr_assert_eq(bb_event_read(&rest, &event), 0);
    int r = bb_event_json_write(out, &meta, &event, BB_SHAPE_EVENT);
    r = r == 0 ? bb_event_json_write(out, &meta, &event, BB_SHAPE_NEXUS) : r;
    return r == 0 ? bb_event_map_write(out, &meta, &event) : r;
}

/*
 * Whether a fault happened. With @parses_json the error may be another one: jansson calls a token that it has no
 * memory for invalid.
 */
static bool run(step_fn *step, bool parses_json, size_t nth, enum fault_mode mode, struct bb_slice expected)
{
    struct bb_buf out = BB_BUF_INIT;
    size_t live_before = fault_live();
    fault_start(nth, mode);
    fault_enter();
    int r = step(&out);
    (void)fault_leave();
    bool failed = fault_stop();
    if (r == 0) { /* what is only faster with memory may do without */
        cr_assert(bb_slice_equal(bb_buf_slice(&out), expected), "fault %zu", nth);
    } else {
        cr_assert(r == BB_ENOMEM || (parses_json && r == BB_EMALFORMED), "fault %zu is \"%s\"", nth,
                  bb_strerror(r));
        cr_assert(failed);
    }
    bb_buf_fini(&out);
    cr_assert_eq(fault_live(), live_before, "fault %zu leaks", nth);
    return failed;
}

static void sweep(step_fn *step, bool parses_json)
{
    struct bb_buf expected = BB_BUF_INIT;
    fault_json_use();
    cr_assert_eq(step(&expected), 0);
    cr_assert_gt(expected.len, 0);
    for (enum fault_mode mode = FAULT_ONCE; mode <= FAULT_ONWARD; mode++) {
        size_t nth = 0;
        while (run(step, parses_json, nth, mode, bb_buf_slice(&expected))) {
            nth++;
        }
        cr_assert_gt(nth, 0, "nothing was allocated");
    }
    bb_buf_fini(&expected);
}

Test(oom_proto, pattern_sets)
{
    sweep(step_sets, false);
}

Test(oom_proto, the_trie_is_as_before_an_addition_that_failed)
{
    sweep(step_trie, false);
}

Test(oom_proto, the_map_is_as_before_an_addition_that_failed)
{
    sweep(step_map, false);
}

Test(oom_proto, events_and_messages)
{
    sweep(step_event, false);
}

Test(oom_proto, queries_and_their_conditions)
{
    sweep(step_query, false);
}

Test(oom_proto, json_values)
{
    sweep(step_json_value, true);
}

Test(oom_proto, json_messages)
{
    sweep(step_message_json, true);
}

Test(oom_proto, json_publishes)
{
    sweep(step_events_json, true);
    sweep(step_events_json_pieces, true);
}

Test(oom_proto, json_events)
{
    sweep(step_event_json, false);
}
