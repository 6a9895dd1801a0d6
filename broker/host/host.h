/* SPDX-License-Identifier: Apache-2.0 */
/* The host: knows every part of the broker, opens them in order, runs the loop and closes them. */
#pragma once

#include "broker/backend/registry.h"
#include "broker/core/core.h"
#include "broker/host/log.h"

enum bk_door_kind {
    BK_DOOR_LISTEN,
    BK_DOOR_PUBLISH,
    BK_DOOR_PUBLISH_JSON,
    BK_DOOR_INGEST,
    BK_DOOR_INGEST_SUB,
    BK_DOORS
};

/* Endpoints of one door that one broker binds at most. */
#define BK_ENDPOINTS_MAX 16

struct bk_host_options {
    struct bk_config core;
    const char *endpoints[BK_DOORS][BK_ENDPOINTS_MAX];
    size_t n_endpoints[BK_DOORS];
    const char *ports_file; /* NULL: none */
    const char *data;       /* directory of the log; NULL: channels are kept in memory */
    const char *backend;    /* that keeps it; NULL: lmdb */
    const char *backend_options[BK_BACKEND_OPTIONS_MAX];
    size_t n_backend_options;
    bool insecure;
    bool libzmq; /* the main door on libzmq instead of our own engine */
    int io_threads;
    uint64_t drain_us; /* most time between SIGTERM and goodbye */
    enum bk_log_format log_format;
    enum bk_log_level log_level;
};

/**
 * bk_host_run() - be the broker until a signal ends it
 *
 * SIGTERM and SIGINT drain, say goodbye and end; a second one ends at once. Blocks signals and raises the limit of open
 * files for the process.
 *
 * Return: 0 or a negative error, which has been logged.
 */
int bk_host_run(const struct bk_host_options *options);
