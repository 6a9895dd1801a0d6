/* SPDX-License-Identifier: Apache-2.0 */
/* The connection machine in virtual time. */
#include "bus/conn_sm.h"

#include <criterion/criterion.h>

static const struct bb_conn_config config = {
    .open_ms = 5000,
    .heartbeat_ms = 1000,
    .pause_min_ms = 100,
    .pause_max_ms = 1600,
    .seed = 42,
};

/* A machine that has just been welcomed at @now. */
static struct bb_conn ready_at(uint64_t now)
{
    struct bb_conn conn;
    bb_conn_init(&conn, &config);
    cr_assert_eq(bb_conn_tick(&conn, now), BB_CONN_DO_OPEN);
    cr_assert_eq(bb_conn_connected(&conn, now), BB_CONN_DO_HELLO);
    bb_conn_welcomed(&conn, now, 1000);
    cr_assert_eq(conn.state, BB_CONN_READY);
    return conn;
}

Test(bus_conn, opens_at_the_first_tick_and_says_hello_when_connected)
{
    struct bb_conn conn;
    bb_conn_init(&conn, &config);
    cr_assert_eq(conn.state, BB_CONN_IDLE);
    cr_assert_eq(bb_conn_tick(&conn, 0), BB_CONN_DO_OPEN);
    cr_assert_eq(conn.state, BB_CONN_CONNECTING);
    cr_assert_eq(bb_conn_connected(&conn, 10), BB_CONN_DO_HELLO);
    cr_assert_eq(conn.state, BB_CONN_HELLO_SENT);
    cr_assert_eq(bb_conn_connected(&conn, 11), 0);
}

Test(bus_conn, a_connection_that_takes_too_long_is_given_up)
{
    struct bb_conn conn;
    bb_conn_init(&conn, &config);
    (void)bb_conn_tick(&conn, 0);
    cr_assert_eq(bb_conn_tick(&conn, 4999), 0);
    cr_assert_eq(bb_conn_tick(&conn, 5000), BB_CONN_DO_BREAK);
    cr_assert_eq(conn.state, BB_CONN_WAITING);
}

Test(bus_conn, a_welcome_that_takes_too_long_is_given_up)
{
    struct bb_conn conn;
    bb_conn_init(&conn, &config);
    (void)bb_conn_tick(&conn, 0);
    (void)bb_conn_connected(&conn, 3000);
    cr_assert_eq(bb_conn_tick(&conn, 5000), 0);
    cr_assert_eq(bb_conn_tick(&conn, 8000), BB_CONN_DO_BREAK);
}

Test(bus_conn, pings_once_for_each_interval_of_silence_and_gives_up_after_the_third)
{
    struct bb_conn conn = ready_at(0);
    cr_assert_eq(bb_conn_deadline(&conn), 1000);
    cr_assert_eq(bb_conn_tick(&conn, 1000), BB_CONN_DO_PING);
    cr_assert_eq(bb_conn_deadline(&conn), 2000);
    cr_assert_eq(bb_conn_tick(&conn, 1500), 0);
    cr_assert_eq(bb_conn_tick(&conn, 2000), BB_CONN_DO_PING);
    cr_assert_eq(bb_conn_tick(&conn, 3000), BB_CONN_DO_BREAK);
    cr_assert_eq(conn.state, BB_CONN_WAITING);
}

Test(bus_conn, any_message_counts_as_a_sign_of_life)
{
    struct bb_conn conn = ready_at(0);
    cr_assert_eq(bb_conn_tick(&conn, 1000), BB_CONN_DO_PING);
    bb_conn_heard(&conn, 1200);
    cr_assert_eq(bb_conn_tick(&conn, 2000), 0);
    cr_assert_eq(bb_conn_deadline(&conn), 2200);
    cr_assert_eq(bb_conn_tick(&conn, 2200), BB_CONN_DO_PING);
    cr_assert_eq(bb_conn_tick(&conn, 4199), BB_CONN_DO_PING);
    cr_assert_eq(bb_conn_tick(&conn, 4200), BB_CONN_DO_BREAK);
}

Test(bus_conn, an_interval_of_zero_never_pings)
{
    struct bb_conn conn;
    bb_conn_init(&conn, &config);
    (void)bb_conn_tick(&conn, 0);
    (void)bb_conn_connected(&conn, 0);
    bb_conn_welcomed(&conn, 0, 0);
    cr_assert_eq(bb_conn_deadline(&conn), UINT64_MAX);
    cr_assert_eq(bb_conn_tick(&conn, 1u << 30), 0);
}

Test(bus_conn, pauses_double_up_to_the_longest_and_are_at_least_half_random)
{
    struct bb_conn conn;
    uint64_t now = 0;
    uint64_t full = config.pause_min_ms;
    bb_conn_init(&conn, &config);
    for (int i = 0; i < 10; i++) {
        cr_assert_eq(bb_conn_tick(&conn, now), BB_CONN_DO_OPEN);
        cr_assert_eq(bb_conn_lost(&conn, now), BB_CONN_DO_BREAK);
        uint64_t pause = bb_conn_deadline(&conn) - now;
        cr_assert_leq(pause, full);
        cr_assert_geq(pause, full / 2);
        now = bb_conn_deadline(&conn);
        full = full * 2 > config.pause_max_ms ? config.pause_max_ms : full * 2;
    }
}

Test(bus_conn, machines_of_different_seeds_pause_differently)
{
    struct bb_conn_config other = config;
    other.seed = 43;
    struct bb_conn a;
    struct bb_conn b;
    int different = 0;
    bb_conn_init(&a, &config);
    bb_conn_init(&b, &other);
    for (int i = 0; i < 8; i++) {
        (void)bb_conn_tick(&a, UINT64_MAX / 2);
        (void)bb_conn_tick(&b, UINT64_MAX / 2);
        (void)bb_conn_lost(&a, 0);
        (void)bb_conn_lost(&b, 0);
        different += bb_conn_deadline(&a) != bb_conn_deadline(&b);
    }
    cr_assert_gt(different, 0);
}

Test(bus_conn, a_welcome_ends_the_growth_of_the_pauses)
{
    struct bb_conn conn;
    bb_conn_init(&conn, &config);
    for (int i = 0; i < 5; i++) {
        (void)bb_conn_tick(&conn, UINT64_MAX / 2);
        (void)bb_conn_lost(&conn, 0);
    }
    (void)bb_conn_tick(&conn, 100000);
    (void)bb_conn_connected(&conn, 100000);
    bb_conn_welcomed(&conn, 100000, 1000);
    cr_assert_eq(bb_conn_lost(&conn, 100000), BB_CONN_DO_BREAK);
    cr_assert_leq(bb_conn_deadline(&conn), 100000 + config.pause_min_ms);
}

Test(bus_conn, being_lost_twice_is_being_lost_once)
{
    struct bb_conn conn = ready_at(0);
    cr_assert_eq(bb_conn_lost(&conn, 10), BB_CONN_DO_BREAK);
    uint64_t deadline = bb_conn_deadline(&conn);
    cr_assert_eq(bb_conn_lost(&conn, 20), 0);
    cr_assert_eq(bb_conn_deadline(&conn), deadline);
}

Test(bus_conn, a_welcome_out_of_turn_changes_nothing)
{
    struct bb_conn conn;
    bb_conn_init(&conn, &config);
    (void)bb_conn_tick(&conn, 0);
    bb_conn_welcomed(&conn, 0, 1);
    cr_assert_eq(conn.state, BB_CONN_CONNECTING);
}

Test(bus_conn, closed_is_for_good)
{
    struct bb_conn conn = ready_at(0);
    cr_assert_eq(bb_conn_close(&conn), BB_CONN_DO_BREAK);
    cr_assert_eq(conn.state, BB_CONN_CLOSED);
    cr_assert_eq(bb_conn_close(&conn), 0);
    cr_assert_eq(bb_conn_tick(&conn, UINT64_MAX), 0);
    cr_assert_eq(bb_conn_lost(&conn, 0), 0);
    cr_assert_eq(bb_conn_connected(&conn, 0), 0);
}
