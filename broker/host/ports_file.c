/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/host/ports_file.h"

#include "proto/base/error.h"
#include "proto/json/json_text.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static const char *const door_names[BK_DOORS] = {
    [BK_DOOR_LISTEN] = "listen", [BK_DOOR_PUBLISH] = "publish",       [BK_DOOR_PUBLISH_JSON] = "publish_json",
    [BK_DOOR_INGEST] = "ingest", [BK_DOOR_INGEST_SUB] = "ingest_sub",
};

static void write_json(struct bb_buf *out, const struct bk_endpoints *const doors[BK_DOORS])
{
    for (size_t door = 0; door < BK_DOORS; door++) {
        bb_buf_append_byte(out, door == 0 ? '{' : ',');
        bb_json_write_str(out, bb_slice_str(door_names[door]));
        bb_buf_append(out, ":[", 2);
        for (size_t i = 0; i < doors[door]->n_names; i++) {
            if (i > 0) {
                bb_buf_append_byte(out, ',');
            }
            bb_json_write_str(out, bb_slice_str(doors[door]->names[i]));
        }
        bb_buf_append_byte(out, ']');
    }
    bb_buf_append(out, "}\n", 2);
}

static int write_file(const char *path, struct bb_slice content)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        return BB_ESYSTEM;
    }
    ssize_t n = write(fd, content.data, content.len);
    return close(fd) == 0 && n == (ssize_t)content.len ? 0 : BB_ESYSTEM;
}

int bk_ports_file_write(const char *path, const struct bk_endpoints *const doors[BK_DOORS])
{
    struct bb_buf content = BB_BUF_INIT;
    struct bb_buf temporary = BB_BUF_INIT;
    write_json(&content, doors);
    bb_buf_printf(&temporary, "%s.new", path);
    int r = content.error != 0 || temporary.error != 0 ? BB_ENOMEM : 0;
    if (r == 0) {
        r = write_file(bb_buf_string(&temporary), bb_buf_slice(&content));
    }
    if (r == 0 && rename(bb_buf_string(&temporary), path) != 0) {
        r = BB_ESYSTEM;
    }
    bb_buf_fini(&content);
    bb_buf_fini(&temporary);
    return r;
}
