/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/subs/account.h"

#include <assert.h>

uint64_t bk_account_lost(const struct bk_account *account)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < account->n_losses; i++) {
        n += account->losses[i].count;
    }
    return n;
}

bool bk_account_is_sound(const struct bk_account *account)
{
    uint64_t before = account->covered;
    for (uint32_t i = 0; i < account->n_losses; i++) {
        const struct bk_loss *loss = &account->losses[i];
        if (loss->to <= before || loss->count == 0 || loss->count > loss->to - before) {
            return false;
        }
        before = loss->to;
    }
    bool waits_behind = account->waiting == 0 || account->waiting_to > before;
    bool has_bytes = (account->waiting == 0) == (account->waiting_bytes == 0);
    return waits_behind && has_bytes &&
           account->arrived ==
               account->delivered + account->reported + bk_account_lost(account) + account->waiting;
}

void bk_account_arrive(struct bk_account *account, uint64_t to, uint64_t n, uint64_t bytes)
{
    assert(n > 0 && to > bk_account_settled(account));
    assert(account->waiting == 0 || to > account->waiting_to);
    account->arrived += n;
    account->waiting += n;
    account->waiting_bytes += bytes;
    account->waiting_to = to;
}

void bk_account_pass(struct bk_account *account, uint64_t to, uint64_t n)
{
    assert(account->waiting == 0 && account->n_losses == 0 && to >= account->covered);
    account->arrived += n;
    account->delivered += n;
    account->covered = to;
}

static void take_waiting(struct bk_account *account, uint64_t n, uint64_t bytes)
{
    assert(n <= account->waiting && bytes <= account->waiting_bytes);
    account->waiting -= n;
    account->waiting_bytes -= bytes;
}

void bk_account_deliver(struct bk_account *account, uint64_t to, uint64_t n, uint64_t bytes)
{
    assert(account->n_losses == 0 && to >= account->covered);
    take_waiting(account, n, bytes);
    account->delivered += n;
    account->covered = to;
}

void bk_account_lose(struct bk_account *account,
                     uint64_t to,
                     uint64_t n,
                     uint64_t bytes,
                     enum bk_reason reason)
{
    assert(n > 0 && to > bk_account_settled(account));
    take_waiting(account, n, bytes);
    struct bk_loss *last = account->n_losses > 0 ? &account->losses[account->n_losses - 1] : NULL;
    if (last != NULL && (last->reason == reason || account->n_losses == BK_ACCOUNT_LOSSES)) {
        last->to = to;
        last->count += n;
        return;
    }
    account->losses[account->n_losses++] = (struct bk_loss){to, n, reason};
}

void bk_account_lose_all(struct bk_account *account, enum bk_reason reason)
{
    if (account->waiting > 0) {
        bk_account_lose(account, account->waiting_to, account->waiting, account->waiting_bytes, reason);
    }
}

void bk_account_report(struct bk_account *account)
{
    account->reported += bk_account_lost(account);
    account->covered = bk_account_settled(account);
    account->n_losses = 0;
}

void bk_account_report_waiting(struct bk_account *account, uint64_t to, uint64_t n, uint64_t bytes)
{
    assert(account->n_losses == 0 && to > account->covered);
    take_waiting(account, n, bytes);
    account->reported += n;
    account->covered = to;
}

void bk_account_report_unseen(struct bk_account *account, uint64_t to, uint64_t n)
{
    assert(account->waiting == 0 && account->n_losses == 0 && to >= account->covered);
    account->arrived += n;
    account->reported += n;
    account->covered = to;
}

uint64_t bk_account_leave_to_log(struct bk_account *account)
{
    uint64_t bytes = account->waiting_bytes;
    account->arrived -= account->waiting;
    account->waiting = account->waiting_bytes = 0;
    return bytes;
}

void bk_account_retract(struct bk_account *account, uint64_t to)
{
    assert(account->waiting == 0 && account->n_losses == 0 && to <= account->covered);
    account->covered = to;
}
