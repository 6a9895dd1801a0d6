/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/answer.h"

#include "proto/base/error.h"
#include "proto/wire/mp.h"

static uint64_t read_uint_or_nil(struct bb_mp_reader *reader)
{
    if (bb_mp_peek_type(reader) == BB_MP_NIL) {
        bb_mp_read_nil(reader);
        return BB_UNKNOWN;
    }
    return bb_mp_read_uint(reader);
}

int bb_answer_read(struct bb_slice entry, uint64_t *ret_number, struct bb_answer *ret_answer)
{
    struct bb_mp_reader reader = bb_mp_reader(entry);
    struct bb_answer answer = {0};
    uint32_t fields = bb_mp_read_array(&reader);
    if (fields < 4) {
        return BB_EMALFORMED;
    }
    uint64_t number = bb_mp_read_uint(&reader);
    uint64_t level = bb_mp_read_uint(&reader);
    answer.matches = read_uint_or_nil(&reader);
    if (bb_mp_peek_type(&reader) == BB_MP_NIL) {
        bb_mp_read_nil(&reader);
        answer.repeated = true;
    } else {
        answer.positions = bb_mp_read_raw(&reader);
    }
    if (fields > 4 && bb_mp_peek_type(&reader) != BB_MP_NIL) {
        answer.refused = bb_mp_read_raw(&reader);
    }
    if (reader.error != 0) {
        return BB_EMALFORMED;
    }
    answer.level = (enum bb_level)BB_MIN(level, (uint64_t)BB_LEVEL_CONSUMED);
    *ret_number = number;
    *ret_answer = answer;
    return 0;
}

/* The head of one [ index, code ]; false when it cannot be read. */
static bool read_refusal(struct bb_mp_reader *reader, uint64_t *ret_index, int *ret_error)
{
    uint32_t fields = bb_mp_read_array(reader);
    if (fields < 2) {
        return false;
    }
    *ret_index = bb_mp_read_uint(reader);
    struct bb_slice code = bb_mp_read_str(reader);
    for (uint32_t i = 2; i < fields; i++) {
        bb_mp_skip(reader);
    }
    *ret_error = bb_error_from_code((const char *)code.data, code.len);
    return reader->error == 0;
}

/* Why event @index was refused, 0 if it was not; @ret_before: how many were refused before it. */
static int find_refusal(struct bb_slice refused, uint32_t index, uint32_t *ret_before)
{
    struct bb_mp_reader reader = bb_mp_reader(refused);
    uint32_t n = bb_mp_read_array(&reader);
    uint32_t before = 0;
    uint64_t at;
    int error;
    for (uint32_t i = 0; i < n && read_refusal(&reader, &at, &error); i++) {
        if (at == index) {
            return error;
        }
        before += at < index;
    }
    *ret_before = before;
    return 0;
}

/* The run that event @taken of those that were taken is in; false if there is none. */
static bool find_run(struct bb_answer *answer, uint64_t taken)
{
    struct bb_mp_reader reader = bb_mp_reader(answer->positions);
    uint32_t n = answer->positions.len > 0 ? bb_mp_read_array(&reader) : 0;
    struct bb_run run = {0};
    for (uint32_t i = 0; i < n && reader.error == 0; i++) {
        uint32_t fields = bb_mp_read_array(&reader);
        if (fields < 3) {
            break;
        }
        (void)bb_mp_read_str(&reader);
        run.first = bb_mp_read_uint(&reader);
        run.count = bb_mp_read_uint(&reader);
        for (uint32_t k = 3; k < fields; k++) {
            bb_mp_skip(&reader);
        }
        if (reader.error == 0 && taken - run.begin < run.count) {
            answer->run = run;
            return true;
        }
        run.begin += run.count;
    }
    return false;
}

int bb_answer_event(struct bb_answer *answer, uint32_t index, uint64_t *ret_sequence)
{
    uint32_t refused_before = 0;
    int error = answer->error;
    if (error == 0 && answer->refused.len > 0) {
        error = find_refusal(answer->refused, index, &refused_before);
    }
    uint64_t taken = index - refused_before;
    *ret_sequence = BB_UNKNOWN;
    if (error == 0 && refused_before <= index &&
        (taken - answer->run.begin < answer->run.count || find_run(answer, taken))) {
        *ret_sequence = answer->run.first + taken - answer->run.begin;
    }
    return error;
}

uint64_t bb_answer_refusals(const struct bb_answer *answer, uint32_t count, int *ret_error)
{
    struct bb_mp_reader reader = bb_mp_reader(answer->refused);
    uint64_t index;
    *ret_error = answer->error;
    if (answer->error != 0) {
        return count;
    }
    uint32_t n = answer->refused.len > 0 ? bb_mp_read_array(&reader) : 0;
    if (n > 0 && !read_refusal(&reader, &index, ret_error)) {
        *ret_error = BB_EREFUSED;
    }
    return BB_MIN(n, count);
}
