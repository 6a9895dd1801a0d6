/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/log/cursor.h"

#include "broker/core/clients/client.h"
#include "broker/core/log/held.h"
#include "broker/core/requests/requests.h"
#include "broker/core/state.h"

void bk_handle_cursor(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    static const uint8_t nil[] = {0xc0};
    int r = bk_can_hold(core) ? bk_cursor_change(core, msg->name, msg->positions) : BB_ELIMIT;
    if (r == 0) {
        bk_hold_answer(core, client, msg, bb_slice(nil, sizeof(nil)));
    } else {
        bk_client_refuse(core, client, msg, r, NULL);
    }
}
