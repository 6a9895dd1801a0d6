/* SPDX-License-Identifier: Apache-2.0 */
/* Publishes a few events and says what became of them: publisher [url] */
#include "bus/busbar.h"

#include <stdio.h>

static int publish_all(bb_bus *bus)
{
    struct bb_header headers[] = {bb_header("unit", "celsius")};
    struct bb_draft draft = BB_DRAFT_INIT;
    struct bb_ack ack;
    int r = bb_publish(bus, "plant/temp", BB_PAYLOAD_JSON, "21.5", 4);
    r = r < 0 ? r : bb_publish(bus, "plant/state", BB_PAYLOAD_TEXT, "running", 7);
    if (r < 0) {
        return r;
    }
    draft.path = "plant/alarm";
    draft.kind = BB_PAYLOAD_JSON;
    draft.data = "{\"high\":true}";
    draft.len = 13;
    draft.priority = -10;
    draft.headers = headers;
    draft.n_headers = 1;
    draft.level = BB_LEVEL_ROUTED;
    r = bb_publish_wait(bus, &draft, 5000, &ack);
    if (r == 0) {
        (void)printf("alarm has sequence %llu and %llu subscriptions\n", (unsigned long long)ack.sequence,
                     (unsigned long long)ack.matches);
    }
    return r < 0 ? r : bb_bus_flush(bus, 5000);
}

int main(int argc, char **argv)
{
    struct bb_options options = BB_OPTIONS_INIT;
    bb_bus *bus = NULL;
    char text[256];
    options.url = argc > 1 ? argv[1] : NULL;
    options.name = "example publisher";
    int r = bb_bus_open(&options, &bus);
    if (r < 0) {
        (void)fprintf(stderr, "%s\n", bb_strerror(r));
        return 1;
    }
    r = bb_bus_wait_ready(bus, 5000);
    r = r < 0 ? r : publish_all(bus);
    if (r < 0) {
        (void)fprintf(stderr, "%s %s\n", bb_strerror(r), bb_bus_last_error(bus, text, sizeof(text)));
    }
    (void)bb_bus_close(bus);
    return r < 0;
}
