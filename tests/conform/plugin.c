/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dummy as a backend that is loaded, with options of every kind: status() reports them as they came in.
 */
#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include "broker/backend/dummy.h"

#ifndef PLUGIN_ABI
#    define PLUGIN_ABI BK_BACKEND_ABI
#endif

#ifndef PLUGIN_SYMBOL
#    define PLUGIN_SYMBOL bk_backend_driver
#endif

enum option {
    OPTION_COUNT,
    OPTION_WIDE,
    OPTION_SIZE,
    OPTION_WAIT,
    OPTION_STRICT,
    OPTION_LABEL,
    OPTIONS
};

/* clang-format off */
static const struct bk_backend_option options[] = {
    [OPTION_COUNT] = {"count", BK_OPTION_NUMBER, 1, 10, 3, NULL, "from 1 to 10 (3)"},
    [OPTION_WIDE] = {"wide", BK_OPTION_NUMBER, 0, UINT64_MAX, 0, NULL, "any number"},
    [OPTION_SIZE] = {"size", BK_OPTION_SIZE, 1024, 1 << 20, 4096, NULL, "from 1K to 1M (4K)"},
    [OPTION_WAIT] = {"wait", BK_OPTION_DURATION, 1000, 1000000, 5000, NULL, "from 1ms to 1s (5ms)"},
    [OPTION_STRICT] = {"strict", BK_OPTION_FLAG, 0, 1, 0, NULL, "yes or no (no)"},
    [OPTION_LABEL] = {"label", BK_OPTION_TEXT, 0, 0, 0, "none", "any text"},
#ifdef PLUGIN_MANY
    [OPTIONS ... 63] = {"many", BK_OPTION_FLAG, 0, 1, 0, NULL, "one of too many"},
    [64] = {0},
#else
    [OPTIONS] = {0},
#endif
};
/* clang-format on */

/* Of the one that is open. */
static struct bk_backend_ops ops;
static uint64_t numbers[OPTIONS];
static char label[16];

static void op_status(struct bk_backend *backend, struct bb_buf *out)
{
    (void)backend;
    bb_mp_write_map(out, OPTIONS);
    for (size_t i = 0; i < OPTIONS; i++) {
        bb_mp_write_str(out, bb_slice_str(options[i].name));
        if (i == OPTION_LABEL) {
            bb_mp_write_str(out, bb_slice_str(label));
        } else {
            bb_mp_write_uint(out, numbers[i]);
        }
    }
}

static int open_plugin(const struct bk_backend_env *env, struct bk_backend **ret_backend, struct bb_buf *err)
{
    int r = bk_dummy_driver.open(env, ret_backend, err);
    if (r < 0) {
        return r;
    }
    for (size_t i = 0; i < OPTIONS; i++) {
        numbers[i] = env->values[i].number;
    }
    size_t len = strnlen(env->values[OPTION_LABEL].text, sizeof(label) - 1);
    memcpy(label, env->values[OPTION_LABEL].text, len);
    label[len] = 0;
    ops = *(*ret_backend)->ops;
    ops.status = op_status;
    (*ret_backend)->ops = &ops;
    return 0;
}

extern const struct bk_backend_driver PLUGIN_SYMBOL __attribute__((visibility("default")));
const struct bk_backend_driver PLUGIN_SYMBOL = {PLUGIN_ABI, "plugin", false, options, open_plugin};
