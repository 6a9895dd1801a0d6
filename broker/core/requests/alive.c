/* SPDX-License-Identifier: Apache-2.0 */
/* Signs of life, and the last one (PROTOCOL 8). */
#include "broker/core/clients/client.h"
#include "broker/core/requests/requests.h"
#include "broker/core/state.h"
#include "broker/core/subs/ready.h"

void bk_handle_ping(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    bk_client_send_msg(core, client, &(struct bb_msg){.type = BB_MSG_PONG, .token = msg->token});
}

void bk_handle_pong(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    if (bk_client_read(core, client, msg->token)) {
        bk_subs_set_ready(core, client);
    }
}

void bk_handle_goodbye(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    (void)msg;
    bk_client_doom(core, client, true);
}
