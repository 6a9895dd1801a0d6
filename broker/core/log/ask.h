/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients ask of the backends. The backend answers later, by the function that the request carries; the client may have
 * ended by then. Whoever asks embeds struct bk_ask.
 */
#pragma once

#include "proto/base/buf.h"
#include "proto/base/cc.h"
#include "proto/wire/message.h"

struct bk_core;
struct bk_client;

struct bk_ask {
    struct bk_ask *next;
    struct bk_ask *prev;
    struct bk_core *core;
    struct bk_client *client; /* NULL: it ended */
    enum bb_msg_type about;
    uint64_t corr;
};

/** bk_ask_begin() - @ask is under way for the request @msg. Return: 0, or BB_ELIMIT: too many are. */
int bk_ask_begin(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, struct bk_ask *ask)
    BB_MUST_CHECK;

/** bk_ask_end() - it is not any more. */
void bk_ask_end(struct bk_ask *ask);

/** bk_ask_refuse() - answer with an error. */
void bk_ask_refuse(const struct bk_ask *ask, int error, const char *text);

/** bk_asks_forget() - nobody is to be told any more: the client ends. */
void bk_asks_forget(struct bk_core *core, const struct bk_client *client);
