/* SPDX-License-Identifier: Apache-2.0 */
/* The broker's log: what a line looks like, which are written, how a flood ends. */
#include "proto/base/error.h"

#include "broker/host/log.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <unistd.h>

/* What was written to stderr since capture_start(); tests of Criterion have a process each. */
static FILE *captured;

static void capture_start(void)
{
    captured = tmpfile();
    cr_assert_not_null(captured);
    cr_assert_geq(dup2(fileno(captured), STDERR_FILENO), 0);
}

static size_t capture_read(char *text, size_t size)
{
    rewind(captured);
    size_t n = fread(text, 1, size - 1, captured);
    text[n] = '\0';
    return n;
}

static size_t count_lines(const char *text)
{
    size_t n = 0;
    for (; *text != '\0'; text++) {
        n += *text == '\n';
    }
    return n;
}

Test(log, a_line_of_text_has_time_level_id_and_sentence)
{
    char text[512];
    struct bk_log *log = bk_log_new(BK_LOG_TEXT, BK_LOG_NOTICE);
    capture_start();
    bk_log_write(log, BK_LOG_WARNING, "BB-TEST", "something happened");
    bk_log_free(log);
    (void)capture_read(text, sizeof(text));
    cr_assert_not_null(strstr(text, " warning BB-TEST something happened\n"), "%s", text);
    cr_assert_eq(count_lines(text), 1);
}

Test(log, a_line_of_json_is_json_whatever_the_sentence)
{
    char text[512];
    struct bk_log *log = bk_log_new(BK_LOG_JSON, BK_LOG_DEBUG);
    capture_start();
    bk_log_write(log, BK_LOG_DEBUG, "BB-TEST", "a \"name\"\nand \\ more");
    bk_log_free(log);
    size_t n = capture_read(text, sizeof(text));
    cr_assert_eq(count_lines(text), 1);
    json_t *entry = json_loadb(text, n, 0, NULL);
    cr_assert_not_null(entry, "%s", text);
    cr_assert_str_eq(json_string_value(json_object_get(entry, "text")), "a \"name\"\nand \\ more");
    cr_assert_str_eq(json_string_value(json_object_get(entry, "level")), "debug");
    cr_assert_str_eq(json_string_value(json_object_get(entry, "id")), "BB-TEST");
    json_decref(entry);
}

Test(log, what_is_above_the_level_is_not_written)
{
    char text[512];
    struct bk_log *log = bk_log_new(BK_LOG_TEXT, BK_LOG_WARNING);
    capture_start();
    bk_log_write(log, BK_LOG_NOTICE, "BB-TEST", "no");
    bk_log_write(log, BK_LOG_DEBUG, "BB-TEST", "no");
    bk_log_write(log, BK_LOG_ERROR, "BB-TEST", "yes");
    bk_log_free(log);
    (void)capture_read(text, sizeof(text));
    cr_assert_eq(count_lines(text), 1);
}

Test(log, a_flood_of_one_id_is_cut_and_leaves_the_others_alone)
{
    static char text[65536];
    struct bk_log *log = bk_log_new(BK_LOG_TEXT, BK_LOG_NOTICE);
    capture_start();
    for (int i = 0; i < 500; i++) {
        bk_log_write(log, BK_LOG_NOTICE, "BB-FLOOD", "again");
    }
    bk_log_write(log, BK_LOG_NOTICE, "BB-OTHER", "once");
    bk_log_free(log);
    (void)capture_read(text, sizeof(text));
    cr_assert_geq(count_lines(text), 21);
    cr_assert_lt(count_lines(text), 200);
    cr_assert_not_null(strstr(text, "BB-OTHER once"));
}

Test(log, levels_are_found_by_name)
{
    enum bk_log_level level = BK_LOG_DEBUG;
    cr_assert_eq(bk_log_level_find("warning", &level), 0);
    cr_assert_eq(level, BK_LOG_WARNING);
    cr_assert_eq(bk_log_level_find("loud", &level), BB_EINVAL);
    cr_assert_eq(level, BK_LOG_WARNING);
    bk_log_free(NULL);
}
