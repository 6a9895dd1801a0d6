/* SPDX-License-Identifier: Apache-2.0 */
/* The backend that judges what it is given, keeps nothing and finds nothing (HAT-F80). */
#pragma once

#include "broker/core/backend.h"

extern const struct bk_backend_driver bk_dummy_driver;
