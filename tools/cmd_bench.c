/* SPDX-License-Identifier: Apache-2.0 */
/* busbar bench: how much the broker carries, how fast, and whether all of it arrives. */
#include "proto/base/time.h"

#include "tools/bench.h"
#include "tools/print.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define THREADS_MAX 256
#define SIZE_LIMIT  (16u << 20)

struct bench_options {
    struct bench_plan plan;
    bool json;
};

static const struct bench_options defaults = {
    .plan = {.publishers = 1, .subscribers = 1, .size = 128, .time_us = 5 * BB_US_PER_S},
};

#define AT(member) offsetof(struct bench_options, member)

static const struct option_row options[] = {
    {'p', OPTION_COUNT, "publishers", "N", "publishers, each with a connection (1)", AT(plan.publishers),
     NULL},
    {'s', OPTION_COUNT, "subscribers", "N", "subscribers, each with a connection (1)", AT(plan.subscribers),
     NULL},
    {0, OPTION_SIZE, "size", "BYTES", "of a payload, at least 16 (128)", AT(plan.size), NULL},
    {0, OPTION_SIZE, "batch", "BYTES", "of a full batch (64k)", AT(plan.batch), NULL},
    {0, OPTION_FLAG, "unbatched", NULL, "each event a message of its own", AT(plan.unbatched), NULL},
    {'r', OPTION_RATE, "rate", "R", "events a second of each publisher (as many as go)", AT(plan.rate), NULL},
    {'n', OPTION_COUNT, "count", "N", "events of each publisher", AT(plan.count), NULL},
    {'t', OPTION_DURATION, "time", "TIME", "publish for this time, without --count (5s)", AT(plan.time_us),
     NULL},
    {'j', OPTION_FLAG, "json", NULL, "the result as one object", AT(json), NULL},
    {0},
};

static double rate_of(uint64_t n, double seconds)
{
    return seconds > 0 ? (double)n / seconds : 0;
}

static void text_print(const struct bench_plan *plan, const struct bench_result *r)
{
    const struct histogram *h = &r->latency_us;
    (void)printf("publishers %" PRIu64 ", subscribers %" PRIu64 ", payload %" PRIu64 " bytes\n",
                 plan->publishers, plan->subscribers, plan->size);
    (void)printf("published  %" PRIu64 " events in %.2f s: %.0f/s, %.1f MB/s\n", r->published, r->publish_s,
                 rate_of(r->published, r->publish_s), rate_of(r->published * plan->size, r->publish_s) / 1e6);
    (void)printf("delivered  %" PRIu64 " events in %.2f s: %.0f/s, %.1f MB/s\n", r->delivered, r->deliver_s,
                 rate_of(r->delivered, r->deliver_s), rate_of(r->delivered * plan->size, r->deliver_s) / 1e6);
    (void)printf("lost       %" PRIu64 " in gaps, %" PRIu64 " in silence; %" PRIu64 " refused, %" PRIu64
                 " out of order\n",
                 r->gapped, r->missing, r->refused, r->disordered);
    (void)printf("latency    p50 %.3f ms, p99 %.3f ms, p99.9 %.3f ms, max %.3f ms\n",
                 (double)histogram_get(h, 0.5) / 1e3, (double)histogram_get(h, 0.99) / 1e3,
                 (double)histogram_get(h, 0.999) / 1e3, (double)h->max / 1e3);
}

static void json_print(const struct bench_plan *plan, const struct bench_result *r)
{
    const struct histogram *h = &r->latency_us;
    (void)printf("{\"publishers\":%" PRIu64 ",\"subscribers\":%" PRIu64 ",\"size\":%" PRIu64,
                 plan->publishers, plan->subscribers, plan->size);
    (void)printf(",\"published\":%" PRIu64 ",\"publish_seconds\":%.6f,\"published_per_second\":%.1f",
                 r->published, r->publish_s, rate_of(r->published, r->publish_s));
    (void)printf(",\"delivered\":%" PRIu64 ",\"deliver_seconds\":%.6f,\"delivered_per_second\":%.1f",
                 r->delivered, r->deliver_s, rate_of(r->delivered, r->deliver_s));
    (void)printf(",\"lost_in_gaps\":%" PRIu64 ",\"lost_in_silence\":%" PRIu64 ",\"refused\":%" PRIu64
                 ",\"out_of_order\":%" PRIu64,
                 r->gapped, r->missing, r->refused, r->disordered);
    (void)printf(",\"latency_us\":{\"min\":%" PRIu64 ",\"p50\":%" PRIu64 ",\"p99\":%" PRIu64
                 ",\"p99_9\":%" PRIu64 ",\"max\":%" PRIu64 "}}\n",
                 h->min, histogram_get(h, 0.5), histogram_get(h, 0.99), histogram_get(h, 0.999), h->max);
}

static const char *plan_judge(const struct bench_plan *plan)
{
    if (plan->publishers > THREADS_MAX || plan->subscribers > THREADS_MAX) {
        return "at most 256 publishers and 256 subscribers are possible";
    }
    if (plan->size < BENCH_STAMP_BYTES || plan->size > SIZE_LIMIT) {
        return "--size is from 16 bytes to 16M";
    }
    return NULL;
}

static int bench_command_run(const struct common *common, const void *values, char **operands)
{
    const struct bench_options *o = values;
    (void)operands;
    const char *wrong = plan_judge(&o->plan);
    if (wrong != NULL) {
        say("%s", wrong);
        return STATUS_USAGE;
    }
    struct bench_result *result = calloc(1, sizeof(*result));
    if (result == NULL) {
        say("out of memory");
        return STATUS_FAILURE;
    }
    int status = bench_run(common, &o->plan, result);
    if (status == STATUS_OK) {
        if (o->json) {
            json_print(&o->plan, result);
        } else {
            text_print(&o->plan, result);
        }
        status = print_end();
        status = result->missing > 0 || result->disordered > 0 ? STATUS_FAILURE : status;
    }
    free(result);
    return status;
}

const struct command command_bench = {
    .name = "bench",
    .operands = "",
    .summary = "measure throughput, latency and loss",
    .notes =
        "All publishers and subscribers run in this process and share its processors with the broker. Without\n"
        "--rate the latency is mostly the time that events wait in queues. The status is 1 when events were lost\n"
        "in silence or came out of order.\n",
    .options = options,
    .defaults = &defaults,
    .values_size = sizeof(defaults),
    .run = bench_command_run,
};
