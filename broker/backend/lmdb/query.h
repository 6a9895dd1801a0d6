/* SPDX-License-Identifier: Apache-2.0 */
/* Queries on the tables. On the read thread, in a read transaction of its own. */
#pragma once

#include "broker/backend/lmdb/store.h"

/** bk_lmdb_query() - BK_REQUEST_QUERY. Return: 0, BB_EINVAL, BB_EPATTERN, BB_ENOMEM, BB_ECORRUPT, BB_ESYSTEM. */
int bk_lmdb_query(struct bk_store *store, struct bk_query *request, struct bk_meter *meter);
