/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/base/endpoint.h"

#include "proto/base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int bb_endpoint_default(char *endpoint, size_t len)
{
    const char *directory = getuid() == 0 ? "/run" : getenv("XDG_RUNTIME_DIR");
    if (directory == NULL || *directory == 0) {
        return BB_ENOTFOUND;
    }
    int n = snprintf(endpoint, len, "ipc://%s/busbar/bus", directory);
    return n > 0 && (size_t)n < len ? 0 : BB_ETOOBIG;
}
