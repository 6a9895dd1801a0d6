/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole bus against a scripted broker: the test itself is the broker, one message after the other, on a
 * ROUTER socket, while the bus runs on its own thread. All waiting is for a message or a call. What fails here
 * fails the test.
 */
#pragma once

#include "proto/base/error.h"
#include "proto/wire/message.h"

#include "bus/busbar.h"

#include <pthread.h>
#include <zmq.h>

#define PATIENCE_MS 10000

/* Features of a welcome. */
#define NO_FEATURES MP("\x90")
#define LOG         MP("\x92\x01\xa3log")
#define LIVES       MP("\x92\xa3log\xa5lives")

/* MessagePack written by hand. */
#define MP(text) bb_slice(text, sizeof(text) - 1)

struct script {
    void *zmq;
    void *router;
    char url[128];
    zmq_msg_t peer;     /* routing id of who sent the last message */
    struct bb_buf last; /* the last message */
    struct bb_msg msg;  /* borrows from it */
};

/* --- the broker ------------------------------------------------------------------------------------ */

void script_start(struct script *script);
void script_stop(struct script *script);

/** script_receive() - the next message of the client, whatever it is, into script->msg. */
void script_receive(struct script *script);

/** script_expect() - the next message, which must be of @type; life signs are answered and do not count. */
const struct bb_msg *script_expect(struct script *script, enum bb_msg_type type);

/** script_send_frames() - a message in as many frames as there are slices; the last is empty. */
void script_send_frames(struct script *script, struct bb_slice first, ...);

void script_send_body(struct script *script, const struct bb_msg *msg, struct bb_slice body);
void script_send(struct script *script, const struct bb_msg *msg);

/* Answers to the message that came last. */
void script_welcome(struct script *script, uint64_t run, uint64_t last);

/** script_welcome_with() - the same of a broker with @features, MessagePack. */
void script_welcome_with(struct script *script, uint64_t run, uint64_t last, struct bb_slice features);

/** script_welcome_server() - the same of another broker. */
void script_welcome_server(struct script *script, uint64_t server, uint64_t run);

void script_subscribed(struct script *script, struct bb_slice positions);

void script_ack(struct script *script, struct bb_slice entries);

/** script_ack_number() - batch @number was taken. */
void script_ack_number(struct script *script, uint64_t number);

void script_goodbye(struct script *script);

/** script_write_block() - a block of @n events "a" with the payloads @sequence, @sequence + 1, ... */
void script_write_block(struct bb_buf *out, uint64_t sequence, uint64_t n);

/** script_gaps() - a message with nothing but gaps for subscription 1. */
void script_gaps(struct script *script, struct bb_slice gaps);

/** script_deliver() - such a block to subscription 1. */
void script_deliver(struct script *script, struct bb_slice ranges, uint64_t sequence, uint64_t n);

/* --- the client under test ------------------------------------------------------------------------ */

/** script_open_bus() - start the script and open a bus that connects to it. */
bb_bus *script_open_bus(struct script *script, struct bb_options options);

/** script_open_ready() - the same with the defaults, and welcome it. */
bb_bus *script_open_ready(struct script *script);

/** script_come_back() - break the connection; welcome the next one as @run, and expect its subscribe. */
const struct bb_msg *script_come_back(struct script *script, uint64_t run, struct bb_slice features);

/** script_receive_all() - all events and gaps until @n came; what they point to holds if they are of one message. */
void script_receive_all(bb_subscription *sub, struct bb_event *events, size_t n);

/** script_finish() - close the bus and stop the script. */
void script_finish(struct script *script, bb_bus *bus);

/** script_to_all() - the defaults of a subscription to everything. */
struct bb_subscribe_options script_to_all(void);

/** script_subscribe() - without waiting for the answer. */
bb_subscription *script_subscribe(bb_bus *bus, struct bb_subscribe_options options);

/** script_publish() - publish a text on "a/b". */
int script_publish(bb_bus *bus, const char *text);

/** script_holds() - is @what somewhere in @in? */
bool script_holds(struct bb_slice in, struct bb_slice what);

/** script_thread() - start a thread; its end is for the caller to join. */
pthread_t script_thread(void *(*function)(void *), void *arg);
