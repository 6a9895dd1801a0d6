/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one table of errors: the name in C, the number a function returns, the code on the wire and the
 * sentence for a person. Functions return 0 when done, a negative BB_E... otherwise.
 */
#pragma once

#include "proto/base/cc.h"

/* clang-format off */
/*        name              number  wire code             sentence */
#define BB_ERRORS(X) \
    X(BB_ENOMEM,            -1,  "no_memory",           "out of memory") \
    X(BB_EINVAL,            -2,  "bad_argument",        "an argument is not acceptable") \
    X(BB_ESYSTEM,           -3,  "system",              "the operating system refused a call") \
    X(BB_EAGAIN,            -4,  "again",               "nothing can be done now; try again later") \
    X(BB_ETIMEOUT,          -5,  "timeout",             "the time limit passed first") \
    X(BB_ECLOSED,           -6,  "closed",              "the handle was closed") \
    X(BB_ECONNECT,          -7,  "no_connection",       "no broker could be reached") \
    X(BB_EMALFORMED,        -8,  "malformed",           "the bytes are not well-formed") \
    X(BB_ETOOBIG,           -9,  "too_big",             "larger than the limit") \
    X(BB_ETOODEEP,          -10, "too_deep",            "nested more deeply than the limit") \
    X(BB_EUTF8,             -11, "bad_utf8",            "text is not valid UTF-8") \
    X(BB_EPATH,             -12, "bad_path",            "not a valid path") \
    X(BB_EPATTERN,          -13, "bad_pattern",         "not a valid pattern") \
    X(BB_EEVENT,            -14, "bad_event",           "not a valid event") \
    X(BB_EVERSION,          -15, "bad_version",         "no common protocol version") \
    X(BB_EHELLO,            -16, "hello_first",         "hello must be the first message") \
    X(BB_ESTATE,            -17, "bad_state",           "not allowed in this state") \
    X(BB_EUNKNOWN,          -18, "unknown_message",     "no such message") \
    X(BB_EEXISTS,           -19, "exists",              "it exists already") \
    X(BB_ENOTFOUND,         -20, "not_found",           "no such thing") \
    X(BB_ELIMIT,            -21, "limit",               "a limit of the broker is reached") \
    X(BB_EFULL,             -22, "full",                "a queue is full") \
    X(BB_EOVERFLOW,         -23, "overflow",            "a subscriber is too far behind") \
    X(BB_EREFUSED,          -24, "refused",             "the broker refused it") \
    X(BB_EROUTINGID,        -25, "bad_routing_id",      "the socket must not set a routing id") \
    X(BB_ESEQUENCE,         -26, "bad_sequence",        "numbers must be consecutive") \
    X(BB_ESHUTDOWN,         -27, "shutting_down",       "the broker is shutting down") \
    X(BB_EUNSUPPORTED,      -28, "unsupported",         "not supported by this broker") \
    X(BB_EDEADLOCK,         -29, "would_deadlock",      "a blocking call from inside a callback") \
    X(BB_EGAP,              -30, "gap",                 "events were lost") \
    X(BB_EUNKNOWNRESULT,    -31, "unknown_result",      "the connection broke before the answer came") \
    X(BB_ELOGFULL,          -32, "log_full",            "the log has no room; trim it or give it more") \
    X(BB_ELOGFAILED,        -33, "log_failed",          "the log cannot be written now") \
    X(BB_ECORRUPT,          -34, "corrupt",             "what was stored is damaged") \
    X(BB_ETIME,             -35, "bad_time",            "the time is before that of the event before") \
    X(BB_ECONFLICT,         -36, "conflict",            "the sequence is not the expected one")
/* clang-format on */

enum bb_errno {
#define X(name, number, code, text) name = (number),
    BB_ERRORS(X)
#undef X
};

/** bb_strerror() - the sentence for @error, "ok" for 0; never NULL; static. */
BB_API const char *bb_strerror(int error);

/** bb_errcode() - the wire code for @error ("bad_path"), "ok" for 0; never NULL; static. */
BB_API const char *bb_errcode(int error);

/** bb_error_from_code() - the number for a wire code of @len bytes, BB_EREFUSED when it is unknown. */
int bb_error_from_code(const char *code, size_t len);
