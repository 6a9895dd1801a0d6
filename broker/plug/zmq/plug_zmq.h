/* SPDX-License-Identifier: Apache-2.0 */
/* The main door on libzmq: a ROUTER socket on any number of endpoints. */
#pragma once

#include "broker/plug/door.h"

/** bk_plug_zmq_new() - the socket, not bound yet. @context is borrowed. Return: 0, BB_ESYSTEM, BB_ENOMEM. */
int bk_plug_zmq_new(const struct bk_plug_context *context, struct bk_door **ret_door);
