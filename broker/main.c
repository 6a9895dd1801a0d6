/* SPDX-License-Identifier: Apache-2.0 */
/* busbard: the command line of the broker, from one table. */
#include "proto/base/endpoint.h"
#include "proto/base/error.h"
#include "proto/base/time.h"

#include "broker/backend/registry.h"
#include "broker/host/host.h"
#include "broker/plug/zmq/zmq_socket.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define EXIT_USAGE 2

#ifdef NDEBUG
#    define CHECK_WORK 0
#else
#    define CHECK_WORK 128
#endif

enum kind {
    KIND_ENDPOINT,
    KIND_TEXT,
    KIND_SIZE,
    KIND_NUMBER,
    KIND_DURATION,
    KIND_FLAG,
    KIND_BACKEND_OPTION,
    KIND_LOG_FORMAT,
    KIND_LOG_LEVEL,
    KIND_HELP,
    KIND_VERSION,
};

struct option_row {
    const char *name;
    enum kind kind;
    size_t offset; /* in struct bk_host_options; of an endpoint: the door */
    uint64_t min;
    uint64_t max;
    const char *argument;
    const char *help;
};

#define AT(field) offsetof(struct bk_host_options, field)
#define MIB       ((uint64_t)1 << 20)

/* clang-format off */
static const struct option_row rows[] = {
    {"listen", KIND_ENDPOINT, BK_DOOR_LISTEN, 0, 0, "ENDPOINT", "main door (ROUTER); tcp://HOST:PORT, port * for any, or ipc://PATH"},
    {"publish", KIND_ENDPOINT, BK_DOOR_PUBLISH, 0, 0, "ENDPOINT", "window for plain SUB peers (XPUB), MessagePack"},
    {"publish-json", KIND_ENDPOINT, BK_DOOR_PUBLISH_JSON, 0, 0, "ENDPOINT", "the same in JSON"},
    {"ingest", KIND_ENDPOINT, BK_DOOR_INGEST, 0, 0, "ENDPOINT", "window for plain PUSH peers (PULL)"},
    {"ingest-sub", KIND_ENDPOINT, BK_DOOR_INGEST_SUB, 0, 0, "ENDPOINT", "window for plain PUB peers (SUB)"},
    {"ports-file", KIND_TEXT, AT(ports_file), 0, 0, "FILE", "write the bound endpoints there, as JSON, once ready"},
    {"insecure", KIND_FLAG, AT(insecure), 0, 0, NULL, "allow tcp beyond loopback, without encryption"},
    {"libzmq", KIND_FLAG, AT(libzmq), 0, 0, NULL, "serve the main door with libzmq instead of our own engine"},
    {"data", KIND_TEXT, AT(data), 0, 0, "DIR", "keep channels in a log in this directory"},
    {"backend", KIND_TEXT, AT(backend), 0, 0, "NAME", "what keeps the log: lmdb (default), memory, dummy, or a shared object's path"},
    {"backend-option", KIND_BACKEND_OPTION, 0, 0, 0, "NAME=VALUE", "an option of the backend"},
    {"ring", KIND_SIZE, AT(core.ring_bytes), 64 << 10, (uint64_t)1 << 40, "BYTES", "memory of one channel's ring (16M)"},
    {"memory", KIND_SIZE, AT(core.memory_bytes), MIB, (uint64_t)1 << 40, "BYTES", "memory of all rings (256M)"},
    {"inflight", KIND_SIZE, AT(core.inflight_bytes), 256 << 10, (uint64_t)1 << 32, "BYTES", "most on its way to one client (4M)"},
    {"inflight-all", KIND_SIZE, AT(core.inflight_all), MIB, (uint64_t)1 << 40, "BYTES", "what all clients share of it (256M)"},
    {"max-message", KIND_SIZE, AT(core.max_message), 1 << 10, 16 * MIB, "BYTES", "largest message (1M)"},
    {"max-clients", KIND_NUMBER, AT(core.max_clients), 1, 1000000, "N", "clients at a time (20000)"},
    {"max-channels", KIND_NUMBER, AT(core.max_channels), 1, 1000000, "N", "channels (16384)"},
    {"max-patterns", KIND_NUMBER, AT(core.max_patterns), 1, 100000000, "N", "patterns of one client (100000)"},
    {"heartbeat", KIND_DURATION, AT(core.heartbeat_us), 100000, 60000000, "DURATION", "interval where the client does not ask (10s)"},
    {"drain", KIND_DURATION, AT(drain_us), 0, 3600000000, "DURATION", "most time from SIGTERM to the end (5s)"},
    {"server-id", KIND_NUMBER, AT(core.server), 1, INT32_MAX, "N", "number in event ids (1)"},
    {"log-format", KIND_LOG_FORMAT, AT(log_format), 0, 0, "text|json", "form of the log, which goes to stderr"},
    {"log-level", KIND_LOG_LEVEL, AT(log_level), 0, 0, "LEVEL", "error, warning, notice (default) or debug"},
    {"help", KIND_HELP, 0, 0, 0, NULL, "this"},
    {"version", KIND_VERSION, 0, 0, 0, NULL, "versions of busbard and libzmq"},
};
/* clang-format on */

static void print_help(void)
{
    struct bb_buf backends = BB_BUF_INIT;
    bk_backend_help(&backends);
    (void)printf(
        "usage: busbard [OPTION]...\n\nThe broker of busbar. Without an endpoint it takes its defaults:\n"
        "  ipc:///run/busbar/bus (root) or ipc://$XDG_RUNTIME_DIR/busbar/bus,\n"
        "  tcp://127.0.0.1 ports 7770 (listen), 7771 (publish), 7772 (ingest), 7773 (ingest-sub).\n\n");
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        char left[64];
        (void)snprintf(left, sizeof(left), "--%s%s%s", rows[i].name, rows[i].argument != NULL ? " " : "",
                       rows[i].argument != NULL ? rows[i].argument : "");
        (void)printf("  %-26s %s\n", left, rows[i].help);
    }
    (void)printf("\nBackends, and what --backend-option sets in them:\n%s", bb_buf_string(&backends));
    bb_buf_fini(&backends);
    (void)printf("\nSizes take K, M, G; durations ms, s, m. Endpoints may be given several times.\n"
                 "SIGTERM drains and ends, a second one ends at once; SIGUSR1 logs counters.\n"
                 "Exit: 0 ended as asked, 1 failure, 2 usage.\n");
}

static int parse_number(const char *text, bool is_size, uint64_t *ret_number)
{
    static const char suffixes[] = "KMGT";
    char *end = NULL;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *text == '-') {
        return BB_EINVAL;
    }
    const char *suffix = is_size && *end != 0 ? strchr(suffixes, *end) : NULL;
    if (suffix != NULL) {
        unsigned shift = 10 * (unsigned)(suffix - suffixes + 1);
        if (number > UINT64_MAX >> shift) {
            return BB_EINVAL;
        }
        number <<= shift;
        end++;
    }
    *ret_number = number;
    return *end == 0 ? 0 : BB_EINVAL;
}

static int set_endpoint(struct bk_host_options *options, size_t door, const char *value)
{
    if (options->n_endpoints[door] == BK_ENDPOINTS_MAX) {
        return BB_ELIMIT;
    }
    options->endpoints[door][options->n_endpoints[door]++] = value;
    return 0;
}

static int set_value(struct bk_host_options *options, const struct option_row *row, const char *value)
{
    char *at = (char *)options + row->offset;
    uint64_t number = 0;
    int64_t us = 0;
    int r = 0;
    switch (row->kind) {
    case KIND_ENDPOINT:
        return set_endpoint(options, row->offset, value);
    case KIND_TEXT:
        memcpy(at, &value, sizeof(value));
        return 0;
    case KIND_BACKEND_OPTION:
        if (options->n_backend_options == BK_BACKEND_OPTIONS_MAX) {
            return BB_ELIMIT;
        }
        options->backend_options[options->n_backend_options++] = value;
        return 0;
    case KIND_LOG_FORMAT:
        options->log_format = strcmp(value, "json") == 0 ? BK_LOG_JSON : BK_LOG_TEXT;
        return strcmp(value, "json") == 0 || strcmp(value, "text") == 0 ? 0 : BB_EINVAL;
    case KIND_LOG_LEVEL:
        return bk_log_level_find(value, &options->log_level);
    case KIND_DURATION:
        r = bb_duration_parse(bb_slice_str(value), &us);
        number = (uint64_t)us;
        break;
    case KIND_SIZE:
    case KIND_NUMBER:
        r = parse_number(value, row->kind == KIND_SIZE, &number);
        break;
    case KIND_FLAG:
    case KIND_HELP:
    case KIND_VERSION:
        return BB_EINVAL;
    }
    if (r < 0 || number < row->min || number > row->max) {
        return BB_EINVAL;
    }
    memcpy(at, &number, sizeof(number)); /* size_t and uint64_t are one here, see below */
    return 0;
}

_Static_assert(sizeof(size_t) == sizeof(uint64_t), "numbers of options are stored as 64 bits");

static const struct option_row *find_row(const char *name, size_t len)
{
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        if (strlen(rows[i].name) == len && memcmp(rows[i].name, name, len) == 0) {
            return &rows[i];
        }
    }
    return NULL;
}

static void print_version(void)
{
    char libzmq[BK_ZMQ_VERSION_MAX];
    bk_zmq_version(libzmq);
    (void)printf("busbard %s, libzmq %s\n", BUSBAR_VERSION, libzmq);
}

/* Returns -1 to go on, else the exit code. */
static int parse_argument(struct bk_host_options *options, char **argv, int *at)
{
    const char *name = argv[*at];
    const char *equals = strchr(name, '=');
    size_t len = equals != NULL ? (size_t)(equals - name) : strlen(name);
    const struct option_row *row =
        len > 2 && strncmp(name, "--", 2) == 0 ? find_row(name + 2, len - 2) : NULL;
    if (row == NULL) {
        (void)fprintf(stderr, "busbard: unknown option %s (busbard --help)\n", name);
        return EXIT_USAGE;
    }
    if (row->kind == KIND_HELP) {
        print_help();
        return EXIT_SUCCESS;
    }
    if (row->kind == KIND_VERSION) {
        print_version();
        return EXIT_SUCCESS;
    }
    if (row->kind == KIND_FLAG && equals == NULL) {
        *((char *)options + row->offset) = 1;
        return -1;
    }
    const char *value = equals != NULL ? equals + 1 : argv[++*at];
    if (value == NULL) {
        (void)fprintf(stderr, "busbard: --%s needs %s\n", row->name, row->argument);
        return EXIT_USAGE;
    }
    if (set_value(options, row, value) < 0) {
        (void)fprintf(stderr, "busbard: --%s: \"%s\" is not acceptable (busbard --help)\n", row->name, value);
        return EXIT_USAGE;
    }
    return -1;
}

static void set_defaults(struct bk_host_options *options, char *ipc, size_t ipc_len)
{
    size_t n = 0;
    for (size_t door = 0; door < BK_DOORS; door++) {
        n += options->n_endpoints[door];
    }
    if (n > 0) {
        return;
    }
    if (bb_endpoint_default(ipc, ipc_len) == 0) {
        (void)set_endpoint(options, BK_DOOR_LISTEN, ipc);
    }
    (void)set_endpoint(options, BK_DOOR_LISTEN, "tcp://127.0.0.1:7770");
    (void)set_endpoint(options, BK_DOOR_PUBLISH, "tcp://127.0.0.1:7771");
    (void)set_endpoint(options, BK_DOOR_INGEST, "tcp://127.0.0.1:7772");
    (void)set_endpoint(options, BK_DOOR_INGEST_SUB, "tcp://127.0.0.1:7773");
}

/* PROTOCOL 5.1: a later start has a larger one, two starts in one millisecond have different ones, and every language can
 * hold it: below 2^53 until the year 2109. */
static uint64_t run_number(uint64_t random)
{
    return ((uint64_t)bb_clock_wall_us() / 1000) << 11 | random % 2048;
}

int main(int argc, char **argv)
{
    char ipc[BB_ENDPOINT_MAX];
    struct bk_host_options options = {
        .core = BK_CONFIG_INIT,
        .io_threads = 2, /* receiving and sending land on different ones */
        .drain_us = 5000000,
        .log_level = BK_LOG_NOTICE,
    };
    for (int i = 1; i < argc; i++) {
        int code = parse_argument(&options, argv, &i);
        if (code >= 0) {
            return code;
        }
    }
    options.core.check = CHECK_WORK;
    set_defaults(&options, ipc, sizeof(ipc));
    uint64_t random[2] = {0};
    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random)) {
        (void)fprintf(stderr, "busbard: no random numbers: %m\n");
        return EXIT_FAILURE;
    }
    options.core.run = run_number(random[0]);
    options.core.seed = random[1];
    options.core.first_session = (uint64_t)bb_clock_wall_us();
    return bk_host_run(&options) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
