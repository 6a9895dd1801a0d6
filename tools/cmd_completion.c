/* SPDX-License-Identifier: Apache-2.0 */
/* busbar completion: the completion of bash, written from the tables of commands and options. */
#include "tools/cmd.h"
#include "tools/print.h"

#include <string.h>

static void words_print(const struct option_row *rows)
{
    for (; rows->long_name != NULL; rows++) {
        (void)printf(" --%s", rows->long_name);
        if (rows->short_name != 0) {
            (void)printf(" -%c", rows->short_name);
        }
    }
}

/* One branch for each option whose argument is known: files and choices. */
static void arguments_print(const struct option_row *rows)
{
    for (; rows->long_name != NULL; rows++) {
        if (rows->choices != NULL) {
            (void)printf("    --%s) words='", rows->long_name);
            for (const struct option_choice *c = rows->choices; c->name != NULL; c++) {
                (void)printf("%s%s", c == rows->choices ? "" : " ", c->name);
            }
            (void)fputs("' ;;\n", stdout);
        } else if (rows->argument != NULL && strcmp(rows->argument, "FILE") == 0) {
            (void)printf("    --%s) mapfile -t COMPREPLY < <(compgen -f -- \"$word\"); return ;;\n",
                         rows->long_name);
        }
    }
}

static void bash_print(const struct common *common)
{
    (void)fputs(
        "# bash completion of busbar; written by 'busbar completion bash'\n"
        "_busbar()\n{\n"
        "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command='' words='' i\n"
        "    COMPREPLY=()\n"
        "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
        "        case ${COMP_WORDS[i]} in\n"
        "        ",
        stdout);
    for (const struct command *const *c = common->commands; *c != NULL; c++) {
        (void)printf("%s%s", c == common->commands ? "" : "|", (*c)->name);
    }
    (void)fputs(") command=${COMP_WORDS[i]}; break ;;\n        esac\n    done\n    case $command in\n",
                stdout);
    for (const struct command *const *c = common->commands; *c != NULL; c++) {
        (void)printf("    %s) words='", (*c)->name);
        words_print((*c)->options);
        (void)printf("%s%s' ;;\n", (*c)->words != NULL ? " " : "", (*c)->words != NULL ? (*c)->words : "");
    }
    (void)fputs("    esac\n    words+='", stdout);
    words_print(common->options);
    (void)fputs("'\n    if [[ -z $command || $command == help ]]; then\n        words+='", stdout);
    for (const struct command *const *c = common->commands; *c != NULL; c++) {
        (void)printf(" %s", (*c)->name);
    }
    (void)fputs("'\n    fi\n    case $before in\n", stdout);
    for (const struct command *const *c = common->commands; *c != NULL; c++) {
        arguments_print((*c)->options);
    }
    (void)fputs("    esac\n    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n}\n"
                "complete -o default -F _busbar busbar\n",
                stdout);
}

static int completion_run(const struct common *common, const void *values, char **operands)
{
    (void)values;
    if (strcmp(operands[0], "bash") != 0) {
        say("there is a completion for bash only");
        return STATUS_USAGE;
    }
    bash_print(common);
    return print_end();
}

static const struct option_row no_options[] = {{0}};

const struct command command_completion = {
    .name = "completion",
    .operands = "bash",
    .words = "bash",
    .summary = "print the completion script for a shell",
    .notes = "  source <(busbar completion bash)\n",
    .min_operands = 1,
    .max_operands = 1,
    .options = no_options,
    .defaults = "",
    .values_size = 1,
    .run = completion_run,
};
