/* SPDX-License-Identifier: Apache-2.0 */
/* Settings of channels as a map, and the names of policies. */
#include "proto/base/error.h"
#include "proto/json/json_value.h"
#include "proto/wire/mp.h"

#include "broker/core/keep/policy.h"
#include "broker/core/keep/settings.h"

#include <criterion/criterion.h>

static const struct bk_settings defaults = {.sync = true,
                                            .retention = BK_RETENTION_INIT,
                                            .ring_bytes = 1 << 20};

/* @json with ' for ". */
static int read_json(const char *json, struct bk_settings *settings, struct bb_buf *err)
{
    char text[512];
    struct bb_buf map = BB_BUF_INIT;
    size_t len = strlen(json);
    cr_assert_lt(len, sizeof(text));
    for (size_t i = 0; i < len; i++) {
        text[i] = json[i] == '\'' ? '"' : json[i];
    }
    cr_assert_eq(bb_json_value_to_mp(text, len, &map, NULL), 0);
    int r = bk_settings_read(bb_buf_slice(&map), &defaults, settings, err);
    bb_buf_fini(&map);
    return r;
}

static void assert_refused(const char *json, const char *sentence)
{
    struct bk_settings settings = {.logged = true, .ring_bytes = 77};
    struct bb_buf err = BB_BUF_INIT;
    cr_assert_eq(read_json(json, &settings, &err), BB_EINVAL, "%s", json);
    cr_assert_str_eq(bb_buf_string(&err), sentence);
    cr_assert(settings.logged && settings.ring_bytes == 77, "it is as it was");
    bb_buf_fini(&err);
}

Test(core_keep_settings, all_members_are_read)
{
    struct bk_settings settings = defaults;
    struct bb_buf err = BB_BUF_INIT;
    cr_assert_eq(
        read_json("{'store':'log','sync':false,'early':true,'max_age':5,'max_bytes':6,'max_events':7,"
                  "'max_per_path':8,'min_events':9,'overflow':'conflate','ring':65536}",
                  &settings, &err),
        0);
    cr_assert(settings.logged && !settings.sync && settings.early);
    cr_assert_eq(settings.retention.max_age_us, 5000);
    cr_assert_eq(settings.retention.max_bytes, 6);
    cr_assert_eq(settings.retention.max_events, 7);
    cr_assert_eq(settings.retention.max_per_path, 8);
    cr_assert_eq(settings.retention.min_events, 9);
    cr_assert_eq(settings.overflow, BK_OVERFLOW_CONFLATE);
    cr_assert_eq(settings.ring_bytes, 65536);
    bb_buf_fini(&err);
}

Test(core_keep_settings, nil_takes_the_default_and_what_is_not_named_stays)
{
    struct bk_settings settings = {.logged = true, .ring_bytes = 99};
    struct bb_buf err = BB_BUF_INIT;
    settings.retention.max_events = 3;
    cr_assert_eq(read_json("{'max_events':null,'sync':null,'max_age':null}", &settings, &err), 0);
    cr_assert_eq(settings.retention.max_events, BK_NO_LIMIT);
    cr_assert(settings.sync && settings.logged);
    cr_assert_eq(settings.ring_bytes, 99);
    bb_buf_fini(&err);
}

Test(core_keep_settings, what_cannot_be_is_refused_by_name_and_changes_nothing)
{
    assert_refused("{'sync':false,'rings':5}", "there is no setting \"rings\"");
    assert_refused("{'store':'disk'}", "\"store\" cannot be that");
    assert_refused("{'sync':1}", "\"sync\" cannot be that");
    assert_refused("{'max_age':0}", "\"max_age\" cannot be that");
    assert_refused("{'max_age':9223372036854775807}", "\"max_age\" cannot be that");
    assert_refused("{'max_events':-1}", "\"max_events\" cannot be that");
    assert_refused("{'overflow':'sometimes'}", "\"overflow\" cannot be that");
    assert_refused("{'ring':100}", "\"ring\" cannot be that; it is 65536 at least");
    assert_refused("[]", "settings are a map");
}

Test(core_keep_settings, what_is_written_is_read_back)
{
    struct bk_settings settings = {.logged = true,
                                   .early = true,
                                   .retention = {7000, BK_NO_LIMIT, 5, BK_NO_LIMIT, 2},
                                   .overflow = BK_OVERFLOW_REFUSE,
                                   .ring_bytes = 65537};
    struct bk_settings read = defaults;
    struct bb_buf members = BB_BUF_INIT;
    struct bb_buf map = BB_BUF_INIT;
    struct bb_buf err = BB_BUF_INIT;
    bb_mp_write_map(&map, bk_settings_write(&members, &settings));
    bb_buf_append(&map, members.data, members.len);
    cr_assert_eq(bk_settings_read(bb_buf_slice(&map), &defaults, &read, &err), 0);
    cr_assert(read.logged && read.early && !read.sync);
    cr_assert_eq(memcmp(&read.retention, &settings.retention, sizeof(read.retention)), 0);
    cr_assert_eq(read.overflow, settings.overflow);
    cr_assert_eq(read.ring_bytes, settings.ring_bytes);
    bb_buf_fini(&members);
    bb_buf_fini(&map);
    bb_buf_fini(&err);
}

Test(core_keep_settings, every_policy_is_found_under_its_name)
{
    enum bk_overflow found = BK_OVERFLOW_SLIDE;
    for (int i = 0; i < BK_OVERFLOWS; i++) {
        cr_assert_eq(bk_overflow_find(bb_slice_str(bk_overflow_name((enum bk_overflow)i)), &found), 0);
        cr_assert_eq((int)found, i);
    }
    cr_assert_eq(bk_overflow_find(bb_slice_str("slid"), &found), BB_EINVAL);
    cr_assert_eq(bk_overflow_find((struct bb_slice){0}, &found), BB_EINVAL);
    cr_assert_eq((int)found, BK_OVERFLOWS - 1, "it is as it was");
}
