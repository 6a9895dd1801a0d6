/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes in any pieces: the machine ends, stays inside, and says the same however they were cut. */
#include "proto/wire/zmtp.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_FRAME 300

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

struct run {
    struct bb_zmtp zmtp;
    size_t at;
    size_t n_steps;
    uint64_t sum; /* of all that was said */
    bool ended;
};

static void note(struct run *run, uint64_t number)
{
    run->sum = (run->sum ^ number) * UINT64_C(0x100000001b3);
}

/* Take what there is up to @end. */
static void feed(struct run *run, const uint8_t *data, size_t end)
{
    while (!run->ended) {
        struct bb_zmtp_input input;
        enum bb_zmtp_step step = bb_zmtp_step(&run->zmtp, bb_slice(data + run->at, end - run->at), &input);
        require(input.used <= end - run->at);
        if (step == BB_ZMTP_MORE) {
            require(input.used == 0 && input.wanted > end - run->at);
            return;
        }
        run->ended = step == BB_ZMTP_TOO_BIG || step == BB_ZMTP_BROKEN;
        note(run, step);
        run->n_steps++;
        if (run->ended) {
            return;
        }
        require(input.used > 0);
        note(run, input.used);
        if (step == BB_ZMTP_FRAME || step == BB_ZMTP_PING) {
            require(input.data.len <= MAX_FRAME && input.data.data >= data + run->at &&
                    input.data.data + input.data.len <= data + run->at + input.used);
            note(run, input.more);
            for (size_t i = 0; i < input.data.len; i++) {
                note(run, input.data.data[i]);
            }
        }
        run->at += input.used;
    }
}

/* As @role, cut into pieces of @piece bytes. */
static void run_role(enum bb_zmtp_role role, const uint8_t *data, size_t size, size_t piece)
{
    struct run whole = {0};
    struct run cut = {0};
    bb_zmtp_init(&whole.zmtp, role, MAX_FRAME);
    bb_zmtp_init(&cut.zmtp, role, MAX_FRAME);
    feed(&whole, data, size);
    for (size_t end = 0; end < size; end += piece) {
        feed(&cut, data, end);
    }
    feed(&cut, data, size);
    require(whole.ended == cut.ended && whole.n_steps == cut.n_steps && whole.sum == cut.sum);
}

/* The first byte says how the others are cut. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    run_role(BB_ZMTP_ROUTER, data + 1, size - 1, 1 + (size_t)data[0]);
    run_role(BB_ZMTP_DEALER, data + 1, size - 1, 1 + (size_t)data[0]);
    return 0;
}
