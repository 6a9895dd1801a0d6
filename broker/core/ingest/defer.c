/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/ingest/defer.h"

#include "broker/core/bytes.h"
#include "broker/core/clients/client.h"
#include "broker/core/state.h"

#include <stdlib.h>

/* Messages of one client that are kept. */
#define DEFERRED_MAX ((size_t)32 << 20)

struct bk_deferred {
    struct bk_deferred *next;
    struct bk_bytes *owner; /* NULL: the bytes are behind the struct */
    struct bb_slice bytes;
    uint8_t copy[];
};

void bk_defer(struct bk_core *core, struct bk_client *client, struct bb_slice bytes, struct bk_bytes *owner)
{
    if (client->deferred_bytes + bytes.len > DEFERRED_MAX) {
        bk_client_send_away(core, client, BB_EOVERFLOW, "too many messages while it had to wait for the log");
        return;
    }
    struct bk_deferred *deferred = calloc(1, sizeof(*deferred) + (owner == NULL ? bytes.len : 0));
    if (deferred == NULL) {
        bk_client_send_away(core, client, BB_ENOMEM, NULL);
        return;
    }
    deferred->bytes = bytes;
    if (owner != NULL) {
        deferred->owner = bk_bytes_ref(owner);
    } else {
        memcpy(deferred->copy, bytes.data, bytes.len);
        deferred->bytes = bb_slice(deferred->copy, bytes.len);
    }
    client->deferred_bytes += bytes.len;
    *(client->deferred_last != NULL ? &client->deferred_last->next : &client->deferred_first) = deferred;
    client->deferred_last = deferred;
}

struct bk_deferred *
bk_deferred_take(struct bk_client *client, struct bb_slice *ret_bytes, struct bk_bytes **ret_owner)
{
    struct bk_deferred *deferred = client->deferred_first;
    if (deferred == NULL) {
        return NULL;
    }
    client->deferred_first = deferred->next;
    client->deferred_last = deferred->next == NULL ? NULL : client->deferred_last;
    client->deferred_bytes -= deferred->bytes.len;
    *ret_bytes = deferred->bytes;
    *ret_owner = deferred->owner;
    return deferred;
}

void bk_deferred_return(struct bk_client *client, struct bk_deferred *deferred)
{
    deferred->next = client->deferred_first;
    client->deferred_first = deferred;
    client->deferred_last = client->deferred_last != NULL ? client->deferred_last : deferred;
    client->deferred_bytes += deferred->bytes.len;
}

void bk_deferred_free(struct bk_deferred *deferred)
{
    bk_bytes_unref(deferred->owner);
    free(deferred);
}

void bk_deferred_forget(struct bk_core *core, struct bk_client *client)
{
    struct bb_slice bytes;
    struct bk_bytes *owner = NULL;
    struct bk_deferred *deferred = NULL;
    while ((deferred = bk_deferred_take(client, &bytes, &owner)) != NULL) {
        bk_deferred_free(deferred);
    }
    bb_buf_fini(&client->known);
    for (struct bk_client **at = &core->resuming; *at != NULL; at = &(*at)->next_resuming) {
        if (*at == client) {
            *at = client->next_resuming;
            break;
        }
    }
    client->is_resuming = false;
}

void bk_deferred_resume(struct bk_core *core, struct bk_client *client)
{
    struct bk_client **at = &core->resuming;
    if (client->is_resuming || bk_client_is_doomed(client)) {
        return;
    }
    while (*at != NULL) {
        at = &(*at)->next_resuming;
    }
    client->is_resuming = true;
    client->next_resuming = NULL;
    *at = client;
}
