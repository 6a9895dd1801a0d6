/* SPDX-License-Identifier: Apache-2.0 */
/* Signals, read by the loop like any other input. */
#pragma once

#include "broker/host/state.h"

/** bk_host_open_signals() - before the first thread, which inherits that they are blocked. Return: 0 or BB_ESYSTEM. */
int bk_host_open_signals(struct bk_host *host);

/** bk_host_take_signals() - do what they ask for: SIGTERM and SIGINT begin the end, a second one is the end. */
void bk_host_take_signals(struct bk_host *host, uint64_t now);
