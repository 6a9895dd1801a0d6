/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Back-pressure: while too much waits for the log, clients that publish to it are paused. The message that is too much waits,
 * with all that came behind it, and the client's peer is not read, until the log has caught up. Everybody else goes on. Who
 * removes a channel that is being written to waits in the same way, and first of all, until the log has everything.
 */
#pragma once

#include "proto/base/buf.h"

#include <stdbool.h>

struct bk_core;
struct bk_client;

/** bk_pause_is_due() - whether a client that publishes @events is to wait until the log has caught up. */
bool bk_pause_is_due(struct bk_core *core, struct bb_slice events);

/** bk_pause() - let what @client sends wait, and ask the plug not to read it. */
void bk_pause(struct bk_core *core, struct bk_client *client);

/** bk_pause_can_drain() - whether all that is on its way to the log will get there, if nothing is added. */
bool bk_pause_can_drain(const struct bk_core *core);

/** bk_pause_first() - bk_pause(), in front of all others. */
void bk_pause_first(struct bk_core *core, struct bk_client *client);

/** bk_pause_drain() - the same, until nothing is on its way to the log. */
void bk_pause_drain(struct bk_core *core, struct bk_client *client);

/** bk_pause_is_over() - whether the log has caught up and somebody waits, or may be paused no more. */
bool bk_pause_is_over(const struct bk_core *core);

/** bk_pause_next() - the client that has waited longest, taken out of those that wait, for its messages to be taken in; NULL: none, or the
 * log is behind again. It may be paused again by that. */
struct bk_client *bk_pause_next(struct bk_core *core);

/** bk_pause_end() - its messages were taken in: let the plug read it, if it was not paused again. */
void bk_pause_end(const struct bk_core *core, struct bk_client *client);

/** bk_pause_forget() - the client ends. */
void bk_pause_forget(struct bk_core *core, struct bk_client *client);
