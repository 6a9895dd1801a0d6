/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes in any pieces: the machine ends, stays inside, and says the same however they were cut. */
#include "broker/plug/zmtp.h"

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
    struct bk_zmtp zmtp;
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
        struct bk_zmtp_input input;
        enum bk_zmtp_step step = bk_zmtp_step(&run->zmtp, bb_slice(data + run->at, end - run->at), &input);
        require(input.used <= end - run->at);
        if (step == BK_ZMTP_MORE) {
            require(input.used == 0 && input.wanted > end - run->at);
            return;
        }
        run->ended = step == BK_ZMTP_TOO_BIG || step == BK_ZMTP_BROKEN;
        note(run, step);
        run->n_steps++;
        if (run->ended) {
            return;
        }
        require(input.used > 0);
        note(run, input.used);
        if (step == BK_ZMTP_FRAME || step == BK_ZMTP_PING) {
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

/* The first byte says how the others are cut. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    size_t piece = 1 + (size_t)data[0];
    struct run whole = {0};
    struct run cut = {0};
    bk_zmtp_init(&whole.zmtp, MAX_FRAME);
    bk_zmtp_init(&cut.zmtp, MAX_FRAME);
    data++;
    size--;
    feed(&whole, data, size);
    for (size_t end = 0; end < size; end += piece) {
        feed(&cut, data, end);
    }
    feed(&cut, data, size);
    require(whole.ended == cut.ended && whole.n_steps == cut.n_steps && whole.sum == cut.sum);
    return 0;
}
