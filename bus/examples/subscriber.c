/* SPDX-License-Identifier: Apache-2.0 */
/* Prints events as JSON until the given number has come: subscriber [url [pattern [number]]] */
#include "bus/busbar.h"

#include <stdio.h>
#include <stdlib.h>

static void print_event(const struct bb_event *event)
{
    char *text = bb_event_json(event, NULL);
    if (text != NULL) {
        (void)puts(text);
        (void)fflush(stdout);
        free(text);
    }
}

static int receive(bb_subscription *sub, long number)
{
    struct bb_event events[256];
    long seen = 0;
    while (seen < number) {
        int n = bb_receive(sub, events, 256, -1);
        if (n < 0) {
            return n;
        }
        for (int i = 0; i < n; i++) {
            print_event(&events[i]);
            seen += events[i].gap == NULL;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct bb_options options = BB_OPTIONS_INIT;
    struct bb_subscribe_options subscribe = BB_SUBSCRIBE_OPTIONS_INIT;
    const char *patterns[] = {argc > 2 ? argv[2] : "*"};
    long number = argc > 3 ? strtol(argv[3], NULL, 10) : 1;
    bb_subscription *sub = NULL;
    bb_bus *bus = NULL;
    options.url = argc > 1 ? argv[1] : NULL;
    options.name = "example subscriber";
    subscribe.patterns = patterns;
    subscribe.n_patterns = 1;
    subscribe.from = BB_FROM_OLDEST;
    int r = bb_bus_open(&options, &bus);
    if (r == 0) {
        r = bb_subscribe(bus, &subscribe, 5000, &sub);
        r = r < 0 ? r : receive(sub, number);
        (void)bb_bus_close(bus);
    }
    if (r < 0) {
        (void)fprintf(stderr, "%s\n", bb_strerror(r));
    }
    return r < 0;
}
