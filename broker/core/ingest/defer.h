/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of a client that are kept, because the first of them has to wait for the log. Who finds out that it need not any more marks the
 * client (bk_deferred_resume()); the next flush takes them in.
 */
#pragma once

#include "proto/base/buf.h"

#include "broker/core/core.h"

struct bk_core;
struct bk_client;
struct bk_bytes;
/* A message that is kept, or what is known of one that could not be read: it is refused in its turn. */
struct bk_deferred {
    struct bk_deferred *next;
    struct bk_bytes *owner; /* NULL: the bytes are behind the struct */
    struct bb_slice bytes;
    bool is_bad;
    struct bk_bad_message bad;
    uint8_t copy[];
};

/** bk_defer() - keep a message. A client that sends too much meanwhile is sent away. */
void bk_defer(struct bk_core *core, struct bk_client *client, struct bb_slice bytes, struct bk_bytes *owner);

/** bk_defer_bad() - the same for a message that could not be read. */
void bk_defer_bad(struct bk_core *core, struct bk_client *client, const struct bk_bad_message *bad);

/** bk_deferred_resume() - its messages may be taken. */
void bk_deferred_resume(struct bk_core *core, struct bk_client *client);

/** bk_deferred_take() - the oldest of them, NULL if there is none; for bk_deferred_free(). */
struct bk_deferred *bk_deferred_take(struct bk_client *client);
void bk_deferred_free(struct bk_deferred *deferred);

/** bk_deferred_return() - put one that was taken back in front. */
void bk_deferred_return(struct bk_client *client, struct bk_deferred *deferred);

/** bk_deferred_forget() - free all: the client ends. */
void bk_deferred_forget(struct bk_core *core, struct bk_client *client);
