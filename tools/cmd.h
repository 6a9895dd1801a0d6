/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a command of `busbar` is: a row of the table in tools/main.c, with its options, their defaults and the function
 * that runs it.
 */
#pragma once

#include "tools/options.h"

enum exit_status {
    STATUS_OK = 0,
    STATUS_FAILURE = 1,
    STATUS_USAGE = 2,
    STATUS_CONNECT = 3, /* no broker could be reached */
    STATUS_REFUSED = 4, /* the broker said no */
    STATUS_TIMEOUT = 5, /* the time was over before what was asked for had come */
    STATUS_GAP = 6,     /* sub --strict saw a gap */
    STATUS_NOBODY = 7,  /* nobody subscribes to it */
    STATUS_SIGNAL = 128,
};

struct command;

/* The tables of the command, and the values of the options that every command has. */
struct common {
    const struct command *const *commands; /* in the order of the help; ends with NULL */
    const struct option_row *options;
    const char *url;
    int64_t connect_timeout_us;
    bool quiet;
    bool help;
    bool version;
};

struct command {
    const char *name;
    const char *operands; /* as shown behind the name */
    const char *words;    /* those of the first operand that can be named, for completion; NULL for none */
    const char *summary;
    const char *notes; /* lines shown below the options; NULL for none */
    size_t min_operands;
    size_t max_operands;
    const struct option_row *options;
    const void *defaults; /* of the struct that the options fill */
    size_t values_size;
    /* Returns an exit status. `operands` ends with NULL. */
    int (*run)(const struct common *common, const void *values, char **operands);
};

extern const struct command command_pub;
extern const struct command command_sub;
extern const struct command command_query;
extern const struct command command_channel;
extern const struct command command_log;
extern const struct command command_ping;
extern const struct command command_status;
extern const struct command command_bench;
extern const struct command command_completion;
extern const struct command command_help;
