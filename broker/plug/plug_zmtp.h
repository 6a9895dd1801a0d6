/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main door without libzmq: speaks ZMTP 3 itself on the core's thread, for the same unmodified peers. Fewer threads
 * to wake and fewer copies, and it can see and end connections. Held to the libzmq door by the same tests.
 */
#pragma once

#include "broker/plug/door.h"

/** bk_plug_zmtp_new() - nothing is bound yet. @context is borrowed. Return: 0, BB_ESYSTEM, BB_ENOMEM. */
int bk_plug_zmtp_new(const struct bk_plug_context *context, struct bk_door **ret_door);
