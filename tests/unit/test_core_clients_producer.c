/* SPDX-License-Identifier: Apache-2.0 */
/* Producers: epochs, outcomes, and who is forgotten. */
#include "proto/wire/event.h"

#include "broker/core/clients/client.h"
#include "broker/core/clients/producer.h"
#include "tests/unit/core_rig.h"

#include <stdio.h>

static void id_of(uint64_t n, uint8_t *id)
{
    memset(id, 0, BB_CLIENT_ID_LEN);
    memcpy(id, &n, sizeof(n));
}

Test(core_clients_producer, what_became_of_the_last_numbers_is_known)
{
    struct bk_producer producer = {.last = 300};
    bk_producer_note(&producer, 44, BB_EFULL);
    bk_producer_note(&producer, 45, BB_EINVAL);
    bk_producer_note(&producer, 300, BB_ELOGFAILED);
    cr_assert_eq(producer.refused, 300);
    cr_assert_eq(bk_producer_outcome(&producer, 300), BB_ELOGFAILED);
    cr_assert_eq(bk_producer_outcome(&producer, 45), BB_EINVAL);
    cr_assert_eq(bk_producer_outcome(&producer, 44), 0, "too long ago, and its place is another one's");
    cr_assert_eq(bk_producer_outcome(&producer, 301), 0, "not taken yet");
    cr_assert_eq(bk_producer_outcome(&producer, 0), 0);
    bk_producer_note(&producer, 300, 0);
    cr_assert_eq(bk_producer_outcome(&producer, 300), 0);
}

Test(core_clients_producer, it_is_made_by_the_first_number_and_not_by_hello)
{
    struct rig rig;
    uint8_t id[BB_CLIENT_ID_LEN] = "p";
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello(&rig, 0, "p", 3);
    cr_assert_null(bk_producer_find(rig.core, id));
    rig_publish(&rig, 0, 0, "a/x");
    cr_assert_null(bk_producer_find(rig.core, id), "nor by fire and forget");
    rig_publish(&rig, 0, 1, "a/x");
    cr_assert_eq(bk_producer_find(rig.core, id)->client, rig.peers[0].client);
    cr_assert_eq(bk_producer_find(rig.core, id)->epoch, 3);
    rig_stop(&rig);
}

Test(core_clients_producer, a_client_without_an_id_counts_for_its_connection)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_publish(&rig, 0, 5, "a/x");
    rig_publish(&rig, 0, 5, "a/x");
    RIG_TOLD(&rig, 0, "ack 5@1 a1+1; ack 5@0 repeated");
    cr_assert_eq(bb_map_count(&rig.core->producers), 0);
    rig_stop(&rig);
}

Test(core_clients_producer, many_clients_that_never_publish_make_it_forget_nobody)
{
    struct rig rig;
    rig_init(&rig);
    rig.config.check = false; /* after each of so many calls it takes long */
    rig_start(&rig, false, false);
    rig_hello(&rig, 0, "publisher", 1);
    rig_publish(&rig, 0, 1, "a/x");
    rig_gone(&rig, 0);
    rig_gone(&rig, 1);
    for (uint64_t i = 0; i < BK_PRODUCERS_IDLE_MAX + 10; i++) {
        char id[BB_CLIENT_ID_LEN];
        (void)snprintf(id, sizeof(id), "%llu", (unsigned long long)i);
        rig_new_peer(&rig, 1);
        rig_hello(&rig, 1, id, 1);
        rig_gone(&rig, 1);
    }
    rig_new_peer(&rig, 0);
    rig_hello(&rig, 0, "publisher", 1);
    rig_publish(&rig, 0, 1, "a/x");
    RIG_TOLD(&rig, 0, "welcome 1; ack 1@0 repeated");
    cr_assert_eq(rig_channel(&rig, "a")->last, 1, "it is there once");
    rig_stop(&rig);
}

Test(core_clients_producer, of_too_many_without_a_connection_the_oldest_is_forgotten)
{
    struct rig rig;
    uint8_t id[BB_CLIENT_ID_LEN];
    rig_init(&rig);
    rig_start(&rig, false, false);
    for (uint64_t i = 0; i < BK_PRODUCERS_IDLE_MAX; i++) {
        id_of(i, id);
        cr_assert_not_null(bk_producer_get(rig.core, id, 1));
    }
    rig_hello(&rig, 0, "publisher", 1);
    rig_publish(&rig, 0, 1, "a/x");
    cr_assert_eq(rig.core->n_idle, BK_PRODUCERS_IDLE_MAX);
    rig_gone(&rig, 0);
    cr_assert_eq(rig.core->n_idle, BK_PRODUCERS_IDLE_MAX);
    id_of(0, id);
    cr_assert_null(bk_producer_find(rig.core, id));
    id_of(1, id);
    cr_assert_not_null(bk_producer_find(rig.core, id));
    cr_assert_not_null(bk_producer_find(rig.core, (const uint8_t *)"publisher\0\0\0\0\0\0\0"));
    rig_stop(&rig);
}

Test(core_clients_producer, a_newer_epoch_counts_anew_and_the_log_forgets_the_older)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, true);
    rig_hello(&rig, 0, "p", 1);
    rig_publish(&rig, 0, 1, "a/x");
    rig_settle(&rig);
    rig_publish(&rig, 0, 2, "a/x");
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "welcome 0; ack 1@3 a1+1; ack 2@3 a2+1");
    rig_hello(&rig, 1, "p", 2);
    rig_settle(&rig);
    rig_restart(&rig, true);
    rig_hello(&rig, 0, "p", 1);
    RIG_TOLD(&rig, 0, "error hello/1 exists");
    rig_hello(&rig, 1, "p", 2);
    rig_publish(&rig, 1, 1, "a/x");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "welcome 0; ack 1@3 a3+1");
    rig_stop(&rig);
}

Test(core_clients_producer, how_far_it_came_outlives_the_broker)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, true);
    rig_hello(&rig, 0, "p", 1);
    rig_publish(&rig, 0, 1, "a/x");
    rig_publish(&rig, 0, 2, "a/x a/x");
    rig_commit(&rig);
    rig_restart(&rig, true); /* the second one was on its way */
    rig_hello(&rig, 0, "p", 1);
    rig_publish(&rig, 0, 1, "a/x");
    rig_publish(&rig, 0, 2, "a/x a/x");
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "welcome 1; ack 1@0 repeated; ack 2@3 a2+2");
    rig_stop(&rig);
}

/* Its heads are so many that room is made when it has its number already: by registering the batch before. */
Test(core_clients_producer, the_log_hears_of_a_number_with_its_own_batch_and_not_with_the_one_before)
{
    enum {
        N_RUNS = 3000
    };
    struct rig rig;
    char paths[4 * N_RUNS + 1];
    struct bb_buf events = BB_BUF_INIT;
    rig_init(&rig);
    rig_start(&rig, false, true);
    rig_hello(&rig, 0, "p", 1);
    for (size_t i = 0; i < N_RUNS; i++) {
        memcpy(paths + 4 * i, i % 2 == 0 ? "a/x " : "b/x ", 5);
    }
    rig_events(&rig, paths, &events);
    rig.log->backend.max_ticket = events.len + N_RUNS * BB_BLOCK_HEAD_MAX;
    bb_buf_fini(&events);
    rig_batch(&rig, 0, 1, "a/x");
    rig_batch(&rig, 0, 2, paths);
    rig_commit(&rig);
    rig_restart(&rig, true); /* the second one was on its way */
    rig_hello(&rig, 0, "p", 1);
    rig_publish(&rig, 0, 2, "a/x");
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "welcome 1; ack 2@3 a2+1");
    rig_stop(&rig);
}

Test(core_clients_producer, what_was_refused_is_remembered_by_the_log)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, true);
    rig_hello(&rig, 0, "p", 1);
    rig.level = 4;
    rig_publish(&rig, 0, 1, "a/x");
    rig.level = 0;
    rig_publish(&rig, 0, 2, "a/x a/?");
    rig_publish(&rig, 0, 3, "a/x");
    rig_settle(&rig);
    RIG_TOLD(&rig, 0,
             "welcome 0; error publish/1 unsupported; ack 2@3 a1+1 refused 1:bad_path; ack 3@3 a2+1");
    rig_restart(&rig, true);
    rig_hello(&rig, 0, "p", 1);
    rig_publish(&rig, 0, 1, "a/x");
    rig_publish(&rig, 0, 2, "a/x a/?");
    RIG_TOLD(&rig, 0, "welcome 3; error publish/1 unsupported; error publish/2 unknown_result");
    rig_stop(&rig);
}

/* It waits for its answer behind what is on its way, and what comes after it takes the word of it to the log. */
Test(core_clients_producer, what_has_failed_and_is_not_answered_yet_is_remembered_by_the_log)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, true);
    rig_hello(&rig, 0, "p", 1);
    rig_publish(&rig, 0, 1, "a/x");
    rig.log->refusal = BB_ELOGFULL;
    rig_publish(&rig, 0, 2, "a/x");
    rig.log->refusal = 0;
    rig_publish(&rig, 0, 3, "a/x");
    RIG_TOLD(&rig, 0, "welcome 0");
    rig_settle(&rig);
    rig_restart(&rig, true);
    rig_hello(&rig, 0, "p", 1);
    rig_publish(&rig, 0, 2, "a/x");
    RIG_TOLD(&rig, 0, "welcome 3; error publish/2 log_full");
    rig_stop(&rig);
}

/* What the log is to be told of it is not told any more. */
Test(core_clients_producer, one_that_is_forgotten_leaves_those_that_the_log_is_to_be_told_of)
{
    struct rig rig;
    uint8_t id[BB_CLIENT_ID_LEN];
    rig_init(&rig);
    rig.config.check = false;
    rig_start(&rig, false, true);
    for (size_t i = 0; i < 3; i++) {
        rig_hello(&rig, i, (const char *[]){"publisher p", "publisher q", "publisher r"}[i], 1);
        rig_batch(&rig, i, 1, "a/x");
    }
    for (uint64_t i = 0; i < BK_PRODUCERS_IDLE_MAX; i++) {
        id_of(i, id);
        cr_assert_not_null(bk_producer_get(rig.core, id, 1));
    }
    rig_gone(&rig, 1); /* it is the newest without a connection: the oldest goes */
    struct bk_producer *oldest = rig.core->idle_first;
    bk_producer_stage(rig.core, oldest);
    bk_producer_stage(rig.core, rig.peers[0].client->producer);
    rig_gone(&rig, 2);
    size_t n = 0;
    for (const struct bk_producer *at = rig.core->stage.producers; at != NULL; at = at->next_staged) {
        cr_assert_neq(at, oldest);
        n++;
    }
    cr_assert_eq(n, 3);
    rig_settle(&rig);
    rig_stop(&rig);
}
