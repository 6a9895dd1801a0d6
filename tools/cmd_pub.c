/* SPDX-License-Identifier: Apache-2.0 */
/* busbar pub: publish one event, the same one often, or one for each line of stdin. */
#include "proto/base/time.h"

#include "tools/body.h"
#include "tools/connection.h"
#include "tools/print.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct pub_options {
    bool json;
    bool text;
    bool binary;
    bool lines;
    bool all;
    const char *file;
    uint64_t count;
    double rate;
    int32_t priority;
    struct option_list headers;
    const char *id;
    const char *type;
    int level;
    uint64_t wait_subs;
    int64_t timeout_us;
    int64_t ttl_us;
    const char *expect;
    const char *expect_path;
};

/* The level that waits for nothing; BB_LEVEL_NONE waits for what the channel is set to. */
#define ACK_NONE (-1)

static const struct pub_options defaults = {
    .count = 1,
    .level = BB_LEVEL_NONE,
    .timeout_us = 30 * BB_US_PER_S,
    .ttl_us = -1,
};

static const struct option_choice levels[] = {
    {"none", ACK_NONE},
    {"accepted", BB_LEVEL_ACCEPTED},
    {"routed", BB_LEVEL_ROUTED},
    {"synced", BB_LEVEL_SYNCED},
    {"replicated", BB_LEVEL_REPLICATED},
    {"consumed", BB_LEVEL_CONSUMED},
    {"channel", BB_LEVEL_NONE},
    {NULL, 0},
};

#define AT(member) offsetof(struct pub_options, member)

static const struct option_row options[] = {
    {0, OPTION_FLAG, "json", NULL, "the body must be JSON", AT(json), NULL},
    {0, OPTION_FLAG, "text", NULL, "the body is text, also if it looks like JSON", AT(text), NULL},
    {0, OPTION_FLAG, "binary", NULL, "the body is binary", AT(binary), NULL},
    {'f', OPTION_TEXT, "file", "FILE", "the body is in a file", AT(file), NULL},
    {'l', OPTION_FLAG, "lines", NULL, "each line of stdin is an event", AT(lines), NULL},
    {'a', OPTION_FLAG, "all", NULL, "all of stdin is the body", AT(all), NULL},
    {'n', OPTION_COUNT, "count", "N", "publish N times (1)", AT(count), NULL},
    {'r', OPTION_RATE, "rate", "R", "at most R events a second", AT(rate), NULL},
    {'p', OPTION_INTEGER, "priority", "P", "priority, lower is more urgent (0)", AT(priority), NULL},
    {'H', OPTION_LIST, "header", "NAME:VALUE", "a header; may be repeated", AT(headers), NULL},
    {0, OPTION_TEXT, "id", "ID", "your own id of the event, a number or text", AT(id), NULL},
    {0, OPTION_TEXT, "type", "TYPE", "what the payload is, e.g. image/png", AT(type), NULL},
    {0, OPTION_CHOICE, "level", "LEVEL", "what to wait for (what the channel is set to)", AT(level), levels},
    {0, OPTION_CHOICE, "ack", "LEVEL", "the same", AT(level), levels},
    {0, OPTION_DURATION, "ttl", "TIME", "time to live, after which nobody gets it", AT(ttl_us), NULL},
    {0, OPTION_TEXT, "expect", "N", "refuse it unless N is the newest sequence of the channel", AT(expect),
     NULL},
    {0, OPTION_TEXT, "expect-path", "N", "the same for the path; 0: there is none", AT(expect_path), NULL},
    {'w', OPTION_COUNT, "wait-subs", "N", "first wait until N subscriptions match", AT(wait_subs), NULL},
    {'t', OPTION_DURATION, "timeout", "TIME", "limit for each of the two waits (30s)", AT(timeout_us), NULL},
    {0},
};

/* What is under way. The counters are written by the callback of the library. */
struct pub {
    const struct pub_options *options;
    struct connection connection;
    struct bb_header headers[OPTION_LIST_MAX];
    struct bb_draft draft;
    struct bb_buf memory;
    struct bb_buf err;
    uint64_t published;
    int64_t start_us;
    atomic_uint_fast64_t answered;
    atomic_uint_fast64_t refused;
    atomic_uint_fast64_t unmatched;
    atomic_int first_refusal;
};

static void ack_handle(bb_bus *bus, const struct bb_ack *ack, void *arg)
{
    struct pub *pub = arg;
    (void)bus;
    atomic_fetch_add(&pub->answered, 1);
    if (ack->error != 0) {
        int none = 0;
        atomic_compare_exchange_strong(&pub->first_refusal, &none, ack->error);
        atomic_fetch_add(&pub->refused, 1);
    } else if (ack->matches == 0) {
        atomic_fetch_add(&pub->unmatched, 1);
    }
}

/* --- the event ------------------------------------------------------------------------------------ */

static void id_set(struct bb_id *id, const char *text)
{
    char *end;
    errno = 0;
    long long integer = strtoll(text, &end, 10);
    if (end != text && *end == '\0' && errno == 0) {
        *id = (struct bb_id){BB_ID_INT, integer, NULL, 0};
    } else {
        *id = (struct bb_id){BB_ID_TEXT, 0, text, strlen(text)};
    }
}

/* `name:value`, blanks behind the colon ignored as in HTTP. */
static bool header_set(struct bb_header *header, const char *text)
{
    const char *colon = strchr(text, ':');
    if (colon == NULL || colon == text) {
        say("'%s' is no header; one looks like unit:celsius", text);
        return false;
    }
    const char *value = colon + 1 + strspn(colon + 1, " ");
    *header = (struct bb_header){text, (size_t)(colon - text), value, strlen(value)};
    return true;
}

static bool expectation_set(struct bb_draft *draft, enum bb_expect expect, const char *text)
{
    if (text == NULL) {
        return true;
    }
    if (!option_parse_count(text, &draft->expect_sequence)) {
        say("'%s' is no sequence; one is a whole number", text);
        return false;
    }
    draft->expect = expect;
    return true;
}

static bool draft_set(struct pub *pub, const char *path)
{
    const struct pub_options *o = pub->options;
    for (size_t i = 0; i < o->headers.n; i++) {
        if (!header_set(&pub->headers[i], o->headers.items[i])) {
            return false;
        }
    }
    pub->draft = (struct bb_draft)BB_DRAFT_INIT;
    pub->draft.path = path;
    pub->draft.priority = o->priority;
    pub->draft.headers = pub->headers;
    pub->draft.n_headers = o->headers.n;
    pub->draft.payload_type = o->type;
    pub->draft.ttl_ms = o->ttl_us > 0 ? (uint64_t)(o->ttl_us / 1000) + (o->ttl_us % 1000 != 0) : 0;
    if (!expectation_set(&pub->draft, BB_EXPECT_CHANNEL, o->expect) ||
        !expectation_set(&pub->draft, BB_EXPECT_PATH, o->expect_path)) {
        return false;
    }
    if (o->level != ACK_NONE) {
        pub->draft.level = (enum bb_level)o->level;
        pub->draft.on_ack = ack_handle;
        pub->draft.arg = pub;
    }
    if (o->id != NULL) {
        id_set(&pub->draft.id, o->id);
    }
    return true;
}

static enum body_form form_of(const struct pub_options *o)
{
    if (o->json) {
        return BODY_JSON;
    }
    if (o->text) {
        return BODY_TEXT;
    }
    return o->binary ? BODY_BINARY : BODY_GUESS;
}

static int body_set(struct pub *pub, struct bb_slice bytes)
{
    struct body body;
    int r = body_parse(form_of(pub->options), bytes, &pub->memory, &pub->err, &body);
    if (r != 0) {
        say("the body cannot be sent: %s%s%s", bb_strerror(r), pub->err.len > 0 ? ": " : "",
            bb_buf_string(&pub->err));
        return r == BB_ENOMEM ? STATUS_FAILURE : STATUS_USAGE;
    }
    pub->draft.kind = body.kind;
    pub->draft.data = body.data.data;
    pub->draft.len = body.data.len;
    return STATUS_OK;
}

/* --- publishing ----------------------------------------------------------------------------------- */

static void rate_wait(const struct pub *pub)
{
    if (pub->options->rate <= 0 || pub->published == 0) {
        return;
    }
    int64_t due = pub->start_us + (int64_t)((double)pub->published * 1e6 / pub->options->rate);
    struct timespec at = {due / BB_US_PER_S, due % BB_US_PER_S * 1000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR) {
    }
}

static int publish(struct pub *pub)
{
    rate_wait(pub);
    int r = bb_publish_event(pub->connection.bus, &pub->draft, NULL);
    if (r == BB_EPATH) {
        say("'%s' is no path; segments are joined by '/', without '?' and '*', at most 200 bytes",
            pub->draft.path);
        return STATUS_USAGE;
    }
    if (r != 0) {
        return fail(pub->connection.bus, r, "cannot publish");
    }
    pub->published++;
    return STATUS_OK;
}

static int lines_publish(struct pub *pub)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    int status = STATUS_OK;
    while (status == STATUS_OK && (len = getline(&line, &cap, stdin)) >= 0) {
        if (len > 0 && line[len - 1] == '\n') {
            len--;
        }
        status = body_set(pub, bb_slice(line, (size_t)len));
        if (status == STATUS_OK) {
            status = publish(pub);
        }
    }
    if (status == STATUS_OK && ferror(stdin) != 0) {
        say("cannot read stdin: %m");
        status = STATUS_FAILURE;
    }
    if (status != STATUS_OK) {
        say("stopped at line %" PRIu64 " of stdin", pub->published + 1);
    }
    free(line);
    return status;
}

static int bytes_publish(struct pub *pub, struct bb_slice bytes)
{
    int status = body_set(pub, bytes);
    for (uint64_t i = 0; status == STATUS_OK && i < pub->options->count; i++) {
        status = publish(pub);
    }
    return status;
}

static int stream_publish(struct pub *pub, FILE *from, const char *name)
{
    struct bb_buf bytes = BB_BUF_INIT;
    int r = body_read(from, &bytes);
    int status = STATUS_FAILURE;
    if (r == BB_ETOOBIG) {
        say("%s is larger than any message can be", name);
    } else if (r != 0) {
        say("cannot read %s: %s", name, bb_strerror(r));
    } else {
        status = bytes_publish(pub, bb_buf_slice(&bytes));
    }
    bb_buf_fini(&bytes);
    return status;
}

static int file_publish(struct pub *pub)
{
    FILE *file = fopen(pub->options->file, "rbe");
    if (file == NULL) {
        say("cannot open %s: %m", pub->options->file);
        return STATUS_FAILURE;
    }
    int status = stream_publish(pub, file, pub->options->file);
    (void)fclose(file);
    return status;
}

static int all_publish(struct pub *pub, const char *body)
{
    const struct pub_options *o = pub->options;
    if (body != NULL) {
        return bytes_publish(pub, bb_slice_str(body));
    }
    if (o->file != NULL) {
        return file_publish(pub);
    }
    return o->lines ? lines_publish(pub) : stream_publish(pub, stdin, "stdin");
}

/* --- the waits ------------------------------------------------------------------------------------ */

static int subs_wait(struct pub *pub)
{
    const struct pub_options *o = pub->options;
    if (o->wait_subs == 0) {
        return STATUS_OK;
    }
    uint64_t matches;
    int r = bb_request_matches(pub->connection.bus, pub->draft.path, o->wait_subs, timeout_ms(o->timeout_us),
                               &matches);
    if (r == BB_ETIMEOUT) {
        say("fewer than %" PRIu64 " subscriptions match '%s' after %.3g s", o->wait_subs, pub->draft.path,
            (double)o->timeout_us / 1e6);
        return STATUS_NOBODY;
    }
    return r != 0 ? fail(pub->connection.bus, r, "cannot wait for subscriptions") : STATUS_OK;
}

/* Why an event was refused, where the error alone leaves that open; @said: what the broker said. */
static const char *reason_of(const struct pub *pub, int error, const char *said)
{
    if (error == BB_EUNSUPPORTED) {
        return pub->options->level == BB_LEVEL_SYNCED ? "its channel is kept in memory alone"
                                                      : "it has no such level";
    }
    if (error == BB_EREFUSED && pub->draft.path[0] == '$') {
        return "channels whose name begins with $ are its own";
    }
    return said;
}

/* What the callbacks counted; they have all ended when the bus is closed. */
static int acks_judge(struct pub *pub)
{
    char said[256];
    (void)particulars(pub->connection.bus, atomic_load(&pub->first_refusal), said, sizeof(said));
    connection_close(&pub->connection);
    uint64_t refused = atomic_load(&pub->refused);
    uint64_t unmatched = atomic_load(&pub->unmatched);
    if (refused > 0) {
        int error = atomic_load(&pub->first_refusal);
        const char *reason = reason_of(pub, error, said);
        say("%" PRIu64 " of %" PRIu64 " events refused; the first: %s%s%s (%s)", refused, pub->published,
            bb_strerror(error), reason[0] != '\0' ? ": " : "", reason, bb_errcode(error));
        return STATUS_REFUSED;
    }
    if (unmatched > 0 && pub->options->level == BB_LEVEL_ROUTED) {
        say("%" PRIu64 " of %" PRIu64 " events met no subscription", unmatched, pub->published);
        return STATUS_NOBODY;
    }
    return STATUS_OK;
}

static int acks_wait(struct pub *pub)
{
    if (pub->options->level == ACK_NONE) {
        return STATUS_OK;
    }
    int r = bb_bus_flush(pub->connection.bus, timeout_ms(pub->options->timeout_us));
    if (r == BB_ETIMEOUT) {
        char why[256];
        bool is_cut = bb_bus_state(pub->connection.bus) != BB_STATE_READY;
        (void)particulars(pub->connection.bus, BB_ECONNECT, why, sizeof(why));
        say("%" PRIu64 " of %" PRIu64 " events were not acknowledged within %.3g s%s%s",
            pub->published - atomic_load(&pub->answered), pub->published,
            (double)pub->options->timeout_us / 1e6, is_cut ? ": the connection is lost: " : "",
            is_cut ? why : "");
        return STATUS_TIMEOUT;
    }
    if (r == BB_ECLOSED) {
        return fail(pub->connection.bus, r, "cannot tell what became of the events");
    }
    int status = acks_judge(pub);
    return r != 0 && status == STATUS_OK ? fail(NULL, r, "cannot publish") : status;
}

/* What is wrong with the options and operands together, or NULL. */
static const char *options_judge(const struct pub_options *o, const char *body)
{
    if ((int)o->json + (int)o->text + (int)o->binary > 1) {
        return "only one of --json, --text and --binary can be true";
    }
    int sources = (body != NULL) + (o->file != NULL) + (int)o->lines + (int)o->all;
    if (sources > 1) {
        return "only one of BODY, --file, --lines and --all can give the body";
    }
    if (sources == 0 && isatty(STDIN_FILENO)) {
        return "there is no body; give one, or pipe one in, or use --file, --lines or --all";
    }
    if (o->ttl_us == 0) {
        return "--ttl must be above 0";
    }
    if (o->expect != NULL && o->expect_path != NULL) {
        return "only one of --expect and --expect-path can be given";
    }
    if ((o->expect != NULL || o->expect_path != NULL) && (o->lines || o->count > 1)) {
        return "what is expected holds for one event, so neither --lines nor --count go with it";
    }
    return o->lines && o->count > 1 ? "--count does not go with --lines" : NULL;
}

static int pub_run(const struct common *common, const void *values, char **operands)
{
    const struct pub_options *o = values;
    const char *wrong = options_judge(o, operands[1]);
    if (wrong != NULL) {
        say("%s", wrong);
        return STATUS_USAGE;
    }
    struct pub pub = {.options = o};
    if (!draft_set(&pub, operands[0])) {
        return STATUS_USAGE;
    }
    struct bb_options bus = BB_OPTIONS_INIT;
    bus.name = "busbar pub";
    int status = connection_open(&pub.connection, common, &bus, 0, false);
    if (status == STATUS_OK) {
        status = subs_wait(&pub);
    }
    if (status == STATUS_OK) {
        pub.start_us = bb_clock_monotonic_us();
        status = all_publish(&pub, operands[1]);
        int waited = acks_wait(&pub);
        status = status != STATUS_OK ? status : waited;
    }
    connection_close(&pub.connection);
    bb_buf_fini(&pub.memory);
    bb_buf_fini(&pub.err);
    return status;
}

const struct command command_pub = {
    .name = "pub",
    .operands = "PATH [BODY]",
    .summary = "publish events",
    .notes =
        "A body that is valid JSON is sent as that value, other UTF-8 as text, the rest as binary. Without BODY\n"
        "it is all of stdin, byte for byte, unless stdin is a terminal.\n"
        "\n"
        "  busbar pub plant/line1/temp 21.5\n"
        "  busbar pub plant/line1/state '{\"on\":true}' -H unit:none --level synced\n"
        "  journalctl -f -o json | busbar pub log/host1 --lines\n",
    .min_operands = 1,
    .max_operands = 2,
    .options = options,
    .defaults = &defaults,
    .values_size = sizeof(defaults),
    .run = pub_run,
};
