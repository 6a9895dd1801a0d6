/* SPDX-License-Identifier: Apache-2.0 */
/* Opening the files, and taking in what the journal has and the tables have not. */
#include "broker/backend/lmdb/state.h"

/* Tables that cannot take what is found get room for so many times of it, and twice as much each time. */
#define STRETCH_FACTOR 16
#define STRETCH_MIN    ((size_t)1 << 20)
#define STRETCHES      4

/* Records that were found, taken in together: a transaction for each would cost two flushes each. */
struct found {
    struct bk_store *store;
    struct bb_buf inputs;   /* struct bk_store_input, whose payloads have no place yet */
    struct bb_buf payloads; /* behind each other */
};

/* What is in the journal was acknowledged, and there is no trimming before the log is open: so the tables may
 * exceed their limit by what it takes, and are full then. */
static int apply_found(struct found *found)
{
    struct bk_store_input *inputs = (struct bk_store_input *)(void *)found->inputs.data;
    size_t n = found->inputs.len / sizeof(*inputs);
    const uint8_t *at = found->payloads.data;
    for (size_t i = 0; i < n; i++) {
        inputs[i].payload.data = at;
        at += inputs[i].payload.len;
    }
    int r = n > 0 ? bk_store_apply(found->store, inputs, n) : 0;
    size_t more = STRETCH_FACTOR * found->payloads.len + STRETCH_MIN;
    for (unsigned i = 0; i < STRETCHES && r == BB_ELOGFULL; i++, more *= 2) {
        r = bk_store_stretch(found->store, more);
        r = r < 0 ? r : bk_store_apply(found->store, inputs, n);
    }
    bb_buf_reset(&found->inputs);
    bb_buf_reset(&found->payloads);
    return r;
}

static int take_found(void *context, uint64_t number, struct bb_slice payload)
{
    struct found *found = context;
    const struct bk_store_input input = {number, {NULL, payload.len}};
    bb_buf_append(&found->inputs, &input, sizeof(input));
    bb_buf_append(&found->payloads, payload.data, payload.len);
    int r = found->inputs.error != 0 ? found->inputs.error : found->payloads.error;
    return r == 0 && found->payloads.len >= BK_APPLY_BYTES ? apply_found(found) : r;
}

/* Everything that is durable is in the store when this returns, and synced there. */
int bk_lmdb_open_files(struct lmdb *lmdb,
                       struct bk_store **ret_store,
                       struct bk_journal **ret_journal,
                       struct bb_buf *err)
{
    struct bk_store *store = NULL;
    struct found found = {0};
    int r = bk_store_open(lmdb->directory, (size_t)lmdb->values[OPTION_MAP_SIZE], &store, err);
    if (r < 0) {
        return r;
    }
    found.store = store;
    size_t limit = store->map_size;
    r = bk_journal_open(lmdb->directory, (size_t)lmdb->values[OPTION_JOURNAL_SIZE], bk_store_applied(store),
                        take_found, &found, ret_journal, err);
    if (r == 0 || r == BB_ECORRUPT) { /* what is before the damage may be lost with the journal otherwise */
        int applied = apply_found(&found);
        if (r == 0 && applied < 0) {
            bk_journal_close(*ret_journal);
            *ret_journal = NULL;
        }
        if (applied < 0) {
            bb_buf_reset(err);
            r = applied;
        }
    }
    bb_buf_fini(&found.inputs);
    bb_buf_fini(&found.payloads);
    if (r < 0) {
        if (err->len == 0) {
            bb_buf_printf(err, "%s: what the journal has could not be taken into the tables: %s",
                          lmdb->directory, bb_strerror(r));
        }
        bk_store_close(store);
        return r;
    }
    store->map_size = limit;
    *ret_store = store;
    return 0;
}

static int load_channel(void *context, const struct bk_log_channel *channel)
{
    return channel->removed ? 0 : bk_numbers_add_channel(context, channel->id, channel->last);
}

static int load_last(void *context, const struct bk_event_id *id, uint64_t time)
{
    return bk_numbers_add_server(context, id, time);
}

int bk_lmdb_load_numbers(struct bk_store *store, struct bk_numbers **ret_numbers)
{
    struct bk_numbers *numbers = bk_numbers_new();
    if (numbers == NULL) {
        return BB_ENOMEM;
    }
    const struct bk_backend_loader loader = {.context = numbers, .channel = load_channel};
    int r = bk_store_load(store, &loader, load_last, numbers);
    if (r < 0) {
        bk_numbers_free(numbers);
        return r;
    }
    *ret_numbers = numbers;
    return 0;
}
