/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/ledger.h"

#include "proto/wire/path.h"

#include <stdlib.h>

static const char *const channel_names[SIM_CHANNELS] = {"a", "b", "c", "", "d", "e"};

int sim_channel_find(struct bb_slice name)
{
    for (int i = 0; i < SIM_CHANNELS; i++) {
        if (bb_slice_equal(name, bb_slice_str(channel_names[i]))) {
            return i;
        }
    }
    return -1;
}

struct bb_slice sim_channel_name(size_t channel)
{
    return bb_slice_str(channel_names[channel]);
}

const char *ledger_append(struct ledger *ledger, const struct ledger_event *event, uint64_t sequence)
{
    int index = sim_channel_find(bb_path_channel(event->path));
    if (index < 0) {
        return "an event of a channel that no world has was published";
    }
    struct ledger_channel *channel = &ledger->channels[index];
    if (sequence != channel->n_events + 1) {
        return "the sequences of a channel are not contiguous";
    }
    if (event->session < ledger->session ||
        (event->session == ledger->session && event->instance <= ledger->instance)) {
        return "event ids do not grow";
    }
    if (event->time < ledger->time) {
        return "the time of events goes back";
    }
    if (channel->n_events == channel->n_slots) {
        uint64_t n = channel->n_slots > 0 ? 2 * channel->n_slots : 64;
        struct ledger_event *events = realloc(channel->events, n * sizeof(*events));
        if (events == NULL) {
            return "no memory";
        }
        channel->events = events;
        channel->n_slots = n;
    }
    struct ledger_event *added = &channel->events[channel->n_events];
    *added = *event;
    added->raw = malloc(event->len);
    if (added->raw == NULL) {
        return "no memory";
    }
    memcpy(added->raw, event->raw, event->len);
    added->path.data = added->raw + (event->path.data - event->raw);
    channel->n_events++;
    ledger->session = event->session;
    ledger->instance = event->instance;
    ledger->time = event->time;
    ledger->n_events++;
    return NULL;
}

void ledger_fini(struct ledger *ledger)
{
    for (size_t i = 0; i < SIM_CHANNELS; i++) {
        for (uint64_t j = 0; j < ledger->channels[i].n_events; j++) {
            free(ledger->channels[i].events[j].raw);
        }
        free(ledger->channels[i].events);
    }
    *ledger = (struct ledger){0};
}
