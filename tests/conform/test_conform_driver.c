/* SPDX-License-Identifier: Apache-2.0 */
/* The registry: names, shared objects, their ABI, and options (HAT-F20). */
#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include "tests/conform/world.h"

#include <stdio.h>
#include <string.h>

static void nothing(void *context, uint64_t ticket)
{
    (void)context;
    (void)ticket;
}

static void nothing_flushed(void *context, uint64_t ticket, int error)
{
    (void)context;
    (void)ticket;
    (void)error;
}

static const struct bk_backend_listener listener = {.registered = nothing, .flushed = nothing_flushed};

/* Open with one option, or none; the number that the plugin got for @key and its label go to @ret_number,
 * @label. */
static int try_option(const char *option, const char *key, uint64_t *ret_number, char label[16])
{
    struct bk_meter meter = {0};
    struct bk_backend *backend = NULL;
    struct bb_buf err = BB_BUF_INIT;
    struct bb_buf status = BB_BUF_INIT;
    struct bk_backend_env env = {.server = 1, .listener = &listener, .meter = &meter};
    int r = bk_backend_open(PLUGIN, &option, option != NULL ? 1 : 0, &env, &backend, &err);
    if (r < 0) {
        cr_assert_gt(err.len, 10, "a sentence");
        bb_buf_fini(&err);
        return r;
    }
    backend->ops->status(backend, &status);
    struct bb_mp_reader reader = bb_mp_reader(bb_buf_slice(&status));
    uint64_t n = bb_mp_read_map(&reader);
    for (uint64_t i = 0; i < n; i++) {
        struct bb_slice name = bb_mp_read_str(&reader);
        if (bb_slice_equal(name, bb_slice_str("label"))) {
            struct bb_slice text = bb_mp_read_str(&reader);
            (void)snprintf(label, 16, "%.*s", (int)text.len, (const char *)text.data);
            continue;
        }
        uint64_t number = bb_mp_read_uint(&reader);
        *ret_number = bb_slice_equal(name, bb_slice_str(key)) ? number : *ret_number;
    }
    cr_assert_eq(reader.error, 0);
    bb_buf_fini(&status);
    backend->ops->close(backend);
    return 0;
}

Test(conform_driver, defaults)
{
    const struct {
        const char *key;
        uint64_t number;
    } rows[] = {{"count", 3}, {"wide", 0}, {"size", 4096}, {"wait", 5000}, {"strict", 0}};
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        char label[16] = "";
        uint64_t number = 99;
        cr_assert_eq(try_option(NULL, rows[i].key, &number, label), 0);
        cr_assert_eq(number, rows[i].number, "%s", rows[i].key);
        cr_assert_str_eq(label, "none");
    }
}

Test(conform_driver, values)
{
    const struct {
        const char *option;
        const char *key;
        uint64_t number;
    } rows[] = {
        {"count=1", "count", 1},
        {"count=10", "count", 10},
        {"wide=18446744073709551615", "wide", UINT64_MAX},
        {"size=2K", "size", 2048},
        {"size=1M", "size", 1 << 20},
        {"size=1500", "size", 1500},
        {"wait=250ms", "wait", 250000},
        {"wait=1s", "wait", 1000000},
        {"strict=yes", "strict", 1},
        {"strict=no", "strict", 0},
        {"strict=1", "strict", 1},
    };
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        char label[16] = "";
        uint64_t number = 99;
        cr_assert_eq(try_option(rows[i].option, rows[i].key, &number, label), 0, "%s", rows[i].option);
        cr_assert_eq(number, rows[i].number, "%s: %llu", rows[i].option, (unsigned long long)number);
    }
    char label[16] = "";
    uint64_t number = 0;
    cr_assert_eq(try_option("label=a=b", "count", &number, label), 0);
    cr_assert_str_eq(label, "a=b");
}

Test(conform_driver, values_refused)
{
    static const char *const rows[] = {
        "",
        "=",
        "none=1",
        "coun=1",
        "counts=1",
        "Count=1",
        "count",
        "count=",
        "count=0",
        "count=11",
        "count=-1",
        "count=x",
        "count=3x",
        "count=1K",
        "count=3.5",
        "count=99999999999999999999",
        "size=1023",
        "size=2M",
        "size=2X",
        "size=2KK",
        "size=K",
        "size=18014398509481985K",
        "wait=0s",
        "wait=2s",
        "wait=fast",
        "strict=2",
        "strict=maybe",
        "strict=",
        "strict",
        "label",
        "wide=-1",
    };
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        char label[16] = "";
        uint64_t number = 0;
        cr_assert_eq(try_option(rows[i], "count", &number, label), BB_EINVAL, "\"%s\"", rows[i]);
    }
}

/* strtoull() takes both of these. */
Test(conform_driver, no_sign_behind_a_space)
{
    static const char *const rows[] = {"wide= -1", "wide=+1", "wide= 1"};
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        char label[16] = "";
        uint64_t number = 0;
        cr_assert_eq(try_option(rows[i], "wide", &number, label), BB_EINVAL, "\"%s\"", rows[i]);
    }
}

static void is_refused(const char *name, int error, const char *const *words, size_t n_words)
{
    struct bk_meter meter = {0};
    struct bk_backend *backend = NULL;
    struct bb_buf err = BB_BUF_INIT;
    struct bk_backend_env env = {.server = 1, .listener = &listener, .meter = &meter};
    cr_assert_eq(bk_backend_open(name, NULL, 0, &env, &backend, &err), error);
    cr_assert_null(backend);
    for (size_t i = 0; i < n_words; i++) {
        cr_assert_not_null(strstr(bb_buf_string(&err), words[i]), "\"%s\" is not in: %s", words[i],
                           bb_buf_string(&err));
    }
    bb_buf_fini(&err);
}

Test(conform_driver, too_many_options)
{
    const char *const words[] = {"plugin", "more than 32 options"};
    is_refused(PLUGIN_MANY, BB_EINVAL, words, BB_COUNT(words));
}

Test(conform_driver, wrong_abi)
{
    const char *const words[] = {PLUGIN_OLD, "1003", "version"};
    is_refused(PLUGIN_OLD, BB_EVERSION, words, BB_COUNT(words));
}

Test(conform_driver, unknown_name)
{
    const char *const words[] = {"nonsense", "lmdb", "memory", "dummy"};
    is_refused("nonsense", BB_ENOTFOUND, words, BB_COUNT(words));
}

Test(conform_driver, file_that_is_not_there)
{
    const char *const words[] = {"/nonexistent/backend.so"};
    is_refused("/nonexistent/backend.so", BB_ENOTFOUND, words, BB_COUNT(words));
}

Test(conform_driver, no_backend_in_it)
{
    const char *const words[] = {"bk_backend_driver"};
    is_refused(PLUGIN_NONE, BB_ENOTFOUND, words, BB_COUNT(words));
}

Test(conform_driver, directory_is_needed)
{
    const char *const words[] = {"lmdb", "directory"};
    is_refused("lmdb", BB_EINVAL, words, BB_COUNT(words));
}

Test(conform_driver, help_has_every_option)
{
    struct bb_buf help = BB_BUF_INIT;
    static const char *const words[] = {"lmdb", "memory", "dummy", "map-size", "channel-size"};
    bk_backend_help(&help);
    for (size_t i = 0; i < BB_COUNT(words); i++) {
        cr_assert_not_null(strstr(bb_buf_string(&help), words[i]), "%s", words[i]);
    }
    bb_buf_fini(&help);
}
