/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/state.h"

#include <stdarg.h>
#include <stdio.h>

void bk_note(struct bk_core *core, enum bk_log_level level, const char *id, const char *format, ...)
{
    char text[512];
    if (core->out->log == NULL) {
        return;
    }
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    core->out->log(core->out->context, level, id, text);
}
