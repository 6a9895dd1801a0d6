/* SPDX-License-Identifier: Apache-2.0 */
/* Events as lines, and sentences for the person at the terminal. */
#include "tools/print.h"

#include "proto/base/buf.h"
#include "proto/json/json_text.h"

#include "tools/cmd.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    flockfile(stderr);
    (void)fputs("busbar: ", stderr);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see va_start() through a caller */
    (void)vfprintf(stderr, format, args);
    (void)fputc('\n', stderr);
    funlockfile(stderr);
    va_end(args);
}

/* Why stdout could not be written for the first time; 0: it could. */
static int stdout_errno;

static int judge_write(bool is_written)
{
    if (stdout_errno == 0 && !is_written) {
        stdout_errno = errno != 0 ? errno : EIO;
    }
    return stdout_errno == 0 ? 0 : stdout_errno == EPIPE ? BB_ECLOSED : BB_ESYSTEM;
}

int print_text(const char *text, size_t len)
{
    return judge_write(fwrite(text, 1, len, stdout) == len);
}

int print_flush(void)
{
    return judge_write(fflush(stdout) == 0 && ferror(stdout) == 0);
}

int print_status(int error)
{
    if (error == 0 || error == BB_ECLOSED) {
        return STATUS_OK;
    }
    if (error == BB_ESYSTEM) {
        errno = stdout_errno;
        say("cannot write to stdout: %m");
    } else {
        say("cannot print: %s", bb_strerror(error));
    }
    return STATUS_FAILURE;
}

int print_end(void)
{
    return print_status(print_flush());
}

/* Takes @text from the library, NULL when it had no memory. */
static int print_taken(char *text, size_t len)
{
    if (text == NULL) {
        return BB_ENOMEM;
    }
    int r = print_text(text, len);
    free(text);
    return r;
}

/* C0, DEL and C1, which a terminal may obey; C1 is 0xc2 0x80..0x9f in UTF-8. */
static bool has_control(struct bb_slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        bool c1 = c == 0xc2 && i + 1 < text.len && text.data[i + 1] < 0xa0;
        if (c < 0x20 || c == 0x7f || c1) {
            return true;
        }
    }
    return false;
}

/* JSON leaves DEL and C1 as they are; no terminal obeys them as \u00xx. */
static void escape_write(struct bb_buf *out, struct bb_slice text)
{
    bb_buf_append_byte(out, '"');
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (c == 0x7f) {
            bb_buf_printf(out, "\\u007f");
        } else if (c == 0xc2 && i + 1 < text.len && text.data[i + 1] < 0xa0) {
            bb_buf_printf(out, "\\u00%02x", text.data[++i]);
        } else {
            size_t from = i;
            while (i + 1 < text.len && text.data[i + 1] != 0x7f && text.data[i + 1] != 0xc2) {
                i++;
            }
            bb_json_write_escaped(out, bb_slice(text.data + from, i + 1 - from));
        }
    }
    bb_buf_append_byte(out, '"');
}

static int print_shown(struct bb_slice text)
{
    if (!has_control(text)) {
        return print_text((const char *)text.data, text.len);
    }
    struct bb_buf out = BB_BUF_INIT;
    escape_write(&out, text);
    int r = out.error != 0 ? out.error : print_text((const char *)out.data, out.len);
    bb_buf_fini(&out);
    return r;
}

static int print_payload(const struct bb_event *event)
{
    size_t len;
    char *json = bb_payload_json(event, &len);
    return print_taken(json, len);
}

static int print_human(const struct bb_event *event)
{
    int r = event->path_len > 0 ? print_shown(bb_slice(event->path, event->path_len)) : print_text("\"\"", 2);
    if (r == 0) {
        r = print_text(" ", 1);
    }
    if (r != 0) {
        return r;
    }
    return event->kind == BB_PAYLOAD_TEXT ? print_shown(bb_slice(event->data, event->len))
                                          : print_payload(event);
}

static int print_raw(const struct bb_event *event)
{
    bool as_is = event->kind == BB_PAYLOAD_TEXT || event->kind == BB_PAYLOAD_BINARY;
    return as_is ? print_text(event->data, event->len) : print_payload(event);
}

static int print_json(const struct bb_event *event)
{
    size_t len;
    char *json = bb_event_json(event, &len);
    return print_taken(json, len);
}

static void say_gap(const struct bb_gap *gap)
{
    if (gap->to == BB_UNKNOWN) {
        say("gap: channel '%s' from %" PRIu64 " on, nobody knows how much: %s", gap->channel, gap->from,
            gap->reason);
    } else if (gap->count == BB_UNKNOWN) {
        say("gap: channel '%s' %" PRIu64 " to %" PRIu64 ", nobody knows how many of them matched: %s",
            gap->channel, gap->from, gap->to, gap->reason);
    } else {
        say("gap: channel '%s' %" PRIu64 " to %" PRIu64 ", %" PRIu64 " events lost: %s", gap->channel,
            gap->from, gap->to, gap->count, gap->reason);
    }
}

int print_event(enum print_form form, const struct bb_event *event)
{
    int r = 0;
    if (event->gap != NULL && form != PRINT_JSON) {
        say_gap(event->gap);
        return 0;
    }
    if (event->is_retained_end && form != PRINT_JSON) {
        return 0;
    }
    switch (form) {
    case PRINT_HUMAN:
        r = print_human(event);
        break;
    case PRINT_JSON:
        r = print_json(event);
        break;
    case PRINT_RAW:
        r = print_raw(event);
        break;
    }
    return r != 0 ? r : print_text("\n", 1);
}
