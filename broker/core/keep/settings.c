/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/keep/settings.h"

#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include "broker/core/keep/policy.h"

enum kind {
    KIND_STORE,
    KIND_FLAG,
    KIND_MS, /* milliseconds on the wire, us here */
    KIND_NUMBER,
    KIND_OVERFLOW,
};

struct row {
    const char *name;
    size_t offset;
    uint64_t min;
    enum kind kind;
    bool has_limit; /* BK_NO_LIMIT is a value: nil on the wire */
};

#define AT(field) offsetof(struct bk_settings, field)

/* clang-format off */
static const struct row rows[] = {
    {"store", AT(logged), 0, KIND_STORE, false},
    {"sync", AT(sync), 0, KIND_FLAG, false},
    {"early", AT(early), 0, KIND_FLAG, false},
    {"max_age", AT(retention.max_age_us), 1, KIND_MS, true},
    {"max_bytes", AT(retention.max_bytes), 1, KIND_NUMBER, true},
    {"max_events", AT(retention.max_events), 1, KIND_NUMBER, true},
    {"max_per_path", AT(retention.max_per_path), 1, KIND_NUMBER, true},
    {"min_events", AT(retention.min_events), 0, KIND_NUMBER, false},
    {"overflow", AT(overflow), 0, KIND_OVERFLOW, false},
    {"ring", AT(ring_bytes), 64 << 10, KIND_NUMBER, false},
};
/* clang-format on */

static const struct row *find_row(struct bb_slice name)
{
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        if (bb_slice_equal(name, bb_slice_str(rows[i].name))) {
            return &rows[i];
        }
    }
    return NULL;
}

static void reset(const struct row *row, const struct bk_settings *defaults, struct bk_settings *settings)
{
    size_t size = row->kind == KIND_STORE || row->kind == KIND_FLAG ? sizeof(bool) : sizeof(uint64_t);
    memcpy((char *)settings + row->offset, (const char *)defaults + row->offset, size);
}

static int read_store(struct bb_mp_reader *reader, bool *ret_logged)
{
    struct bb_slice word = bb_mp_read_str(reader);
    *ret_logged = bb_slice_equal(word, bb_slice_str("log"));
    return *ret_logged || bb_slice_equal(word, bb_slice_str("memory")) ? 0 : BB_EINVAL;
}

static int read_member(struct bb_mp_reader *reader, const struct row *row, struct bk_settings *settings)
{
    char *at = (char *)settings + row->offset;
    enum bk_overflow overflow = BK_OVERFLOW_SLIDE;
    uint64_t number = 0;
    bool flag = false;
    int r = 0;
    switch (row->kind) {
    case KIND_STORE:
        r = read_store(reader, &flag);
        memcpy(at, &flag, sizeof(flag));
        return r;
    case KIND_FLAG:
        flag = bb_mp_read_bool(reader);
        memcpy(at, &flag, sizeof(flag));
        return reader->error;
    case KIND_OVERFLOW:
        r = bk_overflow_find(bb_mp_read_str(reader), &overflow);
        number = (uint64_t)overflow;
        break;
    case KIND_MS:
        number = bb_mp_read_uint(reader);
        r = number < row->min || number > (uint64_t)INT64_MAX / 1000 ? BB_EINVAL : 0;
        number *= r == 0 ? 1000 : 1;
        break;
    case KIND_NUMBER:
        number = bb_mp_read_uint(reader);
        r = number < row->min || number > (uint64_t)INT64_MAX ? BB_EINVAL : 0;
        break;
    }
    memcpy(at, &number, sizeof(number));
    return reader->error != 0 ? BB_EINVAL : r;
}

int bk_settings_read(struct bb_slice map,
                     const struct bk_settings *defaults,
                     struct bk_settings *settings,
                     struct bb_buf *err)
{
    struct bb_mp_reader reader = bb_mp_reader(map);
    struct bk_settings changed = *settings;
    uint64_t n = bb_mp_read_map(&reader);
    for (uint64_t i = 0; i < n && reader.error == 0; i++) {
        struct bb_slice name = bb_mp_read_str(&reader);
        const struct row *row = reader.error == 0 ? find_row(name) : NULL;
        int r = row == NULL ? BB_EINVAL : 0;
        if (r == 0 && bb_mp_peek_type(&reader) == BB_MP_NIL) {
            bb_mp_skip(&reader);
            reset(row, defaults, &changed);
        } else if (r == 0) {
            r = read_member(&reader, row, &changed);
        }
        if (r < 0) {
            bb_buf_printf(err, row == NULL ? "there is no setting \"%.*s\"" : "\"%.*s\" cannot be that",
                          (int)name.len, name.len > 0 ? (const char *)name.data : "");
            if (row != NULL && row->min > 1) {
                bb_buf_printf(err, "; it is %llu at least", (unsigned long long)row->min);
            }
            return BB_EINVAL;
        }
    }
    if (reader.error != 0) {
        bb_buf_printf(err, "settings are a map");
        return BB_EINVAL;
    }
    *settings = changed;
    return 0;
}

static void write_member(struct bb_buf *out, const struct row *row, const struct bk_settings *settings)
{
    const char *at = (const char *)settings + row->offset;
    uint64_t number = 0;
    bool flag = false;
    if (row->kind == KIND_STORE || row->kind == KIND_FLAG) {
        memcpy(&flag, at, sizeof(flag));
    } else {
        memcpy(&number, at, sizeof(number));
    }
    if (row->kind == KIND_STORE) {
        bb_mp_write_str(out, bb_slice_str(flag ? "log" : "memory"));
    } else if (row->kind == KIND_FLAG) {
        bb_mp_write_bool(out, flag);
    } else if (row->kind == KIND_OVERFLOW) {
        bb_mp_write_str(out, bb_slice_str(bk_overflow_name((enum bk_overflow)number)));
    } else if (row->has_limit && number == BK_NO_LIMIT) {
        bb_mp_write_nil(out);
    } else {
        bb_mp_write_uint(out, row->kind == KIND_MS ? number / 1000 : number);
    }
}

uint32_t bk_settings_write(struct bb_buf *out, const struct bk_settings *settings)
{
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        bb_mp_write_str(out, bb_slice_str(rows[i].name));
        write_member(out, &rows[i], settings);
    }
    return BB_COUNT(rows);
}
