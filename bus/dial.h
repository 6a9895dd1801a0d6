/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a url to a socket that is being connected. A name is looked up by a thread that lives for just that,
 * since nothing bounds how long it takes: nobody waits for it, and who gives up the look-up leaves it behind.
 */
#pragma once

#include "proto/base/cc.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

/* More of a name's addresses are not tried. */
#define BB_ADDRESSES_MAX 8

struct bb_address {
    struct sockaddr_storage any;
    socklen_t len;
};

struct bb_addresses {
    struct bb_address all[BB_ADDRESSES_MAX];
    size_t n;
};

struct bb_dial {
    struct bb_lookup *lookup; /* NULL: there was no need of one */
    struct bb_addresses addresses;
    size_t next; /* to be tried */
};

/**
 * bb_dial_start() - find out where @url leads to, which bb_urls_copy() took
 *
 * Return: 0: the addresses are there; 1: when bb_dial_fd() is readable, bb_dial_look() knows more; BB_EINVAL,
 * BB_ENOMEM, BB_ESYSTEM.
 */
BB_MUST_CHECK int bb_dial_start(struct bb_dial *dial, const char *url);

/** bb_dial_fd() - readable when the name has been looked up; closed by bb_dial_fini(). */
int bb_dial_fd(const struct bb_dial *dial);

/**
 * bb_dial_look() - Return: 0: the addresses are there; 1: not yet; BB_ECONNECT: there are none, @ret_text
 * says why.
 */
BB_MUST_CHECK int bb_dial_look(struct bb_dial *dial, const char **ret_text);

/** bb_dial_left() - addresses that were not tried. */
static inline size_t bb_dial_left(const struct bb_dial *dial)
{
    return dial->addresses.n - dial->next;
}

/**
 * bb_dial_next() - begin to connect to the next address
 *
 * Return: a non-blocking socket, the caller's to close; -1: it cannot be, errno says why.
 */
BB_MUST_CHECK int bb_dial_next(struct bb_dial *dial);

/** bb_dial_check() - has @fd been connected? Return: 1: yes; 0: not yet; -1: it cannot be, errno says why. */
BB_MUST_CHECK int bb_dial_check(int fd);

void bb_dial_fini(struct bb_dial *dial);
