/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of tickets, and of the batches that wait for them. */
#pragma once

#include "proto/base/cc.h"

#include "broker/core/backend.h"
#include "broker/core/clients/ack.h"
#include "broker/core/store.h"

/** bk_stage_wait() - acknowledge @waiting when its ticket and its turn allow; taken over. */
void bk_stage_wait(struct bk_core *core, struct bk_client *client, struct bk_waiting *waiting);

/** bk_stage_answer_first() - acknowledge what of @client waits for nothing but its turn, as far as it is its turn. */
void bk_stage_answer_first(struct bk_core *core, struct bk_client *client);

/** bk_stage_orphan() - @client ends: nobody is told of what waits for it, but what has failed is remembered. */
void bk_stage_orphan(struct bk_core *core, struct bk_client *client);
void bk_orphans_fini(struct bk_core *core);

/** bk_stage_registered() - the log has taken all that was staged: who needs no more is acknowledged. */
void bk_stage_registered(struct bk_core *core);

/** bk_stage_fail() - @ticket and all after it have failed. */
void bk_stage_fail(struct bk_core *core, uint64_t ticket, int error);

/** bk_stage_retry() - register again what must come to be, if it is time. */
void bk_stage_retry(struct bk_core *core);

/** bk_waiting_outcome() - what a repetition of @waiting is to be told when what of it was for the log has failed. */
int bk_waiting_outcome(const struct bk_waiting *waiting, int error);

/* The log's listener. */
void bk_on_flushed(void *context, uint64_t ticket, int error);
void bk_on_state(void *context, enum bk_backend_state state, const char *text);

/* The listener of both: what is before @first is gone. */
void bk_on_log_trimmed(void *context, uint32_t id, uint64_t first);
void bk_on_memory_trimmed(void *context, uint32_t id, uint64_t first);
