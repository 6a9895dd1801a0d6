/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The account of one subscription in one channel: what of the events that match it has been sent, was reported as lost, is lost and
 * not reported yet, or waits in memory. It is pure; nothing else writes these numbers, and each operation asserts what must
 * hold, so that a miscount shows where it happens. At every instant
 *
 *     arrived = delivered + reported + lost + waiting.
 *
 * What is fed from the log is not counted before it is sent: it waits there.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Why events are lost to a subscription (PROTOCOL 7.4). */
enum bk_reason {
    BK_REASON_OVERFLOW,
    BK_REASON_DROPPED_OLDEST,
    BK_REASON_DROPPED_NEWEST,
    BK_REASON_CONFLATED,
    BK_REASON_TRIMMED,
    BK_REASON_EXPIRED,
    BK_REASON_RETRACTED,
    BK_REASON_RESTART,
    BK_REASONS
};

/* Losses of so many kinds are told apart until they are reported; more are reported with the last. */
#define BK_ACCOUNT_LOSSES 2

/* Events that are lost and not reported: from the end of the loss before, or of what is covered, to here. */
struct bk_loss {
    uint64_t to;
    uint64_t count;
    enum bk_reason reason;
};

struct bk_account {
    uint64_t covered; /* the client knows the fate of every event up to here */
    uint64_t arrived;
    uint64_t delivered;
    uint64_t reported;
    uint64_t waiting;
    uint64_t waiting_bytes;
    uint64_t waiting_to; /* sequence of the newest event that ever waited */
    uint32_t n_losses;
    struct bk_loss losses[BK_ACCOUNT_LOSSES];
};

/** bk_account_lost() - events that are lost and not reported. */
uint64_t bk_account_lost(const struct bk_account *account);

/** bk_account_settled() - the fate of every event up to here is decided, reported or not. */
static inline uint64_t bk_account_settled(const struct bk_account *account)
{
    return account->n_losses > 0 ? account->losses[account->n_losses - 1].to : account->covered;
}

/** bk_account_is_sound() - the sum above, and the order of the losses. */
bool bk_account_is_sound(const struct bk_account *account);

/** bk_account_arrive() - @n events of @bytes, the last of them @to, wait from now on. */
void bk_account_arrive(struct bk_account *account, uint64_t to, uint64_t n, uint64_t bytes);

/** bk_account_pass() - @n events arrived and were sent, all up to @to is settled by that. Nothing waits. */
void bk_account_pass(struct bk_account *account, uint64_t to, uint64_t n);

/** bk_account_deliver() - @n events that waited were sent; all up to @to is settled. Losses were reported before. */
void bk_account_deliver(struct bk_account *account, uint64_t to, uint64_t n, uint64_t bytes);

/** bk_account_lose() - @n events that waited are lost, the last of them @to; to be reported. */
void bk_account_lose(struct bk_account *account,
                     uint64_t to,
                     uint64_t n,
                     uint64_t bytes,
                     enum bk_reason reason);

/** bk_account_lose_all() - the same of all that waits. */
void bk_account_lose_all(struct bk_account *account, enum bk_reason reason);

/** bk_account_report() - the losses were reported. */
void bk_account_report(struct bk_account *account);

/** bk_account_report_waiting() - @n events that waited were reported as lost at once; all up to @to is settled. */
void bk_account_report_waiting(struct bk_account *account, uint64_t to, uint64_t n, uint64_t bytes);

/** bk_account_report_unseen() - all up to @to, of which @n events are known, was reported as lost and never waited. */
void bk_account_report_unseen(struct bk_account *account, uint64_t to, uint64_t n);

/** bk_account_leave_to_log() - what waits will come out of the log: it is not counted here. Returns its bytes. */
uint64_t bk_account_leave_to_log(struct bk_account *account);

/** bk_account_retract() - what was sent behind @to does not exist any more. Nothing waits there. */
void bk_account_retract(struct bk_account *account, uint64_t to);
