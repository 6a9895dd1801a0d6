/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Durable subscriptions: how far the application is, and when the broker is told. For subscriptions that are
 * not durable these functions do nothing.
 */
#pragma once

#include "bus/subscription.h"

/**
 * bb_cursor_begin() - the subscription is live, @is_resumed: not for the first time
 *
 * The broker has the cursor already: it has made it, or the subscription began there. Nothing is saved before
 * something is worked off, so that a gap which says that the cursor was void is told until it was read.
 */
void bb_cursor_begin(struct bb_subscription *sub, bool is_resumed);

/** bb_cursor_take() - the application is done with all of @delivery. */
void bb_cursor_take(struct bb_subscription *sub, const struct bb_delivery *delivery);

/** bb_cursor_take_events() - the same for the last @n events that it was given of @delivery. */
void bb_cursor_take_events(struct bb_subscription *sub,
                           const struct bb_delivery *delivery,
                           const struct bb_event *events,
                           size_t n);

/** bb_cursor_take_read() - the same for what bb_receive() gave last. */
void bb_cursor_take_read(struct bb_subscription *sub);

/** bb_cursor_note_partial() - bb_receive() gives events of a message that it has not read to its end. */
void bb_cursor_note_partial(struct bb_subscription *sub, const struct bb_event *events, size_t n);

/** bb_cursor_finish() - the subscription ends: send what is not saved, without waiting. */
void bb_cursor_finish(struct bb_subscription *sub);

/** bb_cursors_lost() - the connection broke: what was on its way is to be sent again. */
void bb_cursors_lost(struct bb_bus *bus);

/** bb_cursors_finish() - bb_cursor_finish() for all subscriptions of a bus. */
void bb_cursors_finish(struct bb_bus *bus);

/** bb_cursors_tick() - send the cursors that are due. */
void bb_cursors_tick(struct bb_bus *bus);

/** bb_cursors_answered() - the answer with @corr came; false if it is no cursor's. */
bool bb_cursors_answered(struct bb_bus *bus, uint64_t corr, int error);

/**
 * bb_cursor_check() - can the cursor be saved? Return: 0; BB_ESTATE, BB_EAGAIN: see bb_subscription_save().
 */
BB_MUST_CHECK int bb_cursor_check(const struct bb_subscription *sub);

/** bb_cursor_send() - send it now, without waiting for the answer. Return: 0, BB_ENOMEM, BB_ECONNECT. */
int bb_cursor_send(struct bb_subscription *sub);

/** bb_cursor_message() - the message that saves it, for the caller to send; @positions holds what it says. */
struct bb_msg bb_cursor_message(struct bb_subscription *sub, struct bb_buf *positions);

/** bb_cursor_unsaved() - it was not saved. */
void bb_cursor_unsaved(struct bb_subscription *sub);
