/* SPDX-License-Identifier: Apache-2.0 */
/* The ports file: JSON, complete, and only ever replaced as a whole. */
#include "proto/base/error.h"

#include "broker/host/ports_file.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char directory[] = "/tmp/busbar-test-XXXXXX";

static void path_of(const char *name, char *path, size_t size)
{
    (void)snprintf(path, size, "%s/%s", directory, name);
}

Test(ports_file, holds_what_each_door_was_bound_to)
{
    char first[] = "tcp://127.0.0.1:7001";
    char second[] = "ipc:///tmp/a \"quoted\" path";
    char *names[] = {first, second};
    const struct bk_endpoints none = {0};
    const struct bk_endpoints both = {names, 2};
    const struct bk_endpoints *doors[BK_DOORS];
    char path[128];
    char temporary[128];
    for (size_t i = 0; i < BK_DOORS; i++) {
        doors[i] = &none;
    }
    doors[BK_DOOR_LISTEN] = &both;
    cr_assert_not_null(mkdtemp(directory));
    path_of("ports", path, sizeof(path));
    path_of("ports.new", temporary, sizeof(temporary));
    for (int i = 0; i < 2; i++) { /* the second time it replaces */
        cr_assert_eq(bk_ports_file_write(path, doors), 0);
        json_t *ports = json_load_file(path, 0, NULL);
        cr_assert_eq(json_object_size(ports), BK_DOORS);
        json_t *listen = json_object_get(ports, "listen");
        cr_assert_eq(json_array_size(listen), 2);
        cr_assert_str_eq(json_string_value(json_array_get(listen, 1)), second);
        cr_assert_eq(json_array_size(json_object_get(ports, "publish")), 0);
        json_decref(ports);
    }
    cr_assert_neq(access(temporary, F_OK), 0, "the temporary file was left");
    (void)unlink(path);
    (void)rmdir(directory);
}

Test(ports_file, a_place_that_cannot_be_written_is_an_error)
{
    const struct bk_endpoints none = {0};
    const struct bk_endpoints *doors[BK_DOORS];
    char path[128];
    for (size_t i = 0; i < BK_DOORS; i++) {
        doors[i] = &none;
    }
    cr_assert_not_null(mkdtemp(directory));
    path_of("missing/ports", path, sizeof(path));
    cr_assert_eq(bk_ports_file_write(path, doors), BB_ESYSTEM);
    (void)rmdir(directory);
}
