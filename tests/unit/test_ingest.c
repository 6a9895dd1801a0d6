/* SPDX-License-Identifier: Apache-2.0 */
/* What windows take in, with a real core behind it that shows what was published. */
#include "proto/base/error.h"

#include "broker/plug/ingest.h"

#include <criterion/criterion.h>

/* The newest event, as it was shown. */
struct fixture {
    struct bk_core *core;
    struct bk_out out;
    struct bb_buf shown;
    bool is_open;
};

static void on_window(void *context, const struct bk_window_event *event)
{
    struct fixture *fixture = context;
    if (event != NULL) {
        bb_buf_reset(&fixture->shown);
        bb_buf_append(&fixture->shown, event->raw.data, event->raw.len);
    }
}

static void setup(struct fixture *fixture)
{
    struct bk_config config = BK_CONFIG_INIT;
    *fixture = (struct fixture){.is_open = true};
    fixture->out =
        (struct bk_out){.context = fixture, .window = on_window, .window_is_open = &fixture->is_open};
    cr_assert_eq(bk_core_new(&config, &fixture->out, &fixture->core), 0);
    bk_core_set_time(fixture->core, 1000000, 1000000);
}

static void teardown(struct fixture *fixture)
{
    bk_core_free(fixture->core);
    bb_buf_fini(&fixture->shown);
}

static void expect_shown(struct fixture *fixture, const char *bytes, size_t len)
{
    bk_core_flush(fixture->core);
    cr_assert(bb_slice_equal(bb_buf_slice(&fixture->shown), bb_slice(bytes, len)), "%zu bytes",
              fixture->shown.len);
}

#define SHOWS(bytes) expect_shown(&fixture, bytes, sizeof(bytes) - 1)

static int frame(struct fixture *fixture, const char *text)
{
    return bk_ingest_frame(fixture->core, bb_slice_str(text), NULL);
}

static int pair(struct fixture *fixture, const char *path, const char *payload)
{
    return bk_ingest_pair(fixture->core, bb_slice_str(path), bb_slice_str(payload));
}

Test(ingest, a_frame_is_json_or_bare_events)
{
    struct fixture fixture;
    setup(&fixture);
    cr_assert_eq(frame(&fixture, "{\"path\":\"a\",\"payload\":1}"), 0);
    SHOWS("\x92\xa1"
          "a\x01");
    cr_assert_eq(frame(&fixture, " [{\"path\":\"b\"},{\"type\":\"c\",\"payload\":2}]"), 0);
    SHOWS("\x92\xa1"
          "c\x02");
    cr_assert_eq(frame(&fixture, "\x92\xa1"
                                 "d\x03"),
                 0);
    SHOWS("\x92\xa1"
          "d\x03");
    teardown(&fixture);
}

Test(ingest, a_pair_is_a_path_and_json_or_text_or_binary)
{
    struct fixture fixture;
    setup(&fixture);
    cr_assert_eq(pair(&fixture, "a", " 7 "), 0);
    SHOWS("\x92\xa1"
          "a\x07");
    cr_assert_eq(pair(&fixture, "a", "1e400"), 0); /* no value of ours */
    SHOWS("\x92\xa1"
          "a\xa5"
          "1e400");
    cr_assert_eq(pair(&fixture, "a", "\xff"), 0);
    SHOWS("\x92\xa1"
          "a\xc4\x01\xff");
    teardown(&fixture);
}

Test(ingest, what_cannot_be_taken_says_why)
{
    struct fixture fixture;
    setup(&fixture);
    cr_assert_eq(frame(&fixture, "{"), BB_EMALFORMED);
    cr_assert_eq(frame(&fixture, "\xc1"), BB_EMALFORMED);
    cr_assert_eq(frame(&fixture, "{\"op\":\"ping\",\"token\":1}"), BB_EMALFORMED);
    cr_assert_eq(pair(&fixture, "a/*", "1"), BB_EPATH);
    cr_assert_eq(bk_core_counter(fixture.core, BK_COUNTER_ingest_events), 0);
    teardown(&fixture);
}

Test(ingest, bad_events_are_refused_alone)
{
    struct fixture fixture;
    setup(&fixture);
    cr_assert_eq(
        frame(&fixture, "[{\"path\":\"a\",\"x\":1},{\"path\":\"b\",\"payload\":1e400},{\"path\":\"c\"}]"), 0);
    SHOWS("\x92\xa1"
          "c\xc0");
    cr_assert_eq(bk_core_counter(fixture.core, BK_COUNTER_ingest_events), 1);
    cr_assert_eq(bk_core_counter(fixture.core, BK_COUNTER_events_refused), 2);
    teardown(&fixture);
}
