/* SPDX-License-Identifier: Apache-2.0 */
/* Queries as maps: every member there and back, each mistake named. */
#include "proto/base/error.h"
#include "proto/json/json_value.h"
#include "proto/wire/mp.h"
#include "proto/wire/query.h"
#include "proto/wire/where.h"

#include <criterion/criterion.h>

/* The map of @json; the caller ends it. */
static struct bb_buf map_of(const char *json)
{
    struct bb_buf map = BB_BUF_INIT;
    cr_assert_eq(bb_json_value_to_mp(json, strlen(json), &map, NULL), 0, "%s", json);
    return map;
}

/* @slice is the MessagePack of @json. */
static void check_value(struct bb_slice slice, const char *json)
{
    struct bb_buf value = map_of(json);
    cr_assert(bb_slice_equal(slice, bb_buf_slice(&value)), "%s", json);
    bb_buf_fini(&value);
}

static void check_same(const char *json)
{
    struct bb_buf map = map_of(json);
    struct bb_buf again = BB_BUF_INIT;
    struct bb_buf err = BB_BUF_INIT;
    struct bb_query query;
    cr_assert_eq(bb_query_read(bb_buf_slice(&map), &query, &err), 0, "%s: %s", json, bb_buf_string(&err));
    cr_assert_eq(err.len, 0, "%s", json);
    bb_query_write(&again, &query);
    cr_assert_eq(again.error, 0);
    cr_assert(bb_slice_equal(bb_buf_slice(&map), bb_buf_slice(&again)), "%s", json);
    bb_buf_fini(&map);
    bb_buf_fini(&again);
    bb_buf_fini(&err);
}

/* The sentence contains @what. */
static void check_refused(struct bb_slice map, int error, const char *what)
{
    struct bb_buf err = BB_BUF_INIT;
    struct bb_query query = {.max_results = 77};
    cr_assert_eq(bb_query_read(map, &query, &err), error, "%s", what);
    cr_assert_not_null(strstr(bb_buf_string(&err), what), "%s: %s", what, bb_buf_string(&err));
    cr_assert_eq(query.max_results, 77, "%s", what);
    cr_assert_eq(bb_query_read(map, &query, NULL), error);
    bb_buf_fini(&err);
}

static void check_refused_json(const char *json, int error, const char *what)
{
    struct bb_buf map = map_of(json);
    check_refused(bb_buf_slice(&map), error, what);
    bb_buf_fini(&map);
}

Test(query, an_empty_map_is_the_defaults)
{
    struct bb_query query = {.has_server = true};
    cr_assert_eq(bb_query_read(bb_slice("\x80", 1), &query, NULL), 0);
    cr_assert_eq(query.kind, BB_QUERY_TIMESERIES);
    cr_assert_eq(query.order, BB_ORDER_DESCENDING);
    cr_assert_eq(query.order_by, BB_ORDER_BY_TIME);
    cr_assert_eq(query.max_results, BB_QUERY_RESULTS_DEFAULT);
    cr_assert_not(query.has_server || query.has_session || query.has_after || query.unique_type);
    cr_assert_not(query.has_t_from || query.has_t_to || query.has_source_t_from || query.has_source_t_to);
    cr_assert_eq(query.patterns.len + query.ids.len + query.payload.len + query.where.len, 0);
    check_same("{}");
}

Test(query, every_member_is_read)
{
    struct bb_buf map = map_of(
        "{\"max\":65536,\"after\":[1,2,3],\"unique\":true,\"where\":\".a > 1\",\"payload\":{\"x\":null},"
        "\"ids\":[[1,2,3],[4,5,6]],\"session\":9,\"server\":8,\"source_t_to\":4,\"source_t_from\":-3,"
        "\"t_to\":2,\"t_from\":-1,\"types\":[\"a/?\",\"b/*\"],\"order_by\":\"source_time\","
        "\"order\":\"ascending\",\"kind\":\"server\"}");
    struct bb_query query;
    cr_assert_eq(bb_query_read(bb_buf_slice(&map), &query, NULL), 0);
    cr_assert_eq(query.kind, BB_QUERY_SERVER);
    cr_assert_eq(query.order, BB_ORDER_ASCENDING);
    cr_assert_eq(query.order_by, BB_ORDER_BY_SOURCE_TIME);
    cr_assert(query.has_t_from && query.t_from == -1);
    cr_assert(query.has_t_to && query.t_to == 2);
    cr_assert(query.has_source_t_from && query.source_t_from == -3);
    cr_assert(query.has_source_t_to && query.source_t_to == 4);
    cr_assert(query.has_server && query.server == 8);
    cr_assert(query.has_session && query.session == 9);
    cr_assert(query.has_after && query.after.server == 1 && query.after.session == 2 &&
              query.after.instance == 3);
    cr_assert(query.unique_type);
    cr_assert_eq(query.max_results, BB_QUERY_RESULTS_MAX);
    cr_assert(bb_slice_equal(query.where, bb_slice_str(".a > 1")));
    check_value(query.patterns, "[\"a/?\",\"b/*\"]");
    check_value(query.ids, "[[1,2,3],[4,5,6]]");
    check_value(query.payload, "{\"x\":null}");
    bb_buf_fini(&map);
}

Test(query, what_is_read_is_written)
{
    static const char *const maps[] = {
        "{\"kind\":\"latest\"}",
        "{\"kind\":\"server\",\"server\":0}",
        "{\"order\":\"ascending\"}",
        "{\"order_by\":\"source_time\"}",
        "{\"types\":[\"\"]}",
        "{\"types\":[\"a\",\"*\"]}",
        "{\"t_from\":0}",
        "{\"t_to\":-9223372036854775808}",
        "{\"source_t_from\":9223372036854775807}",
        "{\"source_t_to\":-1}",
        "{\"server\":{\"$uint\":\"18446744073709551615\"},\"session\":0}",
        "{\"ids\":[[0,0,0]]}",
        "{\"payload\":null}",
        "{\"payload\":{\"$binary\":\"\"}}",
        "{\"where\":\".a && !.b\"}",
        "{\"unique\":true}",
        "{\"after\":[0,0,0]}",
        "{\"order_by\":\"source_time\",\"after\":[0,0,0],\"after_source_t\":-1}",
        "{\"kind\":\"latest\",\"after_path\":\"\"}",
        "{\"kind\":\"latest\",\"after_path\":\"a/b\"}",
        "{\"max\":1}",
        "{\"kind\":\"server\",\"order\":\"ascending\",\"order_by\":\"source_time\",\"types\":[\"a\"],\"t_from\":1,"
        "\"t_to\":2,\"source_t_from\":3,\"source_t_to\":4,\"server\":5,\"session\":6,\"ids\":[[7,8,9]],"
        "\"payload\":[1],\"where\":\".\",\"unique\":true,\"after\":[1,2,3],\"max\":10}",
    };
    for (size_t i = 0; i < BB_COUNT(maps); i++) {
        check_same(maps[i]);
    }
}

Test(query, nil_and_defaults_are_left_out)
{
    struct bb_buf map =
        map_of("{\"kind\":\"timeseries\",\"order\":null,\"types\":null,\"t_from\":null,\"ids\":null,"
               "\"where\":null,\"unique\":false,\"after\":null,\"max\":4096,\"server\":null}");
    struct bb_query query;
    struct bb_buf out = BB_BUF_INIT;
    cr_assert_eq(bb_query_read(bb_buf_slice(&map), &query, NULL), 0);
    bb_query_write(&out, &query);
    check_value(bb_buf_slice(&out), "{}");
    bb_buf_fini(&out);
    bb_buf_fini(&map);
}

Test(query, mistakes_name_their_member)
{
    static const struct {
        const char *json;
        const char *what;
    } mistakes[] = {
        {"[]", "map"},
        {"null", "map"},
        {"{\"kinds\":1}", "kinds"},
        {"{\"kind\":\"newest\"}", "kind"},
        {"{\"kind\":0}", "kind"},
        {"{\"kind\":\"server\"}", "server"},
        {"{\"kind\":\"server\",\"server\":null}", "server"},
        {"{\"order\":\"latest\"}", "order"},
        {"{\"order\":\"\"}", "order"},
        {"{\"order_by\":\"payload\"}", "order_by"},
        {"{\"types\":\"a\"}", "types"},
        {"{\"types\":[]}", "types"},
        {"{\"t_from\":1.5}", "t_from"},
        {"{\"t_to\":\"now\"}", "t_to"},
        {"{\"source_t_from\":{\"$uint\":\"9223372036854775808\"}}", "source_t_from"},
        {"{\"source_t_to\":[]}", "source_t_to"},
        {"{\"server\":-1}", "server"},
        {"{\"session\":\"1\"}", "session"},
        {"{\"ids\":[]}", "ids"},
        {"{\"ids\":[1,2,3]}", "ids"},
        {"{\"ids\":[[1,2]]}", "ids"},
        {"{\"ids\":[[1,2,3,4]]}", "ids"},
        {"{\"ids\":[[1,2,-3]]}", "ids"},
        {"{\"ids\":{}}", "ids"},
        {"{\"where\":1}", "where"},
        {"{\"where\":\"\"}", "where"},
        {"{\"where\":\".a =\"}", "\"where\" at column 4"},
        {"{\"unique\":1}", "unique"},
        {"{\"after\":[1,2]}", "after"},
        {"{\"after_path\":\"a/?\"}", "after_path"},
        {"{\"kind\":\"latest\",\"after\":[1,2,3]}", "after_path"},
        {"{\"order_by\":\"source_time\",\"after\":[1,2,3]}", "after_source_t"},
        {"{\"after\":[1,2,3,4]}", "after"},
        {"{\"after\":1}", "after"},
        {"{\"max\":0}", "max"},
        {"{\"max\":65537}", "max"},
        {"{\"max\":-1}", "max"},
        {"{\"$map\":[[1,2]]}", "member"},
        {"{\"$map\":[[\"max\",1],[\"max\",1]]}", "twice"},
        {"{\"$map\":[[\"max\",null],[\"max\",1]]}", "twice"},
    };
    for (size_t i = 0; i < BB_COUNT(mistakes); i++) {
        check_refused_json(mistakes[i].json, BB_EINVAL, mistakes[i].what);
    }
    check_refused_json("{\"types\":[\"a\",\"b?\"]}", BB_EPATTERN, "types");
    check_refused_json("{\"types\":[1]}", BB_EPATTERN, "types");
}

/* Whatever is wrong with a condition, it is an argument that is. */
Test(query, conditions_beyond_their_bounds_are_bad_arguments)
{
    static char text[BB_WHERE_MAX + 1];
    memset(text, '(', sizeof(text));
    for (size_t len = 40; len <= sizeof(text); len += sizeof(text) - 40) {
        struct bb_buf map = BB_BUF_INIT;
        bb_mp_write_map(&map, 1);
        bb_mp_write_str(&map, bb_slice_str("where"));
        bb_mp_write_str(&map, bb_slice(text, len));
        check_refused(bb_buf_slice(&map), BB_EINVAL, "where");
        bb_buf_fini(&map);
    }
}

static struct bb_buf with_ids(uint32_t n)
{
    struct bb_buf map = BB_BUF_INIT;
    bb_mp_write_map(&map, 1);
    bb_mp_write_str(&map, bb_slice_str("ids"));
    bb_mp_write_array(&map, n);
    for (uint32_t i = 0; i < n; i++) {
        bb_mp_write_array(&map, 3);
        bb_mp_write_uint(&map, 1);
        bb_mp_write_uint(&map, i);
        bb_mp_write_uint(&map, 2);
    }
    return map;
}

Test(query, ids_are_bounded)
{
    struct bb_query query;
    struct bb_buf most = with_ids(BB_QUERY_IDS_MAX);
    struct bb_buf more = with_ids(BB_QUERY_IDS_MAX + 1);
    cr_assert_eq(bb_query_read(bb_buf_slice(&most), &query, NULL), 0);
    check_refused(bb_buf_slice(&more), BB_EINVAL, "ids");
    bb_buf_fini(&most);
    bb_buf_fini(&more);
}

Test(query, a_map_cut_short_or_with_more_behind_it_is_refused)
{
    struct bb_buf map =
        map_of("{\"kind\":\"server\",\"server\":5,\"ids\":[[1,2,3]],\"where\":\".a\",\"max\":10}");
    struct bb_query query;
    for (size_t len = 0; len < map.len; len++) {
        uint8_t *copy = malloc(len > 0 ? len : 1);
        cr_assert_not_null(copy);
        memcpy(copy, map.data, len);
        cr_assert_eq(bb_query_read(bb_slice(copy, len), &query, NULL), BB_EINVAL, "%zu", len);
        free(copy);
    }
    bb_mp_write_nil(&map);
    check_refused(bb_buf_slice(&map), BB_EINVAL, "map");
    bb_buf_fini(&map);
}
