/* SPDX-License-Identifier: Apache-2.0 */
/* What an earlier run left in the log. */
#pragma once

#include "proto/base/cc.h"

#include "broker/core/backend.h"

struct bk_core;

/** bk_restore() - load channels, producers and cursors. Return: 0 or what load() returned. */
int bk_restore(struct bk_core *core, struct bk_backend *backend) BB_MUST_CHECK;
