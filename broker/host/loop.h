/* SPDX-License-Identifier: Apache-2.0 */
/* The loop: sleep until something may have happened, take what came up to a budget, send what came of it. */
#pragma once

#include "broker/host/state.h"

/** bk_host_loop() - until a signal ends it and what waits is delivered, or an error, which has been logged. */
void bk_host_loop(struct bk_host *host);

/**
 * bk_host_offer() - a backend that has something to tell runs the core in its own thread while the loop sleeps
 * @host: a struct bk_host
 *
 * Return: whether that was done; else the backend's descriptor tells the loop.
 */
bool bk_host_offer(void *host);
