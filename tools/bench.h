/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A load for measuring: publishers and subscribers, each with a bus and a thread of its own, and what came of it. The
 * payload carries publisher, number and time, so order and latency are judged event by event.
 */
#pragma once

#include "tools/cmd.h"
#include "tools/histogram.h"

#define BENCH_STAMP_BYTES 16

struct bench_plan {
    uint64_t publishers;
    uint64_t subscribers; /* 0 is fine */
    uint64_t size;        /* of a payload, at least BENCH_STAMP_BYTES */
    uint64_t batch;       /* bytes of a batch; 0: what the library thinks */
    bool unbatched;
    double rate;    /* events a second of each publisher; 0: as fast as it goes */
    uint64_t count; /* events of each publisher; 0: publish for `time_us` */
    int64_t time_us;
};

struct bench_result {
    uint64_t published; /* taken by the broker */
    uint64_t refused;
    uint64_t delivered; /* all subscribers together, as are the following */
    uint64_t gapped;    /* lost, and told so */
    uint64_t missing;   /* lost in silence */
    uint64_t disordered;
    double publish_s; /* from the start to the last acknowledgement */
    double deliver_s; /* from the start to the last event */
    struct histogram latency_us;
};

/**
 * bench_run() - carry out @plan
 *
 * Return: STATUS_OK, or the exit status when the reason why it could not be carried out was said.
 */
int bench_run(const struct common *common, const struct bench_plan *plan, struct bench_result *ret_result);
