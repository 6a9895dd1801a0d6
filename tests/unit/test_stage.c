/* SPDX-License-Identifier: Apache-2.0 */
/* The core before a log that the test drives by hand: what is said when, what is held back, and what is told again. */
#include "proto/base/error.h"
#include "proto/wire/event.h"
#include "proto/wire/message.h"
#include "proto/wire/mp.h"

#include "broker/core/backend.h"
#include "broker/core/core.h"

#include <criterion/criterion.h>
#include <stdio.h>

/* A log that keeps nothing and does what it is told to. */
struct log {
    struct bk_backend backend;
    const struct bk_backend_listener *listener;
    uint64_t ticket; /* the last one registered */
    size_t n_blocks; /* of it */
    size_t n_channels;
    size_t n_removed;
    size_t n_cursors;
    size_t n_producers;
    int refusal; /* of register_ */
    int error;   /* of each block */
};

struct fixture {
    struct bk_core *core;
    struct bk_config config;
    struct bk_out out;
    struct bk_client *client;
    struct log log;
    size_t n_got[BB_MSG_ENDED + 1];
    struct bb_buf last[BB_MSG_ENDED + 1];
    bool is_paused;
    size_t n_told; /* failures of the log */
    char told[200];
};

static struct log *log_of(struct bk_backend *backend)
{
    return BB_CONTAINER(backend, struct log, backend);
}

static int log_load(struct bk_backend *backend, const struct bk_backend_loader *loader)
{
    (void)backend;
    (void)loader;
    return 0;
}

static int log_register(struct bk_backend *backend, struct bk_append *append, uint64_t ticket)
{
    struct log *log = log_of(backend);
    if (log->refusal != 0) {
        return log->refusal;
    }
    log->ticket = ticket;
    for (size_t i = 0; i < append->n_blocks; i++) {
        append->blocks[i].error = log->error;
    }
    log->n_blocks = append->n_blocks;
    log->n_channels = append->n_channels;
    log->n_removed = 0;
    for (size_t i = 0; i < append->n_channels; i++) {
        log->n_removed += append->channels[i].removed;
    }
    log->n_cursors = append->n_cursors;
    log->n_producers = append->n_producers;
    return 0;
}

static void
log_last(struct bk_backend *backend, uint64_t server, struct bk_event_id *ret_id, uint64_t *ret_time)
{
    (void)backend;
    (void)server;
    *ret_id = (struct bk_event_id){0};
    *ret_time = 0;
}

static const struct bk_backend_ops log_ops = {
    .load = log_load,
    .register_ = log_register,
    .get_last_event_id = log_last,
};

static int note_send(void *context, void *peer, const struct bk_part *parts, size_t n_parts)
{
    struct fixture *fixture = context;
    struct bb_buf bytes = BB_BUF_INIT;
    struct bb_msg msg = {0};
    (void)peer;
    for (size_t i = 0; i < n_parts; i++) {
        bb_buf_append(&bytes, parts[i].data, parts[i].len);
    }
    cr_assert_eq(bb_msg_decode(bb_buf_slice(&bytes), &msg), 0);
    bb_buf_fini(&fixture->last[msg.type]);
    fixture->last[msg.type] = bytes;
    fixture->n_got[msg.type]++;
    return 0;
}

static void note_close(void *context, void *peer, bool shut_out)
{
    (void)context;
    (void)peer;
    (void)shut_out;
}

static void note_pause(void *context, void *peer, bool paused)
{
    struct fixture *fixture = context;
    cr_assert_eq(peer, fixture);
    cr_assert_neq(paused, fixture->is_paused);
    fixture->is_paused = paused;
}

static void note_log(void *context, enum bk_log_level level, const char *id, const char *text)
{
    struct fixture *fixture = context;
    (void)level;
    if (strcmp(id, "BB-LOG-FAILED") == 0) {
        fixture->n_told++;
        (void)snprintf(fixture->told, sizeof(fixture->told), "%s", text);
    }
}

static void say(struct fixture *fixture, const struct bb_msg *msg)
{
    struct bb_buf out = BB_BUF_INIT;
    bb_msg_encode(&out, msg);
    bb_buf_append(&out, msg->body.data, msg->body.len);
    bk_core_message(fixture->core, fixture->client, bb_buf_slice(&out), NULL);
    bb_buf_fini(&out);
    bk_core_flush(fixture->core);
}

static void fixture_open(struct fixture *fixture)
{
    fixture->out = (struct bk_out){
        .context = fixture, .send = note_send, .close = note_close, .pause = note_pause, .log = note_log};
    cr_assert_eq(bk_core_new(&fixture->config, &fixture->out, &fixture->core), 0);
    bk_core_set_time(fixture->core, 1, 1000);
    fixture->log.listener = bk_core_listener(fixture->core, BK_STORE_LOG);
    cr_assert_eq(bk_core_set_backend(fixture->core, BK_STORE_LOG, &fixture->log.backend), 0);
    fixture->client = bk_core_client_add(fixture->core, fixture);
    say(fixture, &(struct bb_msg){
                     .type = BB_MSG_HELLO,
                     .corr = 1,
                     .version = BB_PROTOCOL_VERSION,
                     .client = bb_slice("0123456789abcdef", BB_CLIENT_ID_LEN),
                 });
}

static void fixture_start(struct fixture *fixture)
{
    *fixture =
        (struct fixture){.config = BK_CONFIG_INIT,
                         .log = {.backend = {.ops = &log_ops, .is_durable = true, .max_ticket = SIZE_MAX}}};
    fixture->config.check = BK_CHECK_ALWAYS;
    fixture_open(fixture);
    cr_assert_eq(fixture->n_got[BB_MSG_WELCOME], 1);
}

static void fixture_fini(struct fixture *fixture)
{
    bk_core_free(fixture->core);
    for (size_t i = 0; i < BB_COUNT(fixture->last); i++) {
        bb_buf_fini(&fixture->last[i]);
    }
}

/* What the log says of tickets. */
static void flushed(struct fixture *fixture, uint64_t ticket, int error)
{
    fixture->log.listener->flushed(fixture->log.listener->context, ticket, error);
    bk_core_flush(fixture->core);
}

static void change_channel(struct fixture *fixture, const char *action, const char *name)
{
    say(fixture, &(struct bb_msg){
                     .type = BB_MSG_CHANNEL,
                     .corr = 5,
                     .action = bb_slice_str(action),
                     .name = bb_slice_str(name),
                 });
}

static void publish(struct fixture *fixture, uint64_t number)
{
    struct bb_buf events = BB_BUF_INIT;
    static const uint8_t nil[] = {0xc0};
    bb_event_write(&events, bb_slice_str("a"), bb_slice(nil, 1), NULL);
    say(fixture, &(struct bb_msg){
                     .type = BB_MSG_PUBLISH,
                     .number = number,
                     .level = BB_LEVEL_SYNCED,
                     .body = bb_buf_slice(&events),
                 });
    bb_buf_fini(&events);
}

static int last_error(const struct fixture *fixture)
{
    struct bb_msg msg;
    cr_assert_eq(bb_msg_decode(bb_buf_slice(&fixture->last[BB_MSG_ERROR]), &msg), 0);
    return bb_error_from_code((const char *)msg.code.data, msg.code.len);
}

Test(stage, what_is_changed_in_a_channel_is_answered_when_it_is_on_disk)
{
    struct fixture fixture;
    fixture_start(&fixture);
    change_channel(&fixture, "add", "a");
    cr_assert_eq(fixture.log.n_channels, 1);
    cr_assert_eq(fixture.n_got[BB_MSG_RESULT], 0);
    flushed(&fixture, fixture.log.ticket, 0);
    cr_assert_eq(fixture.n_got[BB_MSG_RESULT], 1);
    change_channel(&fixture, "set", "a");
    change_channel(&fixture, "rm", "a");
    cr_assert_eq(fixture.n_got[BB_MSG_RESULT], 1);
    cr_assert_eq(fixture.log.n_removed, 1);
    flushed(&fixture, fixture.log.ticket, 0);
    cr_assert_eq(fixture.n_got[BB_MSG_RESULT], 3);
    cr_assert_eq(fixture.n_got[BB_MSG_ERROR], 0);
    fixture_fini(&fixture);
}

Test(stage, a_change_that_the_log_loses_is_refused_and_told_again)
{
    struct fixture fixture;
    fixture_start(&fixture);
    change_channel(&fixture, "add", "a");
    flushed(&fixture, fixture.log.ticket, 0);
    change_channel(&fixture, "add", "b");
    change_channel(&fixture, "rm", "a");
    flushed(&fixture, fixture.log.ticket - 1, BB_ELOGFAILED);
    cr_assert_eq(fixture.n_got[BB_MSG_ERROR], 1);
    cr_assert_eq(last_error(&fixture), BB_ELOGFAILED);
    size_t n_answered = fixture.n_got[BB_MSG_RESULT];
    uint64_t before = fixture.log.ticket;
    fixture.log.listener->state(fixture.log.listener->context, BK_BACKEND_OK, NULL);
    bk_core_flush(fixture.core);
    cr_assert_eq(fixture.log.ticket, before + 1);
    cr_assert_eq(fixture.log.n_removed, 1, "the channel would be back after a restart");
    cr_assert_eq(fixture.log.n_channels, 2);
    cr_assert_eq(fixture.n_got[BB_MSG_RESULT], n_answered, "a removal is answered when it is done");
    flushed(&fixture, fixture.log.ticket, 0);
    cr_assert_eq(fixture.n_got[BB_MSG_RESULT], n_answered + 1);
    change_channel(&fixture, "add", "c");
    cr_assert_eq(fixture.log.n_removed, 0);
    fixture_fini(&fixture);
}

Test(stage, a_removal_that_the_log_loses_is_tried_again)
{
    struct fixture fixture;
    fixture_start(&fixture);
    change_channel(&fixture, "add", "a");
    flushed(&fixture, fixture.log.ticket, 0);
    change_channel(&fixture, "rm", "a");
    size_t n_answered = fixture.n_got[BB_MSG_RESULT];
    flushed(&fixture, fixture.log.ticket, BB_ELOGFAILED);
    fixture.log.n_removed = 0;
    fixture.log.listener->state(fixture.log.listener->context, BK_BACKEND_OK, NULL);
    bk_core_flush(fixture.core);
    cr_assert_eq(fixture.log.n_removed, 1);
    cr_assert_eq(fixture.n_got[BB_MSG_RESULT], n_answered);
    flushed(&fixture, fixture.log.ticket, 0);
    bk_core_flush(fixture.core);
    cr_assert_eq(fixture.n_got[BB_MSG_RESULT], n_answered + 1);
    cr_assert_eq(fixture.n_got[BB_MSG_ERROR], 0);
    fixture_fini(&fixture);
}

Test(stage, a_log_that_takes_nothing_is_not_asked_over_and_over)
{
    struct fixture fixture;
    fixture_start(&fixture);
    fixture.log.refusal = BB_ELOGFAILED;
    change_channel(&fixture, "add", "a");
    cr_assert_eq(fixture.n_got[BB_MSG_ERROR], 1);
    cr_assert_not(bk_core_wants_flush(fixture.core));
    fixture_fini(&fixture);
}

Test(stage, a_cursor_is_answered_when_it_is_on_disk_and_not_at_all_to_who_went)
{
    static const uint8_t positions[] = {0x91, 0x92, 0xa1, 'a', 3};
    struct fixture fixture;
    fixture_start(&fixture);
    struct bb_msg msg = {
        .type = BB_MSG_CURSOR,
        .corr = 9,
        .name = bb_slice_str("here"),
        .positions = bb_slice(positions, sizeof(positions)),
    };
    say(&fixture, &msg);
    cr_assert_eq(fixture.log.n_cursors, 1);
    cr_assert_eq(fixture.n_got[BB_MSG_RESULT], 0);
    flushed(&fixture, fixture.log.ticket, 0);
    cr_assert_eq(fixture.n_got[BB_MSG_RESULT], 1);
    say(&fixture, &msg);
    bk_core_client_gone(fixture.core, fixture.client);
    flushed(&fixture, fixture.log.ticket, 0);
    cr_assert_eq(fixture.n_got[BB_MSG_RESULT], 1);
    fixture_fini(&fixture);
}

Test(stage, batches_are_acknowledged_in_the_order_of_their_numbers_when_their_ticket_is_durable)
{
    struct fixture fixture;
    fixture_start(&fixture);
    publish(&fixture, 1);
    uint64_t first = fixture.log.ticket;
    publish(&fixture, 2);
    cr_assert_eq(fixture.log.ticket, first + 1);
    cr_assert_eq(fixture.n_got[BB_MSG_ACK], 0);
    flushed(&fixture, first, 0);
    cr_assert_eq(fixture.n_got[BB_MSG_ACK], 1);
    flushed(&fixture, first + 1, BB_ELOGFAILED);
    cr_assert_eq(fixture.n_got[BB_MSG_ACK], 1);
    cr_assert_eq(last_error(&fixture), BB_ELOGFAILED);
    fixture_fini(&fixture);
}

Test(stage, what_the_log_refuses_says_nothing_of_what_is_on_its_way_to_the_disk)
{
    struct fixture fixture;
    fixture_start(&fixture);
    publish(&fixture, 1);
    change_channel(&fixture, "add", "b");
    uint64_t on_its_way = fixture.log.ticket;
    fixture.log.refusal = BB_ELOGFAILED; /* the disk has gone, which the log has not told yet */
    publish(&fixture, 2);
    change_channel(&fixture, "add", "c");
    cr_assert_eq(fixture.n_got[BB_MSG_ACK], 0);
    cr_assert_eq(fixture.n_got[BB_MSG_RESULT], 0);
    cr_assert_eq(fixture.n_got[BB_MSG_ERROR], 1, "c is refused; the second batch waits for its turn");
    fixture.log.refusal = 0;
    publish(&fixture, 3);
    uint64_t again = fixture.log.ticket;
    cr_assert_eq(again, on_its_way + 1, "its number is free again");
    flushed(&fixture, on_its_way - 1, 0);
    cr_assert_eq(fixture.n_got[BB_MSG_ACK], 1);
    cr_assert_eq(fixture.n_got[BB_MSG_ERROR], 2, "the second batch, refused");
    cr_assert_eq(fixture.n_got[BB_MSG_RESULT], 0);
    flushed(&fixture, on_its_way, 0);
    cr_assert_eq(fixture.n_got[BB_MSG_RESULT], 1);
    cr_assert_eq(fixture.n_got[BB_MSG_ACK], 1);
    flushed(&fixture, again, 0);
    cr_assert_eq(fixture.n_got[BB_MSG_ACK], 2);
    cr_assert_eq(fixture.n_got[BB_MSG_ERROR], 2);
    fixture_fini(&fixture);
}

Test(stage, what_is_on_its_way_can_fail_behind_what_was_refused)
{
    struct fixture fixture;
    fixture_start(&fixture);
    publish(&fixture, 1);
    uint64_t on_its_way = fixture.log.ticket;
    fixture.log.refusal = BB_ELOGFAILED;
    publish(&fixture, 2);
    flushed(&fixture, on_its_way, BB_ELOGFAILED);
    cr_assert_eq(fixture.n_got[BB_MSG_ACK], 0);
    cr_assert_eq(fixture.n_got[BB_MSG_ERROR], 2);
    fixture_fini(&fixture);
}

/* A log that stays full would fill the log for the person, perhaps on the same disk. */
Test(stage, failures_are_told_once_a_second_with_their_number)
{
    struct fixture fixture;
    fixture_start(&fixture);
    bk_core_set_time(fixture.core, 10000000, 10000000);
    fixture.log.refusal = BB_ELOGFULL;
    for (uint64_t i = 1; i <= 5; i++) {
        publish(&fixture, i);
    }
    cr_assert_eq(fixture.n_got[BB_MSG_ERROR], 5);
    cr_assert_eq(fixture.n_told, 1);
    bk_core_set_time(fixture.core, 11000000, 11000000);
    publish(&fixture, 6);
    cr_assert_eq(fixture.n_told, 2);
    cr_assert_not_null(strstr(fixture.told, "5 times"), "%s", fixture.told);
    fixture_fini(&fixture);
}

/* HAT-W4: what one client waits for is no business of others that go. */
Test(stage, an_ack_waits_for_the_disk_whoever_goes_meanwhile)
{
    struct fixture fixture;
    fixture_start(&fixture);
    struct bk_client *other = bk_core_client_add(fixture.core, &fixture);
    publish(&fixture, 1);
    bk_core_client_gone(fixture.core, other);
    bk_core_flush(fixture.core);
    cr_assert_eq(fixture.n_got[BB_MSG_ACK] + fixture.n_got[BB_MSG_ERROR], 0);
    flushed(&fixture, fixture.log.ticket, 0);
    cr_assert_eq(fixture.n_got[BB_MSG_ACK], 1);
    cr_assert_eq(fixture.n_got[BB_MSG_ERROR], 0);
    fixture_fini(&fixture);
}

/* A fixture whose log is behind when one event waits. */
static void fixture_start_narrow(struct fixture *fixture)
{
    fixture_start(fixture);
    bk_core_free(fixture->core);
    fixture->config.stage_bytes = 1;
    fixture->log.ticket = 0;
    fixture_open(fixture);
}

static void ping(struct fixture *fixture, uint64_t token)
{
    say(fixture, &(struct bb_msg){.type = BB_MSG_PING, .token = token});
}

Test(stage, a_publisher_is_paused_while_the_log_is_behind_and_its_messages_wait_in_order)
{
    struct fixture fixture;
    fixture_start_narrow(&fixture);
    publish(&fixture, 1);
    cr_assert_not(fixture.is_paused, "what comes while there is room is taken");
    for (uint64_t number = 2; number <= 4; number++) {
        publish(&fixture, number);
        cr_assert(fixture.is_paused);
        cr_assert_not(bk_core_wants_flush(fixture.core));
    }
    ping(&fixture, 1);
    cr_assert_eq(fixture.n_got[BB_MSG_PONG], 0, "it came behind them");
    cr_assert_eq(fixture.log.ticket, 1);
    for (uint64_t ticket = 1; ticket <= 3; ticket++) {
        cr_assert_eq(fixture.n_got[BB_MSG_ACK], ticket - 1);
        flushed(&fixture, ticket, 0);
        cr_assert_eq(fixture.log.ticket, ticket + 1);
        cr_assert_eq(fixture.log.n_blocks, 1);
    }
    cr_assert_not(fixture.is_paused);
    cr_assert_eq(fixture.n_got[BB_MSG_PONG], 1);
    flushed(&fixture, 4, 0);
    cr_assert_eq(fixture.n_got[BB_MSG_ACK], 4);
    cr_assert_eq(fixture.n_got[BB_MSG_ERROR], 0);
    fixture_fini(&fixture);
}

Test(stage, a_paused_publisher_is_neither_forgotten_nor_left_in_silence)
{
    struct fixture fixture;
    fixture_start_narrow(&fixture);
    publish(&fixture, 1);
    publish(&fixture, 2);
    cr_assert(fixture.is_paused);
    size_t pings = fixture.n_got[BB_MSG_PING];
    uint64_t now = 1;
    for (int i = 1; i <= 10; i++) {
        now += fixture.config.heartbeat_us;
        bk_core_set_time(fixture.core, now, now);
        cr_assert_leq(bk_core_tick(fixture.core), fixture.config.heartbeat_us);
        cr_assert_eq(fixture.n_got[BB_MSG_PING], pings + (size_t)i);
    }
    flushed(&fixture, 1, 0);
    cr_assert_not(fixture.is_paused);
    (void)bk_core_tick(fixture.core);
    cr_assert_eq(bk_core_counter(fixture.core, BK_COUNTER_clients_expired), 0);
    ping(&fixture, 7);
    cr_assert_eq(fixture.n_got[BB_MSG_PONG], 1);
    fixture_fini(&fixture);
}

Test(stage, only_who_publishes_to_the_log_is_paused)
{
    static const uint8_t settings[] = "\x81\xa5store\xa6memory";
    static const uint8_t event[] = {0x92, 0xa1, 'm', 0xc0};
    struct fixture fixture;
    fixture_start_narrow(&fixture);
    say(&fixture, &(struct bb_msg){
                      .type = BB_MSG_CHANNEL,
                      .corr = 5,
                      .action = bb_slice_str("add"),
                      .name = bb_slice_str("m"),
                      .settings = bb_slice(settings, sizeof(settings) - 1),
                  });
    flushed(&fixture, 1, 0);
    publish(&fixture, 1);
    say(&fixture,
        &(struct bb_msg){
            .type = BB_MSG_PUBLISH, .number = 2, .level = 1, .body = bb_slice(event, sizeof(event))});
    ping(&fixture, 1);
    cr_assert_not(fixture.is_paused);
    cr_assert_eq(fixture.n_got[BB_MSG_PONG], 1);
    static const uint8_t window[] = {0x92, 0xa1, 'a', 0xc0};
    cr_assert_eq(bk_core_ingest(fixture.core, bb_slice(window, sizeof(window)), NULL), 0);
    cr_assert_eq(bk_core_counter(fixture.core, BK_COUNTER_events_refused), 1, "a window cannot be paused");
    fixture_fini(&fixture);
}

Test(stage, a_paused_publisher_that_goes_leaves_nothing_behind)
{
    struct fixture fixture;
    fixture_start_narrow(&fixture);
    publish(&fixture, 1);
    publish(&fixture, 2);
    bk_core_client_gone(fixture.core, fixture.client);
    flushed(&fixture, 1, 0);
    cr_assert_eq(fixture.log.ticket, 1);
    fixture_fini(&fixture);
}

Test(stage, a_full_queue_of_the_log_refuses_nothing)
{
    struct fixture fixture;
    fixture_start(&fixture);
    publish(&fixture, 1);
    fixture.log.refusal = BB_EFULL;
    publish(&fixture, 2);
    cr_assert_not(bk_core_wants_flush(fixture.core), "it is not asked over and over");
    publish(&fixture, 3);
    cr_assert(fixture.is_paused);
    fixture.log.refusal = 0;
    flushed(&fixture, 1, 0);
    cr_assert_not(fixture.is_paused);
    cr_assert_eq(fixture.log.ticket, 2);
    cr_assert_eq(fixture.log.n_blocks, 2);
    cr_assert_eq(fixture.log.n_producers, 1);
    flushed(&fixture, 2, 0);
    cr_assert_eq(fixture.n_got[BB_MSG_ACK], 2, "the last one acknowledges two batches");
    cr_assert_eq(fixture.n_got[BB_MSG_ERROR], 0);
    fixture.log.refusal = BB_EFULL;
    publish(&fixture, 4);
    cr_assert_eq(last_error(&fixture), BB_EFULL, "nothing is on its way that could make room");
    fixture_fini(&fixture);
}

/* Whatever the reason: what the log did not take is never acknowledged. */
Test(stage, a_log_that_counts_otherwise_gets_no_more)
{
    struct fixture fixture;
    fixture_start(&fixture);
    fixture.log.error = BB_ESEQUENCE;
    publish(&fixture, 1);
    cr_assert_eq(last_error(&fixture), BB_ELOGFAILED);
    flushed(&fixture, fixture.log.ticket, 0);
    cr_assert_eq(fixture.n_got[BB_MSG_ACK], 0);
    fixture.log.error = 0;
    uint64_t ticket = fixture.log.ticket;
    publish(&fixture, 2);
    cr_assert(fixture.log.ticket == ticket || fixture.log.n_blocks == 0);
    fixture_fini(&fixture);
}
