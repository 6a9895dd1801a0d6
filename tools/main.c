/* SPDX-License-Identifier: Apache-2.0 */
/* The command `busbar`: the table of its commands, and what they have in common. */
#include "proto/base/cc.h"
#include "proto/base/time.h"

#include "tools/cmd.h"
#include "tools/print.h"

#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const struct command *const commands[] = {
    &command_pub,    &command_sub,   &command_query,      &command_channel, &command_log, &command_ping,
    &command_status, &command_bench, &command_completion, &command_help,    NULL,
};

static const struct option_row common_options[] = {
    {'u', OPTION_TEXT, "url", "URL", "the broker; several by commas; also $BUSBAR_URL",
     offsetof(struct common, url), NULL},
    {0, OPTION_DURATION, "connect-timeout", "TIME", "how long to try to reach it (5s)",
     offsetof(struct common, connect_timeout_us), NULL},
    {'q', OPTION_FLAG, "quiet", NULL, "only errors and gaps on stderr", offsetof(struct common, quiet), NULL},
    {'h', OPTION_FLAG, "help", NULL, "this help", offsetof(struct common, help), NULL},
    {'V', OPTION_FLAG, "version", NULL, "the version", offsetof(struct common, version), NULL},
    {0},
};

static void help_print(FILE *to)
{
    (void)fputs("busbar - publish to a message bus and subscribe to it\n\nusage: busbar COMMAND ...\n\n", to);
    for (const struct command *const *c = commands; *c != NULL; c++) {
        (void)fprintf(to, "  %-12s%s\n", (*c)->name, (*c)->summary);
    }
    (void)fputs("\noptions of every command, before or after its name:\n", to);
    options_print(to, common_options);
    (void)fputs("\n'busbar help COMMAND' tells more. Without a url the command asks the local broker.\n"
                "\nexit status: 0 done, 1 failure, 2 usage, 3 no broker there, 4 refused by the broker,\n"
                "5 the time was over first, 6 a gap with --strict, 7 nobody subscribes\n",
                to);
}

static void command_print(FILE *to, const struct command *command)
{
    (void)fprintf(to, "busbar %s - %s\n\nusage: busbar %s [option...]%s%s\n", command->name, command->summary,
                  command->name, command->operands[0] != '\0' ? " " : "", command->operands);
    if (command->options[0].long_name != NULL) {
        (void)fputc('\n', to);
        options_print(to, command->options);
    }
    (void)fputs("\noptions of every command:\n", to);
    options_print(to, common_options);
    if (command->notes != NULL) {
        (void)fprintf(to, "\n%s", command->notes);
    }
}

static const struct command *command_find(const char *name)
{
    for (const struct command *const *c = commands; *c != NULL; c++) {
        if (strcmp((*c)->name, name) == 0) {
            return *c;
        }
    }
    say("there is no command '%s'; 'busbar help' lists them", name);
    return NULL;
}

static int usage_status(const struct command *command)
{
    say("usage: busbar %s [option...] %s; 'busbar help %s' tells more", command->name, command->operands,
        command->name);
    return STATUS_USAGE;
}

static int version_print(void)
{
    (void)puts("busbar " BUSBAR_VERSION);
    return print_end();
}

static int
command_run(const struct command *command, struct common *common, void *values, char **words, size_t n)
{
    const struct option_set sets[] = {{command->options, values}, {common_options, common}};
    size_t n_operands;
    if (!options_parse(words, n, sets, BB_COUNT(sets), false, &n_operands)) {
        return usage_status(command);
    }
    words[n_operands] = NULL;
    if (common->help) {
        command_print(stdout, command);
        return print_end();
    }
    if (common->version) {
        return version_print();
    }
    if (n_operands < command->min_operands || n_operands > command->max_operands) {
        say("%s",
            n_operands < command->min_operands ? "an operand is missing" : "there are too many operands");
        return usage_status(command);
    }
    return command->run(common, values, words);
}

static int help_run(const struct common *common, const void *values, char **operands)
{
    (void)common;
    (void)values;
    if (operands[0] == NULL) {
        help_print(stdout);
        return print_end();
    }
    const struct command *command = command_find(operands[0]);
    if (command == NULL) {
        return STATUS_USAGE;
    }
    command_print(stdout, command);
    return print_end();
}

static const struct option_row no_options[] = {{0}};

const struct command command_help = {
    .name = "help",
    .operands = "[COMMAND]",
    .summary = "explain a command",
    .max_operands = 1,
    .options = no_options,
    .defaults = "",
    .values_size = 1,
    .run = help_run,
};

int main(int argc, char **argv)
{
    struct common common = {
        .commands = commands, .options = common_options, .connect_timeout_us = 5 * BB_US_PER_S};
    const struct option_set set = {common_options, &common};
    char **words = argv + 1;
    size_t n;
    /* A closed pipe is an error of write(), not the death of the process. */
    (void)signal(SIGPIPE, SIG_IGN);
    if (!options_parse(words, argc > 0 ? (size_t)argc - 1 : 0, &set, 1, true, &n)) {
        return STATUS_USAGE;
    }
    if (n == 0 && common.version) {
        return version_print();
    }
    if (n == 0) {
        help_print(common.help ? stdout : stderr);
        return common.help ? print_end() : STATUS_USAGE;
    }
    const struct command *command = command_find(words[0]);
    if (command == NULL) {
        return STATUS_USAGE;
    }
    void *values = malloc(command->values_size);
    if (values == NULL) {
        say("out of memory");
        return STATUS_FAILURE;
    }
    memcpy(values, command->defaults, command->values_size);
    int status = command_run(command, &common, values, words + 1, n - 1);
    free(values);
    return status;
}
