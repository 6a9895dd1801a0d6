/* SPDX-License-Identifier: Apache-2.0 */
/* Reads command lines by tables of options. */
#include "tools/options.h"

#include "proto/base/buf.h"
#include "proto/base/time.h"

#include "tools/print.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define HELP_COLUMN 28

/* --- values --------------------------------------------------------------------------------------- */

bool option_parse_count(const char *text, uint64_t *ret_value)
{
    uint64_t value = 0;
    if (*text == '\0') {
        return false;
    }
    for (const char *p = text; *p != '\0'; p++) {
        if (*p < '0' || *p > '9') {
            return false;
        }
        if (__builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (unsigned int)(*p - '0'), &value)) {
            return false;
        }
    }
    *ret_value = value;
    return true;
}

static bool size_parse(const char *text, uint64_t *ret_value)
{
    static const char units[] = "KMGT";
    char digits[24];
    size_t len = strlen(text);
    unsigned int shift = 0;
    const char *unit = len > 0 ? strchr(units, toupper((unsigned char)text[len - 1])) : NULL;
    if (unit != NULL) {
        shift = 10u * (unsigned int)(unit - units + 1);
        len--;
    }
    if (len >= sizeof(digits)) {
        return false;
    }
    memcpy(digits, text, len);
    digits[len] = '\0';
    uint64_t value;
    if (!option_parse_count(digits, &value) || value == 0 || value > UINT64_MAX >> shift) {
        return false;
    }
    *ret_value = value << shift;
    return true;
}

static bool integer_parse(const char *text, int32_t *ret_value)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || value < INT32_MIN || value > INT32_MAX) {
        return false;
    }
    *ret_value = (int32_t)value;
    return true;
}

static bool rate_parse(const char *text, double *ret_value)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value) || value <= 0) {
        return false;
    }
    *ret_value = value;
    return true;
}

static bool choice_parse(const struct option_choice *choices, const char *text, int *ret_value)
{
    for (; choices->name != NULL; choices++) {
        if (strcmp(choices->name, text) == 0) {
            *ret_value = choices->value;
            return true;
        }
    }
    return false;
}

static bool list_add(struct option_list *list, const char *text)
{
    if (list->n == OPTION_LIST_MAX) {
        return false;
    }
    list->items[list->n++] = text;
    return true;
}

static bool count_parse(const char *text, uint64_t *ret_value)
{
    uint64_t value;
    if (!option_parse_count(text, &value) || value == 0) {
        return false;
    }
    *ret_value = value;
    return true;
}

static bool value_set(const struct option_row *row, void *values, const char *text)
{
    void *to = (char *)values + row->offset;
    switch (row->kind) {
    case OPTION_FLAG:
        *(bool *)to = true;
        return true;
    case OPTION_TEXT:
        *(const char **)to = text;
        return true;
    case OPTION_COUNT:
        return count_parse(text, to);
    case OPTION_INTEGER:
        return integer_parse(text, to);
    case OPTION_RATE:
        return rate_parse(text, to);
    case OPTION_SIZE:
        return size_parse(text, to);
    case OPTION_DURATION:
        return bb_duration_parse(bb_slice_str(text), to) == 0;
    case OPTION_CHOICE:
        return choice_parse(row->choices, text, to);
    case OPTION_LIST:
        return list_add(to, text);
    }
    return false;
}

/* The names with commas between them; none for NULL. */
static void choices_write(struct bb_buf *out, const struct option_choice *choices)
{
    for (const struct option_choice *c = choices; c != NULL && c->name != NULL; c++) {
        bb_buf_printf(out, "%s%s", c == choices ? "" : ", ", c->name);
    }
}

/* What an argument of this row looks like, for a person who got it wrong. */
static void example_write(struct bb_buf *out, const struct option_row *row)
{
    static const char *const examples[] = {
        [OPTION_FLAG] = "nothing",
        [OPTION_TEXT] = "any text",
        [OPTION_COUNT] = "a whole number from 1",
        [OPTION_INTEGER] = "a whole number of 32 bits",
        [OPTION_RATE] = "a number above 0",
        [OPTION_SIZE] = "bytes such as 512, 64k, 16M or 2T",
        [OPTION_DURATION] = "a time such as 250ms, 2s or 1h30m",
        [OPTION_CHOICE] = "one of ",
        [OPTION_LIST] = "given at most 64 times",
    };
    bb_buf_printf(out, "%s", examples[row->kind]);
    choices_write(out, row->choices);
}

/* --- words ---------------------------------------------------------------------------------------- */

/* A row that was found, with the struct its value goes to. */
struct match {
    const struct option_row *row;
    void *values;
};

static bool long_find(const struct option_set *sets, size_t n, struct bb_slice name, struct match *ret_match)
{
    for (size_t i = 0; i < n; i++) {
        for (const struct option_row *row = sets[i].rows; row->long_name != NULL; row++) {
            if (bb_slice_equal(bb_slice_str(row->long_name), name)) {
                *ret_match = (struct match){row, sets[i].values};
                return true;
            }
        }
    }
    return false;
}

static bool short_find(const struct option_set *sets, size_t n, char name, struct match *ret_match)
{
    for (size_t i = 0; i < n; i++) {
        for (const struct option_row *row = sets[i].rows; row->long_name != NULL; row++) {
            if (row->short_name != 0 && row->short_name == name) {
                *ret_match = (struct match){row, sets[i].values};
                return true;
            }
        }
    }
    return false;
}

static bool match_set(const struct match *match, const char *text)
{
    if (match->row->kind != OPTION_FLAG && text == NULL) {
        say("--%s needs an argument: %s", match->row->long_name, match->row->argument);
        return false;
    }
    if (!value_set(match->row, match->values, text)) {
        struct bb_buf example = BB_BUF_INIT;
        example_write(&example, match->row);
        say("--%s cannot be '%s': it is %s", match->row->long_name, text, bb_buf_string(&example));
        bb_buf_fini(&example);
        return false;
    }
    return true;
}

/* One word `--name` or `--name=value`, @next being the word behind it; sets how many words were used. */
static bool
long_parse(const struct option_set *sets, size_t n_sets, const char *word, const char *next, size_t *ret_used)
{
    const char *name = word + 2;
    const char *equals = strchr(name, '=');
    size_t len = equals != NULL ? (size_t)(equals - name) : strlen(name);
    struct match match;
    if (!long_find(sets, n_sets, bb_slice(name, len), &match)) {
        say("there is no option --%.*s", (int)len, name);
        return false;
    }
    bool flag = match.row->kind == OPTION_FLAG;
    if (flag && equals != NULL) {
        say("--%s takes no argument", match.row->long_name);
        return false;
    }
    *ret_used = flag || equals != NULL ? 1 : 2;
    return match_set(&match, equals != NULL ? equals + 1 : next);
}

/* One word of short options, the last of which may have its argument behind it or in @next. */
static bool short_parse(const struct option_set *sets,
                        size_t n_sets,
                        const char *word,
                        const char *next,
                        size_t *ret_used)
{
    for (const char *p = word + 1; *p != '\0'; p++) {
        struct match match;
        if (!short_find(sets, n_sets, *p, &match)) {
            say("there is no option -%c", *p);
            return false;
        }
        if (match.row->kind != OPTION_FLAG) {
            *ret_used = p[1] != '\0' ? 1 : 2;
            return match_set(&match, p[1] != '\0' ? p + 1 : next);
        }
        if (!match_set(&match, NULL)) {
            return false;
        }
    }
    *ret_used = 1;
    return true;
}

static bool is_option(const char *word)
{
    return word[0] == '-' && word[1] != '\0' && (word[1] < '0' || word[1] > '9');
}

bool options_parse(char **argv,
                   size_t argc,
                   const struct option_set *sets,
                   size_t n_sets,
                   bool stop,
                   size_t *ret_operands)
{
    size_t operands = 0;
    bool ended = false;
    for (size_t i = 0; i < argc;) {
        const char *word = argv[i];
        if (ended || !is_option(word)) {
            argv[operands++] = argv[i++];
            ended = ended || stop;
            continue;
        }
        if (strcmp(word, "--") == 0) {
            ended = true;
            i++;
            continue;
        }
        const char *next = i + 1 < argc ? argv[i + 1] : NULL;
        size_t used;
        bool done = word[1] == '-' ? long_parse(sets, n_sets, word, next, &used)
                                   : short_parse(sets, n_sets, word, next, &used);
        if (!done) {
            return false;
        }
        i += used;
    }
    *ret_operands = operands;
    return true;
}

/* --- help ----------------------------------------------------------------------------------------- */

void options_print(FILE *to, const struct option_row *rows)
{
    struct bb_buf left = BB_BUF_INIT;
    struct bb_buf right = BB_BUF_INIT;
    for (const struct option_row *row = rows; row->long_name != NULL; row++) {
        bb_buf_reset(&left);
        bb_buf_reset(&right);
        if (row->short_name != 0) {
            bb_buf_printf(&left, "  -%c, --%s", row->short_name, row->long_name);
        } else {
            bb_buf_printf(&left, "      --%s", row->long_name);
        }
        if (row->argument != NULL) {
            bb_buf_printf(&left, " %s", row->argument);
        }
        bb_buf_printf(&right, "%s%s", row->help, row->choices != NULL ? ": " : "");
        choices_write(&right, row->choices);
        (void)fprintf(to, "%-*s  %s\n", HELP_COLUMN, bb_buf_string(&left), bb_buf_string(&right));
    }
    bb_buf_fini(&left);
    bb_buf_fini(&right);
}
