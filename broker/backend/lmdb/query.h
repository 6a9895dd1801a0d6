/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queries on the tables, a piece at a time: each in a read transaction of its own, so that a long query
 * neither pins the pages that are replaced meanwhile nor keeps another one waiting. One thread at a time.
 */
#pragma once

#include "broker/backend/lmdb/store.h"

struct bk_search;

/** bk_search_new() - for BK_REQUEST_QUERY; borrows @request. Return: 0, BB_EINVAL, BB_EPATTERN, BB_ENOMEM. */
BB_MUST_CHECK int bk_search_new(struct bk_query *request, struct bk_search **ret_search);

/**
 * bk_search_step() - go on, until it is done or @deadline (monotonic us) is reached, but at least one group
 *
 * Between two calls the store may have been opened again.
 *
 * Return: 1: not done yet; 0: done; BB_ELIMIT, BB_ENOMEM, BB_ECORRUPT, BB_ESYSTEM.
 */
BB_MUST_CHECK int bk_search_step(struct bk_search *search, struct bk_store *store, uint64_t deadline);

/** bk_search_end() - the answer into the request. Return: 0 or BB_ENOMEM. */
BB_MUST_CHECK int bk_search_end(struct bk_search *search, struct bk_meter *meter);

/** bk_search_free() - NULL is fine. */
void bk_search_free(struct bk_search *search);
