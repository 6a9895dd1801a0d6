/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backend on LMDB (HAT-F82), the default of logged channels.
 *
 * Three threads beside the owner's. The commit thread takes everything that is queued, writes it to the journal as one record
 * and tells that it is durable: the group commit. The apply thread takes journal records into the store, many in one transaction,
 * and lets retention run. The read thread works off requests, each in a read transaction of its own.
 *
 * When a write fails nothing is acknowledged any more until the journal and the store have been opened again and what is in
 * them is known.
 */
#pragma once

#include "broker/core/backend.h"

extern const struct bk_backend_driver bk_lmdb_driver;
