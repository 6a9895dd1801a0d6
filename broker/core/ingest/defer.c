/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/ingest/defer.h"

#include "broker/core/bytes.h"
#include "broker/core/clients/client.h"
#include "broker/core/state.h"

#include <stdlib.h>
#include <string.h>

/* Messages of one client that are kept. */
#define DEFERRED_MAX ((size_t)32 << 20)

/* What a message counts: many small ones cost more than their bytes. */
static size_t cost(size_t len)
{
    return sizeof(struct bk_deferred) + len;
}

/* Room for a message with @n_copied bytes behind it, at the end of those that wait; NULL: its client is sent away. */
static struct bk_deferred *add(struct bk_core *core, struct bk_client *client, size_t len, size_t n_copied)
{
    if (client->deferred_bytes + cost(len) > DEFERRED_MAX) {
        bk_client_send_away(core, client, BB_EOVERFLOW, "too many messages while it had to wait for the log");
        return NULL;
    }
    struct bk_deferred *deferred = calloc(1, sizeof(*deferred) + n_copied);
    if (deferred == NULL) {
        bk_client_send_away(core, client, BB_ENOMEM, NULL);
        return NULL;
    }
    client->deferred_bytes += cost(len);
    *(client->deferred_last != NULL ? &client->deferred_last->next : &client->deferred_first) = deferred;
    client->deferred_last = deferred;
    return deferred;
}

static struct bb_slice copy(struct bk_deferred *deferred, struct bb_slice bytes)
{
    if (bytes.len > 0) {
        memcpy(deferred->copy, bytes.data, bytes.len);
    }
    return bb_slice(deferred->copy, bytes.len);
}

void bk_defer(struct bk_core *core, struct bk_client *client, struct bb_slice bytes, struct bk_bytes *owner)
{
    struct bk_deferred *deferred = add(core, client, bytes.len, owner == NULL ? bytes.len : 0);
    if (deferred != NULL) {
        deferred->owner = owner != NULL ? bk_bytes_ref(owner) : NULL;
        deferred->bytes = owner != NULL ? bytes : copy(deferred, bytes);
    }
}

void bk_defer_bad(struct bk_core *core, struct bk_client *client, const struct bk_bad_message *bad)
{
    struct bb_slice text =
        bad->text != NULL ? bb_slice(bad->text, strlen(bad->text) + 1) : (struct bb_slice){0};
    struct bk_deferred *deferred = add(core, client, text.len, text.len);
    if (deferred != NULL) {
        deferred->bytes = copy(deferred, text);
        deferred->is_bad = true;
        deferred->bad = *bad;
        deferred->bad.text = bad->text != NULL ? (const char *)deferred->copy : NULL;
    }
}

struct bk_deferred *bk_deferred_take(struct bk_client *client)
{
    struct bk_deferred *deferred = client->deferred_first;
    if (deferred != NULL) {
        client->deferred_first = deferred->next;
        client->deferred_last = deferred->next == NULL ? NULL : client->deferred_last;
        client->deferred_bytes -= cost(deferred->bytes.len);
    }
    return deferred;
}

void bk_deferred_return(struct bk_client *client, struct bk_deferred *deferred)
{
    deferred->next = client->deferred_first;
    client->deferred_first = deferred;
    client->deferred_last = client->deferred_last != NULL ? client->deferred_last : deferred;
    client->deferred_bytes += cost(deferred->bytes.len);
}

void bk_deferred_free(struct bk_deferred *deferred)
{
    bk_bytes_unref(deferred->owner);
    free(deferred);
}

void bk_deferred_forget(struct bk_core *core, struct bk_client *client)
{
    struct bk_deferred *deferred = NULL;
    while ((deferred = bk_deferred_take(client)) != NULL) {
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
