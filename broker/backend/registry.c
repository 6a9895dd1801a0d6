/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/registry.h"

#include "proto/base/error.h"
#include "proto/base/time.h"

#include "broker/backend/dummy.h"
#include "broker/backend/lmdb/lmdb.h"
#include "broker/backend/memory/memory.h"

#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

static const struct bk_backend_driver *const builtin[] = {
    &bk_lmdb_driver,
    &bk_memory_driver,
    &bk_dummy_driver,
};

static int load_driver(const char *file, const struct bk_backend_driver **ret_driver, struct bb_buf *err)
{
    void *object = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (object == NULL) {
        bb_buf_printf(err, "cannot load the backend: %s",
                      dlerror()); /* NOLINT(concurrency-mt-unsafe): before any thread */
        return BB_ENOTFOUND;
    }
    const struct bk_backend_driver *driver = dlsym(object, "bk_backend_driver");
    if (driver == NULL) {
        bb_buf_printf(err, "%s exports no bk_backend_driver", file);
        return BB_ENOTFOUND;
    }
    if (driver->abi != BK_BACKEND_ABI) {
        bb_buf_printf(err, "%s was made for version %" PRIu32 " of the backend interface, this broker has %d",
                      file, driver->abi, BK_BACKEND_ABI);
        return BB_EVERSION;
    }
    *ret_driver = driver;
    return 0;
}

static int find_driver(const char *name, const struct bk_backend_driver **ret_driver, struct bb_buf *err)
{
    if (strchr(name, '/') != NULL) {
        return load_driver(name, ret_driver, err);
    }
    for (size_t i = 0; i < BB_COUNT(builtin); i++) {
        if (strcmp(builtin[i]->name, name) == 0) {
            *ret_driver = builtin[i];
            return 0;
        }
    }
    bb_buf_printf(err, "there is no backend \"%s\"; built in are", name);
    for (size_t i = 0; i < BB_COUNT(builtin); i++) {
        bb_buf_printf(err, "%s %s", i > 0 ? "," : "", builtin[i]->name);
    }
    bb_buf_printf(err, "; a file is given with its path (./backend.so)");
    return BB_ENOTFOUND;
}

/* --- options ------------------------------------------------------------------------------------- */

static int parse_number(const char *text, bool is_size, uint64_t *ret_number)
{
    static const char suffixes[] = "KMGT";
    char *end = NULL;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno != 0 || !(*text >= '0' && *text <= '9')) { /* strtoull() takes signs and spaces */
        return BB_EINVAL;
    }
    const char *suffix = is_size && *end != 0 ? strchr(suffixes, *end) : NULL;
    if (suffix != NULL) {
        unsigned shift = 10 * (unsigned)(suffix - suffixes + 1);
        if (number > UINT64_MAX >> shift) {
            return BB_EINVAL;
        }
        number <<= shift;
        end++;
    }
    *ret_number = number;
    return *end == 0 ? 0 : BB_EINVAL;
}

static int parse_flag(const char *text, uint64_t *ret_number)
{
    bool yes = strcmp(text, "yes") == 0 || strcmp(text, "1") == 0;
    *ret_number = yes;
    return yes || strcmp(text, "no") == 0 || strcmp(text, "0") == 0 ? 0 : BB_EINVAL;
}

static int
parse_value(const struct bk_backend_option *option, const char *text, struct bk_backend_value *ret_value)
{
    int64_t us = 0;
    int r = 0;
    switch (option->kind) {
    case BK_OPTION_TEXT:
        ret_value->text = text;
        return 0;
    case BK_OPTION_FLAG:
        return parse_flag(text, &ret_value->number);
    case BK_OPTION_DURATION:
        r = bb_duration_parse(bb_slice_str(text), &us);
        ret_value->number = (uint64_t)us;
        break;
    case BK_OPTION_SIZE:
    case BK_OPTION_NUMBER:
        r = parse_number(text, option->kind == BK_OPTION_SIZE, &ret_value->number);
        break;
    }
    return r == 0 && ret_value->number >= option->min && ret_value->number <= option->max ? 0 : BB_EINVAL;
}

static int set_option(const struct bk_backend_driver *driver,
                      const char *text,
                      struct bk_backend_value *values,
                      struct bb_buf *err)
{
    const char *equals = strchr(text, '=');
    size_t len = equals != NULL ? (size_t)(equals - text) : strlen(text);
    for (size_t i = 0; driver->options[i].name != NULL; i++) {
        const struct bk_backend_option *option = &driver->options[i];
        if (strlen(option->name) != len || memcmp(option->name, text, len) != 0) {
            continue;
        }
        if (equals == NULL || parse_value(option, equals + 1, &values[i]) < 0) {
            bb_buf_printf(err, "\"%s\" is not acceptable to the backend %s: %s", text, driver->name,
                          option->help);
            return BB_EINVAL;
        }
        return 0;
    }
    bb_buf_printf(err, "the backend %s has no option \"%.*s\"; it has", driver->name, (int)len, text);
    for (size_t i = 0; driver->options[i].name != NULL; i++) {
        bb_buf_printf(err, "%s %s", i > 0 ? "," : "", driver->options[i].name);
    }
    return BB_EINVAL;
}

static size_t count_options(const struct bk_backend_driver *driver)
{
    size_t n = 0;
    while (driver->options[n].name != NULL) {
        n++;
    }
    return n;
}

int bk_backend_open(const char *name,
                    const char *const *options,
                    size_t n_options,
                    struct bk_backend_env *env,
                    struct bk_backend **ret_backend,
                    struct bb_buf *err)
{
    struct bk_backend_value values[BK_BACKEND_OPTIONS_MAX] = {0};
    const struct bk_backend_driver *driver = NULL;
    int r = find_driver(name, &driver, err);
    if (r < 0) {
        return r;
    }
    if (count_options(driver) > BK_BACKEND_OPTIONS_MAX) {
        bb_buf_printf(err, "the backend %s has more than %d options", driver->name, BK_BACKEND_OPTIONS_MAX);
        return BB_EINVAL;
    }
    for (size_t i = 0; driver->options[i].name != NULL; i++) {
        values[i] = (struct bk_backend_value){driver->options[i].number, driver->options[i].text};
    }
    for (size_t i = 0; i < n_options; i++) {
        r = set_option(driver, options[i], values, err);
        if (r < 0) {
            return r;
        }
    }
    if (driver->needs_directory && env->directory == NULL) {
        bb_buf_printf(err, "the backend %s needs a directory (--data)", driver->name);
        return BB_EINVAL;
    }
    env->values = values;
    r = driver->open(env, ret_backend, err);
    env->values = NULL; /* what an option says is the driver's to keep */
    return r;
}

void bk_backend_help(struct bb_buf *out)
{
    for (size_t i = 0; i < BB_COUNT(builtin); i++) {
        bb_buf_printf(out, "  %s\n", builtin[i]->name);
        for (const struct bk_backend_option *option = builtin[i]->options; option->name != NULL; option++) {
            bb_buf_printf(out, "    %-20s %s\n", option->name, option->help);
        }
    }
}
