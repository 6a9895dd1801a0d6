/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of urls, and what bb_bus_open() says of those that cannot be. */
#include "proto/base/error.h"

#include "bus/busbar.h"
#include "bus/urls.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static char *copy(const char *list)
{
    char text[256] = "";
    char *urls = NULL;
    cr_assert_eq(bb_urls_copy(list, text, sizeof(text), &urls), 0, "%s", text);
    return urls;
}

static void assert_refused(const char *list, const char *expected)
{
    char text[256] = "";
    struct bb_options options = BB_OPTIONS_INIT;
    bb_bus *bus = NULL;
    options.url = list;
    options.error_text = text;
    options.error_size = sizeof(text);
    cr_expect_eq(bb_bus_open(&options, &bus), BB_EINVAL, "%s was taken", list);
    cr_expect_null(bus);
    cr_expect_str_eq(text, expected);
}

Test(bus_urls, a_list_is_taken_apart)
{
    char *urls = copy("tcp://[::1]:7770,ipc:///run/busbar/bus,tcp://host.example:1");
    const char *at = urls;
    cr_expect_str_eq(at, "tcp://[::1]:7770");
    at += strlen(at) + 1;
    cr_expect_str_eq(at, "ipc:///run/busbar/bus");
    at += strlen(at) + 1;
    cr_expect_str_eq(at, "tcp://host.example:1");
    at += strlen(at) + 1;
    cr_expect_str_eq(at, "");
    free(urls);
}

Test(bus_urls, what_is_malformed_is_refused_at_once_with_a_sentence)
{
    assert_refused("foo", "'foo': a url begins with tcp:// or ipc://");
    assert_refused("http://x:1", "'http://x:1': a url begins with tcp:// or ipc://");
    assert_refused("", "'': there is an empty url in the list");
    assert_refused("tcp://a:1,,tcp://b:2", "'': there is an empty url in the list");
    assert_refused("tcp://a:1,", "'': there is an empty url in the list");
    assert_refused("tcp://", "'tcp://': tcp:// is followed by HOST:PORT");
    assert_refused("tcp://h", "'tcp://h': tcp:// is followed by HOST:PORT");
    assert_refused("tcp://:1", "'tcp://:1': tcp:// is followed by HOST:PORT");
    assert_refused("tcp://h:", "'tcp://h:': a port is a number from 1 to 65535");
    assert_refused("tcp://h:0", "'tcp://h:0': a port is a number from 1 to 65535");
    assert_refused("tcp://h:65536", "'tcp://h:65536': a port is a number from 1 to 65535");
    assert_refused("tcp://h:99999999999999999999",
                   "'tcp://h:99999999999999999999': a port is a number from 1 to 65535");
    assert_refused("tcp://h:1x", "'tcp://h:1x': a port is a number from 1 to 65535");
    assert_refused("tcp://a b:1", "'tcp://a b:1': this is no host");
    assert_refused("ipc://", "'ipc://': ipc:// is followed by a path");
}

Test(bus_urls, the_path_of_a_socket_has_107_bytes_at_most)
{
    char url[6 + 108 + 1] = "ipc://";
    char text[256] = "";
    char *urls = NULL;
    memset(url + 6, 'p', 107);
    free(copy(url));
    url[6 + 107] = 'p';
    cr_assert_eq(bb_urls_copy(url, text, sizeof(text), &urls), BB_EINVAL);
    cr_assert_not_null(strstr(text, "at most 107 bytes"));
}

Test(bus_urls, without_a_list_the_environment_says_where)
{
    cr_assert_eq(setenv("BUSBAR_URL", "tcp://there:5", 1), 0);
    char *urls = copy(NULL);
    cr_expect_str_eq(urls, "tcp://there:5");
    free(urls);
    cr_assert_eq(unsetenv("BUSBAR_URL"), 0);
    cr_assert_eq(setenv("XDG_RUNTIME_DIR", "/run/user/1", 1), 0);
    urls = copy(NULL);
    cr_expect_not_null(strstr(urls, "/busbar/bus"));
    free(urls);
}

Test(bus_urls, other_options_that_cannot_be_are_told_as_well)
{
    char text[256] = "";
    struct bb_options options = BB_OPTIONS_INIT;
    bb_bus *bus = NULL;
    options.url = "tcp://127.0.0.1:1";
    options.reconnect_min_ms = 0;
    options.error_text = text;
    options.error_size = sizeof(text);
    cr_assert_eq(bb_bus_open(&options, &bus), BB_EINVAL);
    cr_assert_str_eq(text, "reconnect_min_ms must be above 0 and not above reconnect_max_ms");
}
