/* SPDX-License-Identifier: Apache-2.0 */
/* What was registered last: ids and times of servers, sequences of channels. What does not go on from
 * there is refused (HAT-F83). */
#pragma once

#include "proto/base/cc.h"

#include "broker/core/backend.h"

struct bk_numbers;

/** bk_numbers_new() - of nothing; NULL: no memory. */
struct bk_numbers *bk_numbers_new(void);

/** bk_numbers_free() - NULL is fine. */
void bk_numbers_free(struct bk_numbers *numbers);

/** bk_numbers_add_channel(), bk_numbers_add_server() - what is stored already. Return: 0, BB_ENOMEM. */
BB_MUST_CHECK int bk_numbers_add_channel(struct bk_numbers *numbers, uint32_t id, uint64_t last);
BB_MUST_CHECK int
bk_numbers_add_server(struct bk_numbers *numbers, const struct bk_event_id *id, uint64_t time);

/** bk_numbers_judge() - set the `error` of each block; makes room so that bk_numbers_take() cannot fail.
 * Return: 0 or BB_ENOMEM. */
BB_MUST_CHECK int bk_numbers_judge(struct bk_numbers *numbers, struct bk_append *append);

/** bk_numbers_take() - @append is registered, as it was judged. */
void bk_numbers_take(struct bk_numbers *numbers, const struct bk_append *append);

/** bk_numbers_last() - of one server. */
void bk_numbers_last(const struct bk_numbers *numbers,
                     uint64_t server,
                     struct bk_event_id *ret_id,
                     uint64_t *ret_time);

/** bk_numbers_channel() - whether the channel is there; @ret_last: its newest sequence, untouched if it is
 * not. */
bool bk_numbers_channel(const struct bk_numbers *numbers, uint32_t id, uint64_t *ret_last);
