/* SPDX-License-Identifier: Apache-2.0 */
/* Instants and ids as a person types them. */
#include "proto/base/cc.h"
#include "proto/base/time.h"

#include "tools/operands.h"

#include <criterion/criterion.h>

Test(operands, instants)
{
    int64_t us = 0;
    int64_t ago = 0;
    static const char *const wrong[] = {"", " ago", "10", "10 ago", "10m agos", "yesterday", "10m  ago"};
    cr_assert(when_parse("1970-01-01T00:00:01Z", &us));
    cr_expect_eq(us, 1000000);
    cr_assert(when_parse("10m", &us));
    cr_assert(when_parse("10m ago", &ago));
    cr_expect_leq(us, ago);
    cr_expect_leq(us, bb_clock_wall_us() - 600 * BB_US_PER_S);
    for (size_t i = 0; i < BB_COUNT(wrong); i++) {
        cr_expect_not(when_parse(wrong[i], &us), "'%s'", wrong[i]);
    }
}

Test(operands, ids)
{
    struct bb_event_id id = {0, 0, 0};
    static const char *const wrong[] = {"",
                                        "1/2",
                                        "1/2/",
                                        "/2/3",
                                        "1//3",
                                        "1/2/3/4",
                                        "1/2/3/",
                                        "a/2/3",
                                        "-1/2/3",
                                        "1/2/18446744073709551616",
                                        "1/2/111111111111111111111111111111"};
    cr_assert(event_id_parse("1/18446744073709551615/3", &id));
    cr_expect(id.server == 1 && id.session == UINT64_MAX && id.instance == 3);
    for (size_t i = 0; i < BB_COUNT(wrong); i++) {
        cr_expect_not(event_id_parse(wrong[i], &id), "'%s'", wrong[i]);
    }
}
