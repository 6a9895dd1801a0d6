/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answer to a query (PROTOCOL 15.2), found again by looking through everything. Events that may be gone,
 * are over, or came after the
 * question may be in it or not; all others must be right.
 */
#include "proto/wire/event.h"
#include "proto/wire/mp.h"

#include "tests/sim/model/match.h"
#include "tests/sim/model/published.h"
#include "tests/sim/world.h"

#include <stdio.h>
#include <stdlib.h>

/* An answer that ends before `max` with more to come has at least so many bytes (of the 512 KiB that it may
 * have). */
#define LARGE_ANSWER ((size_t)300000)

enum kind {
    KIND_TIMESERIES,
    KIND_LATEST,
    KIND_SERVER,
};

struct id {
    uint64_t session;
    uint64_t instance;
};

struct question {
    enum kind kind;
    struct bb_slice types;
    struct bb_slice ids;
    struct bb_slice payload;
    struct bb_slice where;
    struct bb_slice after_path;
    bool has_after_path;
    int64_t t_from, t_to, source_t_from, source_t_to;
    bool has_source_t;
    bool has_session;
    uint64_t session;
    bool ascending;
    bool by_source_time;
    bool unique;
    uint64_t max;
    bool has_after;
    struct id after;
    int64_t after_source_t;
};

/* An event that may be in the answer. */
struct candidate {
    const struct truth_event *event;
    bool is_sure;   /* it must be */
    bool is_before; /* of a page before: with `unique` its path has come */
};

/* --- the question ----------------------------------------------------------------------------- */

static bool is_word(struct bb_slice text, const char *word)
{
    return bb_slice_equal(text, bb_slice_str(word));
}

static void read_id(struct bb_mp_reader *reader, struct id *ret_id)
{
    (void)bb_mp_read_array(reader);
    (void)bb_mp_read_uint(reader);
    ret_id->session = bb_mp_read_uint(reader);
    ret_id->instance = bb_mp_read_uint(reader);
}

static void read_text_member(struct question *question, struct bb_slice key, struct bb_mp_reader *reader)
{
    struct bb_slice text = bb_mp_read_str(reader);
    if (is_word(key, "kind")) {
        question->kind = is_word(text, "latest")   ? KIND_LATEST
                         : is_word(text, "server") ? KIND_SERVER
                                                   : KIND_TIMESERIES;
    } else if (is_word(key, "order")) {
        question->ascending = is_word(text, "ascending");
    } else if (is_word(key, "order_by")) {
        question->by_source_time = is_word(text, "source_time");
    } else if (is_word(key, "where")) {
        question->where = text;
    } else if (is_word(key, "after_path")) {
        question->after_path = text;
        question->has_after_path = true;
    }
}

static void read_number_member(struct question *question, struct bb_slice key, struct bb_mp_reader *reader)
{
    int64_t number = bb_mp_read_int(reader);
    if (is_word(key, "t_from")) {
        question->t_from = number;
    } else if (is_word(key, "t_to")) {
        question->t_to = number;
    } else if (is_word(key, "source_t_from")) {
        question->source_t_from = number;
        question->has_source_t = true;
    } else if (is_word(key, "source_t_to")) {
        question->source_t_to = number;
        question->has_source_t = true;
    } else if (is_word(key, "session")) {
        question->has_session = true;
        question->session = (uint64_t)number;
    } else if (is_word(key, "max")) {
        question->max = (uint64_t)number;
    } else if (is_word(key, "after_source_t")) {
        question->after_source_t = number;
    }
}

static void read_question(struct bb_slice map, struct question *question)
{
    struct bb_mp_reader reader = bb_mp_reader(map);
    *question = (struct question){.t_from = INT64_MIN,
                                  .t_to = INT64_MAX,
                                  .source_t_from = INT64_MIN,
                                  .source_t_to = INT64_MAX,
                                  .max = 4096};
    for (uint32_t n = bb_mp_read_map(&reader); n > 0 && reader.error == 0; n--) {
        struct bb_slice key = bb_mp_read_str(&reader);
        if (is_word(key, "types")) {
            question->types = bb_mp_read_raw(&reader);
        } else if (is_word(key, "ids")) {
            question->ids = bb_mp_read_raw(&reader);
        } else if (is_word(key, "payload")) {
            question->payload = bb_mp_read_raw(&reader);
        } else if (is_word(key, "after")) {
            question->has_after = true;
            read_id(&reader, &question->after);
        } else if (is_word(key, "unique")) {
            question->unique = bb_mp_read_bool(&reader);
        } else if (bb_mp_peek_type(&reader) == BB_MP_STR) {
            read_text_member(question, key, &reader);
        } else {
            read_number_member(question, key, &reader);
        }
    }
    question->ascending = question->ascending || question->kind == KIND_SERVER;
}

/* --- conditions ------------------------------------------------------------------------------- */

/* `.[index] op number`, joined by `&&`: all that the peers ask. */
static bool holds(const struct truth_event *event, struct bb_slice where)
{
    char text[128] = {0};
    memcpy(text, where.data, BB_MIN(where.len, sizeof(text) - 1));
    for (const char *at = text; *at != '\0';) {
        char *end = NULL;
        uint64_t index = strtoull(at + 2, &end, 10);
        char op[3] = {end[2], end[3] == '=' ? '=' : '\0', '\0'};
        uint64_t number = strtoull(end + 3 + (op[1] != '\0'), &end, 10);
        struct bb_mp_reader reader = bb_mp_reader(event->payload);
        (void)bb_mp_read_array(&reader);
        for (; index > 0; index--) {
            bb_mp_skip(&reader);
        }
        uint64_t value = bb_mp_read_uint(&reader);
        bool is_true = strcmp(op, "==") == 0   ? value == number
                       : strcmp(op, "!=") == 0 ? value != number
                       : strcmp(op, ">=") == 0 ? value >= number
                       : strcmp(op, "<=") == 0 ? value <= number
                       : op[0] == '>'          ? value > number
                                               : value < number;
        if (!is_true) {
            return false;
        }
        at = *end != '\0' ? end + 4 : end; /* " && " */
    }
    return true;
}

static bool is_listed(const struct question *question, const struct truth_event *event)
{
    struct bb_mp_reader reader = bb_mp_reader(question->ids);
    for (uint32_t n = bb_mp_read_array(&reader); n > 0; n--) {
        struct id id;
        read_id(&reader, &id);
        if (id.session == event->session && id.instance == event->instance) {
            return true;
        }
    }
    return false;
}

static bool meets(const struct question *question, const struct truth_event *event)
{
    return (int64_t)event->time >= question->t_from && (int64_t)event->time <= question->t_to &&
           (!question->has_source_t ||
            (event->has_source_time && event->source_time >= question->source_t_from &&
             event->source_time <= question->source_t_to)) &&
           (!question->by_source_time || event->has_source_time) &&
           (!question->has_session || event->session == question->session) &&
           (question->ids.len == 0 || is_listed(question, event)) &&
           (question->payload.len == 0 || bb_mp_is_equal(question->payload, event->payload)) &&
           (question->where.len == 0 || holds(event, question->where));
}

/* --- what may be found ------------------------------------------------------------------------ */

static bool is_kept(const struct world *world, const struct truth_inc *inc)
{
    return inc->is_logged ? world->has_log : world->has_memory;
}

static bool is_newest_of_path(const struct truth_event *event)
{
    for (size_t i = event->sequence; i < event->inc->n; i++) {
        if (bb_slice_equal(event->inc->events[i]->path, event->path)) {
            return false;
        }
    }
    return true;
}

/* Whether a newer one of its path was there when it was asked: until then it stays, whatever is trimmed. */
static bool was_replaced(const struct asked_query *asked, const struct truth_event *event)
{
    for (size_t i = event->sequence; i < event->inc->n; i++) {
        const struct truth_event *newer = event->inc->events[i];
        if (newer->seen != 0 && newer->seen <= asked->rank && bb_slice_equal(newer->path, event->path)) {
            return true;
        }
    }
    return false;
}

static bool may_be_found(struct world *world,
                         const struct asked_query *asked,
                         const struct question *question,
                         const struct truth_event *event)
{
    const struct truth_inc *inc = event->inc;
    bool is_trimmed = event->sequence < inc->trim_done && inc->trim_done_at < asked->at &&
                      !(question->kind == KIND_LATEST && !was_replaced(asked, event));
    return !event->is_gone && is_kept(world, inc) &&
           !(inc->is_ended && inc->gone_at != 0 && inc->gone_at < asked->at) && !is_trimmed &&
           !truth_has_expired(world, event, world->now - asked->at + 20000) &&
           (question->types.len == 0 || match_any(question->types, event->path));
}

static bool must_be_found(struct world *world,
                          const struct asked_query *asked,
                          const struct question *question,
                          const struct truth_event *event)
{
    const struct truth_inc *inc = event->inc;
    bool stays =
        question->kind == KIND_LATEST ? is_newest_of_path(event) : !truth_may_be_trimmed(world, event);
    return event->seen != 0 && event->seen <= asked->rank && !inc->is_ended &&
           world->truth.names[inc->channel].n_rm_asked == 0 && stays &&
           !truth_may_have_expired(world, event) && (inc->is_logged || !world->memory.is_small);
}

/* --- order ------------------------------------------------------------------------------------ */

static const struct question *sorted_for; /* of qsort(), which has no context */

static int compare_ids(const struct truth_event *a, const struct truth_event *b)
{
    return a->session != b->session     ? (a->session < b->session ? -1 : 1)
           : a->instance != b->instance ? (a->instance < b->instance ? -1 : 1)
                                        : 0;
}

static int compare_paths(struct bb_slice a, struct bb_slice b)
{
    int r = memcmp(a.data, b.data, BB_MIN(a.len, b.len));
    return r != 0 ? r : a.len < b.len ? -1 : a.len > b.len;
}

static int compare(const void *left, const void *right)
{
    const struct truth_event *a = ((const struct candidate *)left)->event;
    const struct truth_event *b = ((const struct candidate *)right)->event;
    int r = 0;
    if (sorted_for->kind == KIND_LATEST) {
        r = compare_paths(a->path, b->path);
        return r != 0 ? r : compare_ids(b, a);
    }
    if (sorted_for->by_source_time && a->source_time != b->source_time) {
        r = a->source_time < b->source_time ? -1 : 1;
    }
    r = r != 0 ? r : compare_ids(a, b);
    return sorted_for->ascending ? r : -r;
}

/* Whether it lies behind the page before. */
static bool is_behind(const struct question *question, const struct truth_event *event)
{
    if (question->kind == KIND_LATEST) {
        return !question->has_after_path || compare_paths(event->path, question->after_path) > 0;
    }
    if (!question->has_after) {
        return true;
    }
    struct truth_event after = {.session = question->after.session,
                                .instance = question->after.instance,
                                .source_time = question->after_source_t};
    struct candidate a = {&after, false, false};
    struct candidate b = {event, false, false};
    return compare(&a, &b) < 0;
}

static size_t collect(struct world *world,
                      const struct asked_query *asked,
                      const struct question *question,
                      struct candidate *out)
{
    size_t n = 0;
    for (struct truth_event *event = world->truth.events; event != NULL; event = event->older) {
        bool is_before = !is_behind(question, event);
        bool may_be = event->inc != NULL && may_be_found(world, asked, question, event) &&
                      (question->unique || !is_before);
        if (may_be && (question->kind == KIND_LATEST || meets(question, event))) {
            out[n++] = (struct candidate){event, must_be_found(world, asked, question, event), is_before};
        }
    }
    qsort(out, n, sizeof(out[0]), compare);
    return n;
}

/* Of each path those are left that may be its newest; a condition then is on them. */
static size_t keep_latest(const struct question *question, struct candidate *list, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0; i < n;) {
        struct bb_slice path = list[i].event->path;
        bool is_known = false;
        bool all_meet = true;
        size_t first = kept;
        for (; i < n && bb_slice_equal(list[i].event->path, path); i++) {
            if (is_known) {
                continue;
            }
            is_known = list[i].is_sure;
            bool is_met = meets(question, list[i].event);
            all_meet = all_meet && is_met;
            if (is_met) {
                list[kept++] = list[i];
            }
        }
        for (size_t j = first; j < kept; j++) { /* one of them must come, if whichever it is would do */
            list[j].is_sure = is_known && all_meet && j + 1 == kept;
        }
    }
    return kept;
}

static const char *describe(const struct truth_event *event, const char *what)
{
    static char text[160];
    (void)snprintf(text, sizeof(text), "%llu of path '%.*s' (%llu.%llu, %s) %s",
                   (unsigned long long)event->sequence, (int)event->path.len, (const char *)event->path.data,
                   (unsigned long long)event->writer, (unsigned long long)event->serial,
                   event->inc->is_logged ? "logged" : "in memory", what);
    return text;
}

/* --- the answer ------------------------------------------------------------------------------- */

struct answer {
    const struct question *question;
    struct candidate *list;
    size_t n;
    size_t at;
    uint64_t n_events;
    size_t bytes;
    struct bb_slice *paths; /* that have come, for `unique` and the latest */
    size_t n_paths;
    uint64_t first_session;
    uint64_t last_session;
};

static bool has_come(const struct answer *answer, struct bb_slice path)
{
    for (size_t i = answer->n_paths; i > 0; i--) {
        if (bb_slice_equal(answer->paths[i - 1], path)) {
            return true;
        }
    }
    return false;
}

static bool is_one_a_path(const struct answer *answer)
{
    return answer->question->unique || answer->question->kind == KIND_LATEST;
}

static const char *take(struct answer *answer, const struct bb_block *block, uint64_t i, struct bb_slice raw)
{
    for (; answer->at < answer->n; answer->at++) {
        const struct candidate *candidate = &answer->list[answer->at];
        const struct truth_event *event = candidate->event;
        bool is_over = is_one_a_path(answer) && has_come(answer, event->path);
        if (event->session == block->session && event->instance == block->instance + i) {
            if (is_over) {
                return "a path comes twice";
            }
            answer->at++;
            answer->first_session = answer->n_events == 0 ? event->session : answer->first_session;
            answer->last_session = event->session;
            answer->n_events++;
            answer->paths[answer->n_paths++] = event->path;
            return event->sequence == block->sequence + i && event->time == block->time &&
                           event->source == block->source && event->len == raw.len &&
                           memcmp(event->raw, raw.data, raw.len) == 0
                       ? NULL
                       : "an event is not what was published";
        }
        bool comes_later = answer->question->kind == KIND_LATEST && answer->at + 1 < answer->n &&
                           bb_slice_equal(event->path, answer->list[answer->at + 1].event->path);
        if (candidate->is_sure && !is_over && !comes_later) {
            return describe(event, "is missing, or comes too late");
        }
    }
    return "an event is not of those asked for, or out of order, or does not exist any more";
}

/* The paths of the pages before have come; of those that may not have been there nobody knows. */
static void skip_before(struct answer *answer)
{
    for (; answer->at < answer->n && answer->list[answer->at].is_before; answer->at++) {
        const struct candidate *candidate = &answer->list[answer->at];
        if (candidate->is_sure && !has_come(answer, candidate->event->path)) {
            answer->paths[answer->n_paths++] = candidate->event->path;
        }
        for (size_t i = answer->at + 1; i < answer->n && !candidate->is_sure; i++) {
            bool is_same = bb_slice_equal(answer->list[i].event->path, candidate->event->path);
            answer->list[i].is_sure = answer->list[i].is_sure && !is_same;
        }
    }
}

static const char *read_answer(struct answer *answer, struct bb_slice rest)
{
    struct bb_block block;
    struct bb_event_view view;
    const char *why = NULL;
    while (rest.len > 0 && why == NULL) {
        if (bb_block_read(&rest, &block) < 0) {
            return "a block that cannot be read";
        }
        struct bb_slice events = bb_slice(rest.data, (size_t)block.length);
        rest = bb_slice(rest.data + block.length, rest.len - (size_t)block.length);
        for (uint64_t i = 0; i < block.count && why == NULL; i++) {
            why = bb_event_read(&events, &view) < 0 ? "an event that cannot be read"
                                                    : take(answer, &block, i, view.raw);
        }
    }
    return why;
}

/* PROTOCOL 15.2: a page ends with a whole session unless one alone is larger. */
static bool cuts_session(const struct answer *answer)
{
    bool cuts = false;
    for (size_t i = answer->at; i < answer->n && answer->first_session != answer->last_session; i++) {
        const struct candidate *candidate = &answer->list[i];
        cuts = cuts || (candidate->is_sure && candidate->event->session == answer->last_session);
    }
    return cuts;
}

static const char *check_end(const struct answer *answer, const struct bb_msg *msg)
{
    const struct question *question = answer->question;
    if (answer->n_events > question->max && question->kind != KIND_SERVER) {
        return "more events than asked for";
    }
    if (msg->more != 0 && question->kind == KIND_SERVER && cuts_session(answer)) {
        return "a page ends within a session";
    }
    if (msg->more != 0) {
        return answer->n_events < question->max && msg->body.len < LARGE_ANSWER &&
                       question->kind != KIND_SERVER
                   ? "there are more, and it ends too early"
                   : NULL;
    }
    for (size_t i = answer->at; i < answer->n; i++) {
        if (answer->list[i].is_sure &&
            !(is_one_a_path(answer) && has_come(answer, answer->list[i].event->path))) {
            return describe(answer->list[i].event, "is missing at the end");
        }
    }
    return NULL;
}

const char *query_judge(struct world *world, const struct asked_query *asked, const struct bb_msg *msg)
{
    struct question question;
    struct answer answer = {.question = &question};
    read_question(bb_buf_slice(&asked->bytes), &question);
    sorted_for = &question;
    answer.list = calloc(world->truth.n_events + 1, sizeof(*answer.list));
    answer.paths = calloc(world->truth.n_events + 1, sizeof(*answer.paths));
    if (answer.list == NULL || answer.paths == NULL) {
        abort();
    }
    answer.n = collect(world, asked, &question, answer.list);
    if (question.kind == KIND_LATEST) {
        answer.n = keep_latest(&question, answer.list, answer.n);
    }
    skip_before(&answer);
    const char *why = read_answer(&answer, msg->body);
    why = why != NULL ? why : check_end(&answer, msg);
    free(answer.list);
    free(answer.paths);
    return why;
}
