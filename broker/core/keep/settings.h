/* SPDX-License-Identifier: Apache-2.0 */
/* What can be chosen for a channel (PROTOCOL 15.1), and its MessagePack map. */
#pragma once

#include "proto/base/buf.h"

#include "broker/core/backend.h"

#include <stdbool.h>
#include <stdint.h>

struct bk_settings {
    bool logged; /* kept in the log, else in memory alone */
    bool sync;   /* who does not ask for a level is acknowledged when it is on disk */
    bool early;  /* subscriptions that do not say see events before they are on disk */
    struct bk_retention retention;
    uint64_t overflow; /* enum bk_overflow of subscriptions that do not say */
    uint64_t ring_bytes;
};

/**
 * bk_settings_read() - change what @map names, nil setting a member back to @defaults
 * @map: distrusted: one MessagePack map
 * @err: gets a sentence that names the member
 *
 * Return: 0 or BB_EINVAL; then @settings is as it was.
 */
int bk_settings_read(struct bb_slice map,
                     const struct bk_settings *defaults,
                     struct bk_settings *settings,
                     struct bb_buf *err);

/** bk_settings_write() - append the members, as so many pairs of a map; returns how many. */
uint32_t bk_settings_write(struct bb_buf *out, const struct bk_settings *settings);
