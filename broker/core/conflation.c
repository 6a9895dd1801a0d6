/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/conflation.h"

#include "broker/core/state.h"

#include <stdlib.h>

struct bk_conflation {
    struct bb_map newest; /* by path; the value is where the newest event lies */
};

static int note_newest(void *context, const struct bk_item *item)
{
    struct bk_conflation *conflation = context;
    struct bb_slice rest = bb_slice(item->data, item->len);
    struct bb_event_view event;
    int r = 0;
    while (rest.len > 0 && r == 0) {
        r = bb_event_read(&rest, &event);
        if (r == 0) {
            (void)bb_map_remove(&conflation->newest, event.path);
            /* the map never writes through its values */
            r = bb_map_add(&conflation->newest, event.path, bb_unconst(event.raw.data));
        }
    }
    return r;
}

int bk_conflation_new(struct bk_core *core, struct bk_sub *sub, struct bk_conflation **ret_conflation)
{
    struct bk_conflation *conflation = calloc(1, sizeof(*conflation));
    const struct bk_block *block = NULL;
    int r = conflation != NULL ? 0 : BB_ENOMEM;
    if (conflation != NULL) {
        bb_map_init(&conflation->newest, core->config.seed, SIZE_MAX / 2);
    }
    for (uint64_t pos = sub->cursor; r == 0 && (block = bk_ring_at(&core->ring, &pos)) != NULL; pos++) {
        bk_route_trim(&core->route);
        r = bk_for_each_wanted(core, sub, block, note_newest, conflation);
    }
    if (r < 0) {
        bk_conflation_free(conflation);
        return r;
    }
    *ret_conflation = conflation;
    return 0;
}

void bk_conflation_free(struct bk_conflation *conflation)
{
    if (conflation != NULL) {
        bb_map_fini(&conflation->newest);
        free(conflation);
    }
}

static void lose(struct bk_sub *sub, const struct bk_item *item, uint32_t index, size_t len)
{
    struct bk_position *position = bk_sub_position(sub, item->block->channel);
    position->pending -= BB_MIN(1, position->pending);
    position->lost++;
    position->lost_to = item->block->sequence + index;
    sub->lag_bytes -= BB_MIN(len, sub->lag_bytes);
}

int bk_conflation_add(struct bk_conflation *conflation,
                      struct bk_sub *sub,
                      struct bk_parcel *parcel,
                      const struct bk_item *item)
{
    struct bb_slice rest = bb_slice(item->data, item->len);
    struct bb_event_view event;
    struct bk_item kept = {.block = item->block};
    for (uint32_t i = item->first; rest.len > 0; i++) {
        int r = bb_event_read(&rest, &event);
        if (r < 0) {
            return r;
        }
        if (bb_map_find(&conflation->newest, event.path) == event.raw.data) {
            kept.data = kept.count == 0 ? event.raw.data : kept.data;
            kept.first = kept.count == 0 ? i : kept.first;
            kept.len = (kept.count == 0 ? 0 : kept.len) + (uint32_t)event.raw.len;
            kept.count++;
            continue;
        }
        lose(sub, item, i, event.raw.len);
        if (kept.count > 0) {
            bk_parcel_add(parcel, &kept);
            kept.count = 0;
        }
    }
    if (kept.count > 0) {
        bk_parcel_add(parcel, &kept);
    }
    return parcel->error;
}
