/* SPDX-License-Identifier: Apache-2.0 */
/* What a model client sends. */
#pragma once

#include "tests/sim/client.h"

/** client_send_msg() - a message that is a head. */
void client_send_msg(struct sim_client *client, const struct bb_msg *msg);

/** client_resume() - welcome came: subscribe again, and repeat what may not have been taken. */
void client_resume(struct sim_client *client, uint64_t last);

/** client_renumber() - batches without ack get the first numbers of a new epoch. */
void client_renumber(struct sim_client *client);

/** client_grant() - more credit, if half of it is used up. */
void client_grant(struct sim_client *client, struct watch *watch);
