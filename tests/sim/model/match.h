/* SPDX-License-Identifier: Apache-2.0 */
/* Patterns by the words of PROTOCOL 3, written for being read: the model has its own. */
#pragma once

#include "proto/base/buf.h"

/** match_path() - does @pattern match @path? */
bool match_path(struct bb_slice pattern, struct bb_slice path);

/** match_channel() - can @pattern match a path of the channel @name? */
bool match_channel(struct bb_slice pattern, struct bb_slice name);

/** match_any() - does one of a MessagePack array of patterns match? */
bool match_any(struct bb_slice patterns, struct bb_slice path);
bool match_any_channel(struct bb_slice patterns, struct bb_slice name);

/** match_name_of() - the channel of a path. */
struct bb_slice match_name_of(struct bb_slice path);
