/* SPDX-License-Identifier: Apache-2.0 */
/* What was registered last: ids and times of servers, sequences of channels. What does not go on from there is refused (HAT-F83). */
#pragma once

#include "broker/backend/lmdb/store.h"

struct bk_numbers;

/** bk_numbers_load() - from the store. Return: 0 or an error of bk_store_load(). */
int bk_numbers_load(struct bk_store *store, struct bk_numbers **ret_numbers);
void bk_numbers_free(struct bk_numbers *numbers);

/** bk_numbers_judge() - set the `error` of each block that must be refused; makes room so that bk_numbers_take() cannot fail.
 * Return: 0 or BB_ENOMEM. */
int bk_numbers_judge(struct bk_numbers *numbers, struct bk_append *append);

/** bk_numbers_take() - @append is registered. */
void bk_numbers_take(struct bk_numbers *numbers, const struct bk_append *append);

/** bk_numbers_last() - of one server. */
void bk_numbers_last(const struct bk_numbers *numbers,
                     uint64_t server,
                     struct bk_event_id *ret_id,
                     uint64_t *ret_time);
