/* SPDX-License-Identifier: Apache-2.0 */
/* The doors of the broker: which plug serves each of them, and where they are open. */
#pragma once

#include "broker/host/state.h"

/** bk_host_open_doors() - the plugs, not bound yet. Return: 0, BB_ELIMIT (open files; logged), BB_ESYSTEM, BB_ENOMEM. */
int bk_host_open_doors(struct bk_host *host);

/** bk_host_bind_doors() - let peers in, and say where. Return: 0, or why not, which has been logged. */
int bk_host_bind_doors(struct bk_host *host);

/** bk_host_close_doors() - when they have sent what they could within the linger time. */
void bk_host_close_doors(struct bk_host *host);
