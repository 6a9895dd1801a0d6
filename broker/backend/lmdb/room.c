/* SPDX-License-Identifier: Apache-2.0 */
/* The watch over the room in the map and on the disk: what may be registered, and the state that says so. */
#include "broker/backend/lmdb/state.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/statvfs.h>

/* Percent of the map: where it is full, and how much of it must be free until it is not any more. */
#define FULL_PERCENT  90
#define AGAIN_PERCENT 5

/* What is registered takes so much with its indexes and the pages that are written anew. */
#define ROOM_FACTOR 2

/* What the tables of an empty log take. */
#define EMPTY_BYTES ((uint64_t)256 << 10)

size_t bk_lmdb_room_max(uint64_t map_size)
{
    uint64_t max = map_size / 100 * FULL_PERCENT / ROOM_FACTOR;
    return (size_t)(max - BB_MIN(max, EMPTY_BYTES));
}

/* Bytes that may come until @limit is reached, none if there is not more than @slack of it. */
static uint64_t room_below(uint64_t limit, uint64_t used, uint64_t slack)
{
    return used + slack < limit ? limit - used : 0;
}

void bk_lmdb_look(struct lmdb *lmdb, struct room *room)
{
    struct bk_store_sizes sizes = {0};
    struct statvfs disk;
    bool was_full = room->is_full;
    *room = (struct room){.bytes = UINT64_MAX, .needed = room->needed, .text = "there is room again"};
    if (bk_store_sizes(lmdb->store, &sizes) == 0) {
        uint64_t limit = sizes.map / 100 * FULL_PERCENT;
        room->bytes = room_below(limit, sizes.used, was_full ? sizes.map / 100 * AGAIN_PERCENT : 0);
        if (room->bytes == 0) {
            (void)snprintf(room->text, sizeof(room->text),
                           "%" PRIu64 " of %" PRIu64 " bytes are used; trim channels or raise map-size",
                           sizes.used, sizes.map);
        }
    }
    if (statvfs(lmdb->directory, &disk) == 0) { /* what the file has free already is not asked of the disk */
        uint64_t free_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
        uint64_t all = (uint64_t)disk.f_blocks * disk.f_frsize;
        uint64_t reserve = BB_MIN(lmdb->values[OPTION_RESERVE], all / 16);
        uint64_t left = room_below(free_bytes + sizes.free, reserve, was_full ? reserve / 4 : 0);
        if (left == 0 && room->bytes > 0) {
            (void)snprintf(room->text, sizeof(room->text),
                           "the disk has %" PRIu64 " bytes left; trim channels, make room or lower reserve",
                           free_bytes);
        }
        room->bytes = BB_MIN(room->bytes, left);
    }
    room->is_full = room->bytes == 0;
    room->bytes /= ROOM_FACTOR;
}

/* Where it says that it is full it stays so until there is room for what was refused, behind what waits. */
void bk_lmdb_watch(struct lmdb *lmdb)
{
    struct room room = lmdb->room;
    (void)pthread_mutex_unlock(&lmdb->mutex);
    bk_lmdb_look(lmdb, &room);
    (void)pthread_mutex_lock(&lmdb->mutex);
    bool was_full = lmdb->room.is_full;
    uint64_t waiting = lmdb->commit_bytes + lmdb->record_bytes;
    room.needed = lmdb->room.needed; /* it may have come meanwhile */
    if (was_full && !room.is_full && waiting + room.needed > room.bytes) {
        room.is_full = true;
        memcpy(room.text, lmdb->room.text, sizeof(room.text));
    }
    room.needed = room.is_full ? room.needed : 0;
    lmdb->room = room;
    if (room.is_full != was_full) {
        bk_lmdb_tell_state(lmdb, room.is_full ? BK_BACKEND_FULL : BK_BACKEND_OK, room.text);
    }
}

void bk_lmdb_be_full(struct lmdb *lmdb, uint64_t needed, const char *text)
{
    struct room *room = &lmdb->room;
    room->needed = BB_MAX(room->needed, needed);
    if (!room->is_full) {
        room->is_full = true;
        (void)snprintf(room->text, sizeof(room->text), "%s", text);
        bk_lmdb_tell_state(lmdb, BK_BACKEND_FULL, room->text);
    }
}
