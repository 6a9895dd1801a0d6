/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/cursor.h"

#include "proto/wire/mp.h"

#include "tests/sim/client_act.h"
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdio.h>

struct bb_slice cursor_name(const struct sim_client *client, char buf[16])
{
    (void)snprintf(buf, 16, "cursor%u", (unsigned int)(client->index & 0xff));
    return bb_slice_str(buf);
}

void cursor_save(struct sim_client *client, const struct watch *watch)
{
    struct sim_cursor *cursor = &client->cursor;
    struct bb_buf positions = BB_BUF_INIT;
    char name[16];
    uint32_t n = 0;
    if (cursor->n_saves == CURSOR_SAVES_MAX) {
        return;
    }
    struct cursor_save *save = &cursor->saves[cursor->n_saves++];
    *save = (struct cursor_save){.corr = ++client->corr};
    for (size_t i = 0; i < SIM_CHANNELS; i++) {
        save->is_named[i] = watch->channels[i].is_named;
        save->positions[i] = watch->channels[i].covered;
        n += save->is_named[i];
    }
    bb_mp_write_array(&positions, n);
    for (size_t i = 0; i < SIM_CHANNELS; i++) {
        if (save->is_named[i]) {
            bb_mp_write_array(&positions, 3);
            bb_mp_write_str(&positions, sim_channel_name(i));
            bb_mp_write_uint(&positions, save->positions[i]);
            bb_mp_write_uint(&positions, watch->channels[i].life);
        }
    }
    client_send_msg(client, &(struct bb_msg){
                                .type = BB_MSG_CURSOR,
                                .corr = save->corr,
                                .name = cursor_name(client, name),
                                .positions = bb_buf_slice(&positions),
                            });
    bb_buf_fini(&positions);
}

void cursor_acked(struct sim_client *client, uint64_t corr)
{
    struct sim_cursor *cursor = &client->cursor;
    for (size_t i = 0; i < cursor->n_saves; i++) {
        if (cursor->saves[i].corr == corr) {
            memmove(cursor->saves, &cursor->saves[i], (cursor->n_saves - i) * sizeof(cursor->saves[0]));
            cursor->n_saves -= i;
            cursor->is_kept = true;
            return;
        }
    }
}

/* Whether all @positions are those of @save; without one, the ends of the channels. */
static bool agrees(const struct world *world, const struct cursor_save *save, struct bb_slice positions)
{
    struct bb_mp_reader reader = bb_mp_reader(positions);
    uint64_t n = bb_mp_read_array(&reader);
    for (uint64_t i = 0; i < n; i++) {
        (void)bb_mp_read_array(&reader);
        int channel = sim_channel_find(bb_mp_read_str(&reader));
        uint64_t position = bb_mp_read_uint(&reader);
        bb_mp_skip(&reader);
        if (reader.error != 0 || channel < 0) {
            return false;
        }
        uint64_t expected = ledger_last(&world->ledger, (size_t)channel);
        if (save != NULL) {
            expected = save->is_named[channel] ? BB_MIN(expected, save->positions[channel]) : 0;
        }
        if (position != expected) {
            return false;
        }
    }
    return true;
}

void cursor_expect(struct world *world, const struct sim_client *client, const struct bb_msg *msg)
{
    const struct sim_cursor *cursor = &client->cursor;
    bool is_right = !cursor->is_kept && agrees(world, NULL, msg->positions);
    for (size_t i = 0; i < cursor->n_saves && !is_right; i++) {
        is_right = agrees(world, &cursor->saves[i], msg->positions);
    }
    if (!is_right) {
        world_fail(world,
                   "a subscription of client %" PRIu64
                   " begins neither where its cursor is nor where it may be",
                   client->index);
    }
}
