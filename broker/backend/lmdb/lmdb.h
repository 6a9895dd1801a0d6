/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backend on LMDB (HAT-F82), the default of logged channels.
 *
 * Five threads beside the owner's. The commit thread takes everything that is queued, writes it to the
 * journal as one record and reports it as durable: the group commit. The apply thread takes journal records
 * into the tables, many in one transaction, and runs retention, trimming and compaction. The read thread
 * answers what subscriptions wait for, each request in a read transaction of its own. The search thread
 * answers queries and verifies, by turns. The copy thread makes backups.
 *
 * Files: schema (names) and keys; txn, record, row, then write and store: the tables. apply, cut and
 * retention change them; plan, query, read and verify read them. batch and journal: what is on its way.
 * shared, room and open are for the threads: apply_thread, commit_thread, read_threads. lmdb.c is the owner's
 * side.
 *
 * When a write fails nothing is acknowledged any more until the journal and the store have been opened again
 * and what is in them is known.
 */
#pragma once

#include "broker/core/backend.h"

extern const struct bk_backend_driver bk_lmdb_driver;
