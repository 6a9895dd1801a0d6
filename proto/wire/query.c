/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/wire/query.h"

#include "proto/base/error.h"
#include "proto/wire/mp.h"
#include "proto/wire/path.h"
#include "proto/wire/scan.h"
#include "proto/wire/where.h"

#include <string.h>

enum kind {
    KIND_WORD,   /* one of `words` */
    KIND_NUMBER, /* uint64_t, and its has_ flag */
    KIND_TIME,   /* int64_t, and its has_ flag */
    KIND_FLAG,
    KIND_TEXT,
    KIND_PATH,
    KIND_VALUE, /* any value, as it is */
    KIND_PATTERNS,
    KIND_IDS,
    KIND_ID, /* struct bb_query_id, and its has_ flag */
    KIND_MAX,
};

#define AT(field) offsetof(struct bb_query, field)
#define NONE      SIZE_MAX

struct row {
    const char *name;
    enum kind kind;
    size_t offset;
    size_t has; /* offset of the flag, NONE */
    const char *words[3];
};

/* clang-format off */
static const struct row rows[] = {
    {"kind", KIND_WORD, AT(kind), NONE, {"timeseries", "latest", "server"}},
    {"order", KIND_WORD, AT(order), NONE, {"descending", "ascending", NULL}},
    {"order_by", KIND_WORD, AT(order_by), NONE, {"time", "source_time", NULL}},
    {"types", KIND_PATTERNS, AT(patterns), NONE, {NULL}},
    {"t_from", KIND_TIME, AT(t_from), AT(has_t_from), {NULL}},
    {"t_to", KIND_TIME, AT(t_to), AT(has_t_to), {NULL}},
    {"source_t_from", KIND_TIME, AT(source_t_from), AT(has_source_t_from), {NULL}},
    {"source_t_to", KIND_TIME, AT(source_t_to), AT(has_source_t_to), {NULL}},
    {"server", KIND_NUMBER, AT(server), AT(has_server), {NULL}},
    {"session", KIND_NUMBER, AT(session), AT(has_session), {NULL}},
    {"ids", KIND_IDS, AT(ids), NONE, {NULL}},
    {"payload", KIND_VALUE, AT(payload), NONE, {NULL}},
    {"where", KIND_TEXT, AT(where), NONE, {NULL}},
    {"unique", KIND_FLAG, AT(unique_type), NONE, {NULL}},
    {"after", KIND_ID, AT(after), AT(has_after), {NULL}},
    {"after_source_t", KIND_TIME, AT(after_source_t), AT(has_after_source_t), {NULL}},
    {"after_path", KIND_PATH, AT(after_path), NONE, {NULL}},
    {"max", KIND_MAX, AT(max_results), NONE, {NULL}},
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

/* --- reading -------------------------------------------------------------------------------------- */

static int read_word(struct bb_mp_reader *reader, const struct row *row, char *at)
{
    struct bb_slice word = bb_mp_read_str(reader);
    for (size_t i = 0; i < BB_COUNT(row->words) && row->words[i] != NULL; i++) {
        if (bb_slice_equal(word, bb_slice_str(row->words[i]))) {
            unsigned value = (unsigned)i;
            memcpy(at, &value, sizeof(value));
            return 0;
        }
    }
    return BB_EINVAL;
}

_Static_assert(sizeof(enum bb_query_kind) == sizeof(unsigned), "words are stored as unsigned");

static struct bb_query_id read_id(struct bb_mp_reader *reader)
{
    struct bb_query_id id = {0};
    if (bb_mp_read_array(reader) != 3) {
        bb_mp_reader_fail(reader, BB_EINVAL);
        return id;
    }
    id.server = bb_mp_read_uint(reader);
    id.session = bb_mp_read_uint(reader);
    id.instance = bb_mp_read_uint(reader);
    return id;
}

static int check_patterns(struct bb_slice value)
{
    struct bb_mp_reader reader = bb_mp_reader(value);
    uint64_t n = bb_mp_peek_type(&reader) == BB_MP_ARRAY ? bb_mp_read_array(&reader) : 0;
    for (uint64_t i = 0; i < n; i++) {
        struct bb_slice pattern = bb_mp_read_str(&reader);
        if (reader.error != 0 || bb_pattern_check(pattern) < 0) {
            return BB_EPATTERN;
        }
    }
    return n > 0 ? 0 : BB_EINVAL;
}

static int check_ids(struct bb_slice value)
{
    struct bb_mp_reader reader = bb_mp_reader(value);
    uint64_t n = bb_mp_peek_type(&reader) == BB_MP_ARRAY ? bb_mp_read_array(&reader) : 0;
    if (n == 0 || n > BB_QUERY_IDS_MAX) {
        return BB_EINVAL;
    }
    for (uint64_t i = 0; i < n && reader.error == 0; i++) {
        (void)read_id(&reader);
    }
    return reader.error != 0 ? BB_EINVAL : 0;
}

static int check_where(struct bb_slice text, struct bb_buf *err)
{
    struct bb_where *where = NULL;
    size_t before = err != NULL ? err->len : 0;
    if (err != NULL) {
        bb_buf_printf(err, "\"where\" ");
    }
    int r = bb_where_parse(text, &where, err);
    bb_where_free(where);
    if (err != NULL && (r == 0 || r == BB_ENOMEM)) {
        err->len = before;
    }
    return r == 0 || r == BB_ENOMEM ? r : BB_EINVAL;
}

static int read_slice(struct bb_mp_reader *reader, const struct row *row, char *at, struct bb_buf *err)
{
    bool is_text = row->kind == KIND_TEXT || row->kind == KIND_PATH;
    struct bb_slice value = is_text ? bb_mp_read_str(reader) : bb_mp_read_raw(reader);
    int r = reader->error != 0 ? BB_EINVAL : 0;
    if (r == 0 && row->kind == KIND_PATTERNS) {
        r = check_patterns(value);
    } else if (r == 0 && row->kind == KIND_IDS) {
        r = check_ids(value);
    } else if (r == 0 && row->kind == KIND_TEXT) {
        r = check_where(value, err);
    } else if (r == 0 && row->kind == KIND_PATH) {
        r = bb_path_check(value) < 0 ? BB_EINVAL : 0;
    }
    memcpy(at, &value, sizeof(value));
    return r;
}

static int
read_member(struct bb_mp_reader *reader, const struct row *row, struct bb_query *query, struct bb_buf *err)
{
    char *at = (char *)query + row->offset;
    int r = 0;
    if (row->kind == KIND_WORD) {
        r = read_word(reader, row, at);
    } else if (row->kind == KIND_NUMBER || row->kind == KIND_MAX) {
        uint64_t number = bb_mp_read_uint(reader);
        memcpy(at, &number, sizeof(number));
        r = row->kind == KIND_MAX && (number == 0 || number > BB_QUERY_RESULTS_MAX) ? BB_EINVAL : 0;
    } else if (row->kind == KIND_TIME) {
        int64_t time = bb_mp_read_int(reader);
        memcpy(at, &time, sizeof(time));
    } else if (row->kind == KIND_FLAG) {
        bool flag = bb_mp_read_bool(reader);
        memcpy(at, &flag, sizeof(flag));
    } else if (row->kind == KIND_ID) {
        struct bb_query_id id = read_id(reader);
        memcpy(at, &id, sizeof(id));
    } else {
        r = read_slice(reader, row, at, err);
    }
    if (row->has != NONE) {
        *(bool *)((char *)query + row->has) = true;
    }
    return reader->error != 0 ? BB_EINVAL : r;
}

static int refuse(struct bb_buf *err, int error, struct bb_slice name, const char *what)
{
    if (err != NULL && err->len == 0) {
        bb_buf_printf(err, "\"%.*s\" %s", (int)BB_MIN(name.len, 64),
                      name.len > 0 ? (const char *)name.data : "", what);
    }
    return error;
}

int bb_query_read(struct bb_slice map, struct bb_query *ret_query, struct bb_buf *err)
{
    struct bb_mp_reader reader = bb_mp_reader(map);
    struct bb_query query = BB_QUERY_INIT;
    uint32_t seen = 0;
    if (bb_scan_whole(map.data, map.len, NULL) < 0 || bb_mp_peek_type(&reader) != BB_MP_MAP) {
        return refuse(err, BB_EINVAL, bb_slice_str("query"), "is not a map");
    }
    uint64_t n = bb_mp_read_map(&reader);
    for (uint64_t i = 0; i < n; i++) {
        struct bb_slice name = bb_mp_read_str(&reader);
        const struct row *row = reader.error == 0 ? find_row(name) : NULL;
        if (row == NULL) {
            return refuse(err, BB_EINVAL, name, "is not a member of a query");
        }
        uint32_t bit = UINT32_C(1) << (row - rows);
        if ((seen & bit) != 0) {
            return refuse(err, BB_EINVAL, name, "is there twice");
        }
        seen |= bit;
        if (bb_mp_peek_type(&reader) == BB_MP_NIL && row->kind != KIND_VALUE) {
            bb_mp_skip(&reader);
            continue;
        }
        int r = read_member(&reader, row, &query, err);
        if (r < 0) {
            return refuse(err, r, name, r == BB_EPATTERN ? "has a pattern that is none" : "cannot be that");
        }
    }
    if (query.kind == BB_QUERY_SERVER && !query.has_server) {
        return refuse(err, BB_EINVAL, bb_slice_str("server"), "is needed by a query of that kind");
    }
    if (query.kind == BB_QUERY_LATEST && query.has_after) {
        return refuse(err, BB_EINVAL, bb_slice_str("after"), "is not for the latest events: after_path is");
    }
    if (query.kind == BB_QUERY_TIMESERIES && query.order_by == BB_ORDER_BY_SOURCE_TIME && query.has_after &&
        !query.has_after_source_t) {
        return refuse(err, BB_EINVAL, bb_slice_str("after_source_t"),
                      "is needed beside after, by source time");
    }
    *ret_query = query;
    return 0;
}

/* --- writing -------------------------------------------------------------------------------------- */

static bool is_default(const struct row *row, const struct bb_query *query)
{
    static const struct bb_query defaults = {.max_results = BB_QUERY_RESULTS_DEFAULT};
    const char *at = (const char *)query + row->offset;
    const char *other = (const char *)&defaults + row->offset;
    if (row->has != NONE) {
        return !*(const bool *)((const char *)query + row->has);
    }
    switch (row->kind) {
    case KIND_WORD:
        return memcmp(at, other, sizeof(unsigned)) == 0;
    case KIND_FLAG:
        return memcmp(at, other, sizeof(bool)) == 0;
    case KIND_TEXT:
    case KIND_VALUE:
    case KIND_PATTERNS:
    case KIND_IDS:
        return ((const struct bb_slice *)(const void *)at)->len == 0;
    case KIND_PATH: /* the empty path is one */
        return ((const struct bb_slice *)(const void *)at)->data == NULL;
    case KIND_NUMBER:
    case KIND_TIME:
    case KIND_ID:
    case KIND_MAX:
        break;
    }
    return memcmp(at, other, sizeof(uint64_t)) == 0;
}

static void write_member(struct bb_buf *out, const struct row *row, const struct bb_query *query)
{
    const char *at = (const char *)query + row->offset;
    struct bb_slice slice = {0};
    struct bb_query_id id;
    uint64_t number = 0;
    int64_t time = 0;
    unsigned word = 0;
    switch (row->kind) {
    case KIND_WORD:
        memcpy(&word, at, sizeof(word));
        bb_mp_write_str(out, bb_slice_str(row->words[word]));
        break;
    case KIND_NUMBER:
    case KIND_MAX:
        memcpy(&number, at, sizeof(number));
        bb_mp_write_uint(out, number);
        break;
    case KIND_TIME:
        memcpy(&time, at, sizeof(time));
        bb_mp_write_int(out, time);
        break;
    case KIND_FLAG:
        bb_mp_write_bool(out, true);
        break;
    case KIND_TEXT:
    case KIND_PATH:
        memcpy(&slice, at, sizeof(slice));
        bb_mp_write_str(out, slice);
        break;
    case KIND_VALUE:
    case KIND_PATTERNS:
    case KIND_IDS:
        memcpy(&slice, at, sizeof(slice));
        bb_buf_append(out, slice.data, slice.len);
        break;
    case KIND_ID:
        memcpy(&id, at, sizeof(id));
        bb_mp_write_array(out, 3);
        bb_mp_write_uint(out, id.server);
        bb_mp_write_uint(out, id.session);
        bb_mp_write_uint(out, id.instance);
        break;
    }
}

void bb_query_write(struct bb_buf *out, const struct bb_query *query)
{
    uint32_t n = 0;
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        n += !is_default(&rows[i], query);
    }
    bb_mp_write_map(out, n);
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        if (!is_default(&rows[i], query)) {
            bb_mp_write_str(out, bb_slice_str(rows[i].name));
            write_member(out, &rows[i], query);
        }
    }
}
