/* SPDX-License-Identifier: Apache-2.0 */
/* What the core calls: its messages go to the door, its events to the windows, its words to the log. */
#pragma once

#include "broker/host/state.h"

/** bk_host_open_core() - behind doors that are open. Return: 0 or BB_ENOMEM. */
int bk_host_open_core(struct bk_host *host);
