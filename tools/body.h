/* SPDX-License-Identifier: Apache-2.0 */
/* What is published: bytes from the command line, a file or stdin, and the payload that they are. */
#pragma once

#include "proto/base/buf.h"

#include "bus/busbar.h"

#include <stdio.h>

enum body_form {
    BODY_GUESS, /* JSON if it is valid JSON, else text if it is UTF-8, else binary */
    BODY_JSON,
    BODY_TEXT,
    BODY_BINARY,
};

/* A payload for struct bb_draft; borrowed from the bytes and the buffer that it was made of. */
struct body {
    enum bb_payload_kind kind;
    struct bb_slice data;
};

/**
 * body_parse() - what payload @bytes are
 * @memory: for payloads that have to be converted; reset first
 * @err:    gets a sentence for a person; reset first
 *
 * Return: 0; BB_EMALFORMED, BB_EUTF8 when they are not what @form demands; BB_ETOODEEP, BB_ETOOBIG, BB_ENOMEM.
 */
int body_parse(enum body_form form,
               struct bb_slice bytes,
               struct bb_buf *memory,
               struct bb_buf *err,
               struct body *ret_body);

/** body_read() - append all of @from, up to what one message can ever hold. 0, BB_ETOOBIG, BB_ESYSTEM, BB_ENOMEM. */
int body_read(FILE *from, struct bb_buf *out);
