/* SPDX-License-Identifier: Apache-2.0 */
/* Command lines by tables: words, clusters, operands, kinds of values. */
#include "proto/base/cc.h"

#include "tools/options.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <string.h>

struct values {
    bool quiet;
    bool verbose;
    const char *text;
    uint64_t count;
    int32_t integer;
    double rate;
    uint64_t size;
    int64_t duration;
    int choice;
    struct option_list list;
};

static const struct option_choice choices[] = {{"red", 3}, {"green", 5}, {NULL, 0}};

static const struct option_row rows[] = {
    {'q', OPTION_FLAG, "quiet", NULL, "say nothing", offsetof(struct values, quiet), NULL},
    {'v', OPTION_FLAG, "verbose", NULL, "say more", offsetof(struct values, verbose), NULL},
    {'t', OPTION_TEXT, "text", "TEXT", "any", offsetof(struct values, text), NULL},
    {'n', OPTION_COUNT, "count", "N", "how many", offsetof(struct values, count), NULL},
    {'i', OPTION_INTEGER, "integer", "N", "a number", offsetof(struct values, integer), NULL},
    {'r', OPTION_RATE, "rate", "N", "per second", offsetof(struct values, rate), NULL},
    {'s', OPTION_SIZE, "size", "BYTES", "how large", offsetof(struct values, size), NULL},
    {'d', OPTION_DURATION, "duration", "TIME", "how long", offsetof(struct values, duration), NULL},
    {'c', OPTION_CHOICE, "colour", "COLOUR", "which", offsetof(struct values, choice), choices},
    {0, OPTION_LIST, "also", "X", "more", offsetof(struct values, list), NULL},
    {0, OPTION_FLAG, NULL, NULL, NULL, 0, NULL},
};

#define WORDS_MAX 80

/* A command line being parsed; words are split at blanks. */
struct line {
    char text[1024];
    char *argv[WORDS_MAX + 1];
    size_t argc;
    size_t n_operands;
    struct values values;
};

static bool parse(struct line *line, const char *text, bool stop)
{
    char *rest = NULL;
    *line = (struct line){0};
    strncpy(line->text, text, sizeof(line->text) - 1);
    for (char *word = strtok_r(line->text, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        cr_assert_lt(line->argc, (size_t)WORDS_MAX);
        line->argv[line->argc++] = word;
    }
    const struct option_set set = {rows, &line->values};
    return options_parse(line->argv, line->argc, &set, 1, stop, &line->n_operands);
}

Test(options, all_spellings_mean_the_same)
{
    static const char *const spellings[] = {"-n5 -q",       "-n 5 -q", "--count 5 --quiet",
                                            "--count=5 -q", "-qn5",    "-qn 5"};
    for (size_t i = 0; i < BB_COUNT(spellings); i++) {
        struct line line;
        cr_assert(parse(&line, spellings[i], false), "%s", spellings[i]);
        cr_assert_eq(line.values.count, 5);
        cr_assert(line.values.quiet);
        cr_assert_not(line.values.verbose);
        cr_assert_eq(line.n_operands, 0);
    }
}

Test(options, operands_come_to_the_front_in_their_order)
{
    struct line line;
    cr_assert(parse(&line, "a -q b --count 2 -5 - c", false));
    cr_assert_eq(line.n_operands, 5);
    cr_assert_str_eq(line.argv[0], "a");
    cr_assert_str_eq(line.argv[1], "b");
    cr_assert_str_eq(line.argv[2], "-5");
    cr_assert_str_eq(line.argv[3], "-");
    cr_assert_str_eq(line.argv[4], "c");
}

Test(options, two_dashes_end_the_options)
{
    struct line line;
    cr_assert(parse(&line, "-q -- -v --count", false));
    cr_assert_eq(line.n_operands, 2);
    cr_assert_str_eq(line.argv[0], "-v");
    cr_assert_not(line.values.verbose);
}

Test(options, with_stop_the_first_operand_ends_them)
{
    struct line line;
    cr_assert(parse(&line, "-q sub -v", true));
    cr_assert_eq(line.n_operands, 2);
    cr_assert_str_eq(line.argv[1], "-v");
    cr_assert(line.values.quiet);
    cr_assert_not(line.values.verbose);
}

Test(options, each_kind_of_value_is_read)
{
    struct line line;
    cr_assert(parse(&line, "-t= -i -2147483648 -r 0.5 -s 64k -d 1h30m -c green --also x --also=y", false));
    cr_assert_str_eq(line.values.text, "=");
    cr_assert_eq(line.values.integer, INT32_MIN);
    cr_assert_float_eq(line.values.rate, 0.5, 1e-12);
    cr_assert_eq(line.values.size, 65536);
    cr_assert_eq(line.values.duration, INT64_C(5400000000));
    cr_assert_eq(line.values.choice, 5);
    cr_assert_eq(line.values.list.n, 2);
    cr_assert_str_eq(line.values.list.items[1], "y");
}

Test(options, what_is_wrong_is_refused_with_a_sentence)
{
    static const char *const wrong[] = {
        "-x",      "--colours red",
        "-n",      "--count",
        "-n 0",    "-n 1x",
        "-n -1",   "--quiet=1",
        "-i 1.5",  "-i 2147483648",
        "-r 0",    "-r inf",
        "-r nan",  "-r 1x",
        "-s 0",    "-s 1P",
        "-s k",    "-s 18446744073709551615k",
        "-d 5",    "-d x",
        "-c blue", "-c",
        "-qx",     "-n 18446744073709551616",
    };
    cr_redirect_stderr();
    for (size_t i = 0; i < BB_COUNT(wrong); i++) {
        struct line line;
        cr_assert_not(parse(&line, wrong[i], false), "%s", wrong[i]);
    }
}

Test(options, a_list_has_an_end)
{
    const struct option_set set = {rows, &(struct values){0}};
    char *argv[OPTION_LIST_MAX + 1];
    char word[] = "--also=x";
    size_t n_operands = 0;
    for (size_t i = 0; i <= OPTION_LIST_MAX; i++) {
        argv[i] = word;
    }
    cr_redirect_stderr();
    cr_assert(options_parse(argv, OPTION_LIST_MAX, &(struct option_set){rows, &(struct values){0}}, 1, false,
                            &n_operands));
    cr_assert_not(options_parse(argv, OPTION_LIST_MAX + 1, &set, 1, false, &n_operands));
}

Test(options, the_first_table_that_knows_a_name_gets_it)
{
    struct values first = {0};
    struct values second = {0};
    const struct option_set sets[] = {{rows, &first}, {rows, &second}};
    char word[] = "-q";
    char *argv[] = {word};
    size_t n_operands = 0;
    cr_assert(options_parse(argv, 1, sets, 2, false, &n_operands));
    cr_assert(first.quiet);
    cr_assert_not(second.quiet);
}

Test(options, help_has_a_line_for_each_row_with_its_choices)
{
    char text[4096] = "";
    FILE *to = fmemopen(text, sizeof(text), "w");
    cr_assert_not_null(to);
    options_print(to, rows);
    (void)fclose(to);
    cr_assert_not_null(strstr(text, "  -n, --count N"));
    cr_assert_not_null(strstr(text, "      --also X"));
    cr_assert_not_null(strstr(text, "which: red, green\n"));
    size_t n_lines = 0;
    for (const char *p = text; *p != '\0'; p++) {
        n_lines += *p == '\n';
    }
    cr_assert_eq(n_lines, BB_COUNT(rows) - 1);
}
