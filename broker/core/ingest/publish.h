/* SPDX-License-Identifier: Apache-2.0 */
/* Publishing (PROTOCOL 6): numbers, admission, the batch, its acknowledgement. */
#pragma once

#include "proto/wire/message.h"

struct bk_core;
struct bk_client;
struct bk_bytes;

/** bk_publish() - take the events of a batch. @client NULL: a window. Return: 0, or why nothing was taken; a client has been told. */
int bk_publish(struct bk_core *core,
               struct bk_client *client,
               const struct bb_msg *msg,
               struct bb_slice events,
               struct bk_bytes *owner);

/** bk_publish_refuse() - refuse a batch that is not looked at, for @error; its number is used up. */
void bk_publish_refuse(struct bk_core *core,
                       struct bk_client *client,
                       const struct bb_msg *msg,
                       int error,
                       const char *text,
                       struct bb_slice detail);
