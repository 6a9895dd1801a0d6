/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publishing under a condition (PROTOCOL 6.4): the newest sequence of a channel, or of a path in its channel, is what the publisher
 * thinks. What is staged or in the ring the core sees for itself; for older events it asks the backend, and the client's messages
 * wait meanwhile, so that their order stays.
 */
#pragma once

#include "proto/base/buf.h"
#include "proto/base/cc.h"

struct bk_core;
struct bk_client;

/** bk_expect_judge() - whether what @options of a publish demand holds. Return: 0; BB_ECONFLICT, with the detail in core->nested;
 * BB_EAGAIN: a backend has been asked, and the publish is to be judged again; BB_EINVAL, BB_ELIMIT, BB_ENOMEM. */
int bk_expect_judge(struct bk_core *core, struct bk_client *client, struct bb_slice options) BB_MUST_CHECK;

/** bk_expect_explain() - @detail of a conflict, for a person. */
void bk_expect_explain(struct bb_buf *out, struct bb_slice detail);
