/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A query at work: given blocks in the order asked for, it picks the events that all conditions hold for, and
 * makes the answer of them. Shared by the backends, so that they mean the same. One thread at a time.
 */
#pragma once

#include "broker/core/backend.h"

struct bk_find;

/** bk_find_new() - for @request, whose query and limits are borrowed. Return: 0, BB_EINVAL, BB_EPATTERN,
 * BB_ENOMEM. */
BB_MUST_CHECK int bk_find_new(const struct bk_query *request, struct bk_find **ret_find);
void bk_find_free(struct bk_find *find);

/**
 * bk_find_is_descending() - whether blocks are to be given newest first. By source time the order does not
 * matter, and the latest events may come by bk_find_latest() instead.
 */
bool bk_find_is_descending(const struct bk_find *find);

/** bk_find_filter() - the paths of the query; borrowed. */
const struct bk_filter *bk_find_filter(const struct bk_find *find);

/** bk_find_wants_path() - whether events of @path may be wanted at all. */
bool bk_find_wants_path(const struct bk_find *find, struct bb_slice path);

/** bk_find_wants_channel() - the same for a channel; blocks of others are not to be given. */
bool bk_find_wants_channel(const struct bk_find *find, uint32_t channel);

/**
 * bk_find_block() - look at the events of a block
 *
 * Return: 0; 1: the answer is complete, no more blocks are needed; BB_ELIMIT (too many paths to be told
 * apart), BB_ENOMEM, BB_ECORRUPT.
 */
BB_MUST_CHECK int
bk_find_block(struct bk_find *find, uint64_t server, const struct bb_block *head, struct bb_slice events);

/** bk_find_latest() - the same for a block of one event, the latest of its path; they come in the order of
 * their paths. */
BB_MUST_CHECK int
bk_find_latest(struct bk_find *find, uint64_t server, const struct bb_block *head, struct bb_slice events);

/** bk_find_end() - the answer into the request's body, n_events and more. Return: 0 or BB_ENOMEM. */
BB_MUST_CHECK int bk_find_end(struct bk_find *find, struct bk_query *request, struct bk_meter *meter);
