/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/host/log.h"

#include "proto/base/error.h"
#include "proto/base/time.h"
#include "proto/json/json_text.h"

#include <stdlib.h>
#include <unistd.h>

/* Entries of one id that are written in a second; the others are summed up. */
#define RATE      20
#define IDS_MAX   64
#define SECOND_US INT64_C(1000000)

static const char *const level_names[] = {
    [BK_LOG_ERROR] = "error",
    [BK_LOG_WARNING] = "warning",
    [BK_LOG_NOTICE] = "notice",
    [BK_LOG_DEBUG] = "debug",
};

struct rate {
    const char *id;
    int64_t second;
    unsigned n_entries;
    unsigned n_dropped;
};

struct bk_log {
    enum bk_log_format format;
    enum bk_log_level level;
    struct rate rates[IDS_MAX];
    struct bb_buf line;
};

struct bk_log *bk_log_new(enum bk_log_format format, enum bk_log_level level)
{
    struct bk_log *log = calloc(1, sizeof(*log));
    if (log != NULL) {
        log->format = format;
        log->level = level;
    }
    return log;
}

void bk_log_free(struct bk_log *log)
{
    if (log != NULL) {
        bb_buf_fini(&log->line);
        free(log);
    }
}

int bk_log_level_find(const char *name, enum bk_log_level *ret_level)
{
    for (size_t i = 0; i < BB_COUNT(level_names); i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *ret_level = (enum bk_log_level)i;
            return 0;
        }
    }
    return BB_EINVAL;
}

static void
write_line(struct bk_log *log, enum bk_log_level level, const char *id, const char *text, unsigned dropped)
{
    char time[BB_TIME_TEXT_MAX] = "";
    struct bb_buf *line = &log->line;
    (void)bb_time_format(bb_clock_wall_us(), time);
    bb_buf_reset(line);
    if (log->format == BK_LOG_JSON) {
        bb_buf_printf(line, "{\"time\":\"%s\",\"level\":\"%s\",\"id\":\"%s\",\"text\":", time,
                      level_names[level], id);
        bb_json_write_str(line, bb_slice_str(text));
        if (dropped > 0) {
            bb_buf_printf(line, ",\"not_written\":%u", dropped);
        }
        bb_buf_append(line, "}\n", 2);
    } else {
        bb_buf_printf(line, "%s %s %s %s", time, level_names[level], id, text);
        if (dropped > 0) {
            bb_buf_printf(line, " (%u more like this were not written)", dropped);
        }
        bb_buf_append_byte(line, '\n');
    }
    if (line->error == 0 && write(STDERR_FILENO, line->data, line->len) < 0) {
        return; /* nobody is left to be told */
    }
}

static struct rate *rate_of(struct bk_log *log, const char *id)
{
    for (size_t i = 0; i < IDS_MAX; i++) {
        if (log->rates[i].id == NULL || strcmp(log->rates[i].id, id) == 0) {
            log->rates[i].id = id;
            return &log->rates[i];
        }
    }
    return NULL;
}

void bk_log_write(struct bk_log *log, enum bk_log_level level, const char *id, const char *text)
{
    if (level > log->level) {
        return;
    }
    unsigned dropped = 0;
    struct rate *rate = rate_of(log, id);
    if (rate != NULL) {
        int64_t second = bb_clock_monotonic_us() / SECOND_US;
        if (rate->second != second) {
            rate->second = second;
            rate->n_entries = 0;
        }
        if (++rate->n_entries > RATE) {
            rate->n_dropped++;
            return;
        }
        dropped = rate->n_dropped;
        rate->n_dropped = 0;
    }
    write_line(log, level, id, text, dropped);
}
