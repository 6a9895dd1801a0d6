/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/plug/input.h"

#include <stdlib.h>

static void input_free(struct bk_bytes *input)
{
    free(input->data);
    free(input);
}

/* What is kept by reference is charged with all it occupies: give back what growing left over. */
static void fit(struct bb_buf *buf)
{
    if (buf->len > 0 && buf->cap - buf->len > buf->len / 8) {
        uint8_t *data = realloc(buf->data, buf->len);
        if (data != NULL) {
            buf->data = data;
            buf->cap = buf->len;
        }
    }
}

struct bk_bytes *bk_input_own(struct bk_meter *meter, struct bb_buf *buf)
{
    struct bk_bytes *input = buf->error != 0 ? NULL : malloc(sizeof(*input));
    if (input == NULL) {
        bb_buf_fini(buf);
        return NULL;
    }
    fit(buf);
    bk_bytes_init(input, meter, buf->data, buf->cap, input_free);
    input->len = buf->len;
    *buf = BB_BUF_INIT;
    return input;
}
