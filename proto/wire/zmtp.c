/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/wire/zmtp.h"

#include "proto/base/cc.h"

#include <strings.h>

/* Flags of a frame; all other bits are zero. */
#define FLAG_MORE    0x01u
#define FLAG_LONG    0x02u
#define FLAG_COMMAND 0x04u

/* Commands are small: a READY carries a few properties. */
#define COMMAND_MAX 4096

/* A ping's context has at most this many bytes, after two of its time to live. */
#define PING_CONTEXT_MAX 16

#define MECHANISM_AT  12
#define MECHANISM_LEN 20

/* Socket-Types, in a READY. */
#define TYPE_LEN   6 /* of both that we are */
#define PEER_TYPES 3

static const struct {
    char type[TYPE_LEN + 1];
    const char *peers[PEER_TYPES];
} role_rows[] = {
    [BB_ZMTP_ROUTER] = {"ROUTER", {"DEALER", "REQ", "ROUTER"}},
    [BB_ZMTP_DEALER] = {"DEALER", {"ROUTER", "DEALER", "REP"}},
};

void bb_zmtp_init(struct bb_zmtp *zmtp, enum bb_zmtp_role role, size_t max_frame)
{
    *zmtp = (struct bb_zmtp){.role = role, .state = BB_ZMTP_GREETING, .max_frame = max_frame};
}

static enum bb_zmtp_step
take_greeting(struct bb_zmtp *zmtp, struct bb_slice bytes, struct bb_zmtp_input *input)
{
    static const uint8_t null_mechanism[MECHANISM_LEN] = "NULL";
    const uint8_t *p = bytes.data;
    input->wanted = BB_ZMTP_GREETING_LEN;
    if ((bytes.len > 0 && p[0] != 0xff) || (bytes.len > 9 && p[9] != 0x7f) || (bytes.len > 10 && p[10] < 3)) {
        return BB_ZMTP_BROKEN;
    }
    if (bytes.len < BB_ZMTP_GREETING_LEN) {
        return BB_ZMTP_MORE;
    }
    if (memcmp(p + MECHANISM_AT, null_mechanism, MECHANISM_LEN) != 0) {
        return BB_ZMTP_BROKEN;
    }
    input->used = BB_ZMTP_GREETING_LEN;
    zmtp->state = BB_ZMTP_HANDSHAKE;
    return BB_ZMTP_SILENT;
}

/* A name of one length byte off the front. */
static bool take_name(struct bb_slice *rest, struct bb_slice *ret_name)
{
    if (rest->len < 1 || rest->len - 1 < rest->data[0]) {
        return false;
    }
    *ret_name = bb_slice(rest->data + 1, rest->data[0]);
    *rest = bb_slice(rest->data + 1 + ret_name->len, rest->len - 1 - ret_name->len);
    return true;
}

static bool name_is(struct bb_slice name, const char *text)
{
    return bb_slice_equal(name, bb_slice_str(text));
}

/* Names of properties are the same in upper and lower case. */
static bool property_is(struct bb_slice name, const char *text)
{
    return name.len == strlen(text) && strncasecmp((const char *)name.data, text, name.len) == 0;
}

static bool is_peer_of(enum bb_zmtp_role role, struct bb_slice type)
{
    for (size_t i = 0; i < PEER_TYPES; i++) {
        if (name_is(type, role_rows[role].peers[i])) {
            return true;
        }
    }
    return false;
}

static enum bb_zmtp_step take_ready(struct bb_zmtp *zmtp, struct bb_slice properties)
{
    bool is_peer = false;
    bool is_routed = false;
    while (properties.len > 0) {
        struct bb_slice name;
        if (!take_name(&properties, &name) || properties.len < 4) {
            return BB_ZMTP_BROKEN;
        }
        const uint8_t *p = properties.data;
        size_t len = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
        if (len > properties.len - 4) {
            return BB_ZMTP_BROKEN;
        }
        struct bb_slice value = bb_slice(p + 4, len);
        properties = bb_slice(p + 4 + len, properties.len - 4 - len);
        if (property_is(name, "Socket-Type")) {
            is_peer = is_peer_of(zmtp->role, value);
        } else if (property_is(name, "Identity")) {
            is_routed = len > 0 && zmtp->role == BB_ZMTP_ROUTER;
        }
    }
    if (!is_peer) {
        return BB_ZMTP_BROKEN;
    }
    zmtp->state = BB_ZMTP_OPEN;
    return is_routed ? BB_ZMTP_ROUTED : BB_ZMTP_READY_IN;
}

static enum bb_zmtp_step take_command(struct bb_zmtp *zmtp, struct bb_slice body, struct bb_zmtp_input *input)
{
    struct bb_slice name;
    if (!take_name(&body, &name)) {
        return BB_ZMTP_BROKEN;
    }
    if (zmtp->state == BB_ZMTP_HANDSHAKE) {
        return name_is(name, "READY") ? take_ready(zmtp, body) : BB_ZMTP_BROKEN;
    }
    if (name_is(name, "PING")) {
        if (body.len < 2 || body.len > 2 + PING_CONTEXT_MAX) {
            return BB_ZMTP_BROKEN;
        }
        input->data = bb_slice(body.data + 2, body.len - 2);
        return BB_ZMTP_PING;
    }
    return BB_ZMTP_SILENT; /* commands that are not known are no errors */
}

enum bb_zmtp_step bb_zmtp_step(struct bb_zmtp *zmtp, struct bb_slice bytes, struct bb_zmtp_input *ret_input)
{
    const uint8_t *p = bytes.data;
    *ret_input = (struct bb_zmtp_input){.wanted = 2};
    if (zmtp->state == BB_ZMTP_GREETING) {
        return take_greeting(zmtp, bytes, ret_input);
    }
    if (bytes.len < 2) {
        return BB_ZMTP_MORE;
    }
    uint8_t flags = p[0];
    size_t head = (flags & FLAG_LONG) != 0 ? BB_ZMTP_HEAD_MAX : 2;
    bool is_command = (flags & FLAG_COMMAND) != 0;
    if ((flags & ~(FLAG_MORE | FLAG_LONG | FLAG_COMMAND)) != 0 || (is_command && (flags & FLAG_MORE) != 0)) {
        return BB_ZMTP_BROKEN;
    }
    ret_input->wanted = head;
    if (bytes.len < head) {
        return BB_ZMTP_MORE;
    }
    uint64_t len = p[1];
    for (size_t i = 2; i < head; i++) {
        len = len << 8 | p[i];
    }
    if (!is_command && zmtp->state != BB_ZMTP_OPEN) {
        return BB_ZMTP_BROKEN;
    }
    if (len > (is_command ? COMMAND_MAX : zmtp->max_frame)) {
        return is_command ? BB_ZMTP_BROKEN : BB_ZMTP_TOO_BIG;
    }
    ret_input->wanted = head + (size_t)len;
    if (bytes.len - head < len) {
        return BB_ZMTP_MORE;
    }
    ret_input->used = head + (size_t)len;
    ret_input->data = bb_slice(p + head, (size_t)len);
    ret_input->more = (flags & FLAG_MORE) != 0;
    return is_command ? take_command(zmtp, ret_input->data, ret_input) : BB_ZMTP_FRAME;
}

void bb_zmtp_greeting(uint8_t to[BB_ZMTP_GREETING_LEN])
{
    static const uint8_t start[] = {0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0, 'N', 'U', 'L', 'L'};
    memset(to, 0, BB_ZMTP_GREETING_LEN);
    memcpy(to, start, sizeof(start));
}

void bb_zmtp_ready(struct bb_buf *out, enum bb_zmtp_role role)
{
    static const uint8_t ready[] = "\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06";
    bb_buf_append(out, ready, sizeof(ready) - 1);
    bb_buf_append(out, role_rows[role].type, TYPE_LEN);
}

void bb_zmtp_pong(struct bb_buf *out, struct bb_slice context)
{
    const uint8_t head[] = {FLAG_COMMAND, (uint8_t)(5 + context.len), 4, 'P', 'O', 'N', 'G'};
    bb_buf_append(out, head, sizeof(head));
    bb_buf_append(out, context.data, context.len);
}

size_t bb_zmtp_head(uint8_t to[BB_ZMTP_HEAD_MAX], size_t len, bool more)
{
    uint8_t flags = more ? FLAG_MORE : 0;
    if (len <= UINT8_MAX) {
        to[0] = flags;
        to[1] = (uint8_t)len;
        return 2;
    }
    to[0] = (uint8_t)(flags | FLAG_LONG);
    for (size_t i = 0; i < 8; i++) {
        to[1 + i] = (uint8_t)((uint64_t)len >> (56 - 8 * i));
    }
    return BB_ZMTP_HEAD_MAX;
}
