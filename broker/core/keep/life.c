/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/keep/life.h"

#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include <assert.h>
#include <stdlib.h>

void bk_lives_fini(struct bk_lives *lives)
{
    free(lives->past);
    *lives = (struct bk_lives){0};
}

void bk_lives_end(struct bk_lives *lives, uint64_t upto, uint64_t next)
{
    assert(next > lives->now);
    struct bk_life *past = realloc(lives->past, (lives->n_past + 1) * sizeof(*past));
    if (past == NULL) {
        lives->n_past = 0;
        lives->now = next;
        return;
    }
    lives->past = past;
    for (uint32_t i = 0; i < lives->n_past; i++) { /* what is taken back now is taken back from them too */
        past[i].upto = BB_MIN(past[i].upto, upto);
    }
    past[lives->n_past++] = (struct bk_life){lives->now, upto};
    if (lives->n_past > BK_LIVES_MAX) {
        lives->n_past--;
        memmove(past, past + 1, lives->n_past * sizeof(*past));
    }
    lives->now = next;
}

enum bk_verdict bk_lives_judge(const struct bk_lives *lives,
                               uint64_t life,
                               uint64_t sequence,
                               uint64_t last,
                               uint64_t *ret_upto)
{
    bool is_known = life == lives->now;
    *ret_upto = last;
    for (uint32_t i = 0; i < lives->n_past && !is_known; i++) {
        is_known = lives->past[i].life == life;
        *ret_upto = is_known ? lives->past[i].upto : last;
    }
    if (!is_known) {
        return BK_POSITION_VOID;
    }
    return sequence <= *ret_upto ? BK_POSITION_HOLDS : BK_POSITION_ENDED;
}

uint64_t bk_lives_at(const struct bk_lives *lives, uint64_t run)
{
    uint64_t found = lives->now <= run ? lives->now : 0;
    for (uint32_t i = lives->n_past; i > 0 && found == 0; i--) {
        found = lives->past[i - 1].life <= run ? lives->past[i - 1].life : 0;
    }
    return found;
}

void bk_lives_write(struct bb_buf *out, const struct bk_lives *lives)
{
    bb_mp_write_array(out, 1 + 2 * lives->n_past);
    bb_mp_write_uint(out, lives->now);
    for (uint32_t i = 0; i < lives->n_past; i++) {
        bb_mp_write_uint(out, lives->past[i].life);
        bb_mp_write_uint(out, lives->past[i].upto);
    }
}

int bk_lives_read(struct bb_slice bytes, struct bk_lives *ret_lives)
{
    struct bb_mp_reader reader = bb_mp_reader(bytes);
    uint32_t n = bb_mp_read_array(&reader);
    struct bk_lives lives = {.now = bb_mp_read_uint(&reader)};
    if (reader.error != 0 || n % 2 == 0 || n / 2 > BK_LIVES_MAX) {
        return BB_ECORRUPT;
    }
    lives.n_past = n / 2;
    lives.past = calloc(BB_MAX(lives.n_past, 1), sizeof(*lives.past));
    if (lives.past == NULL) {
        return BB_ENOMEM;
    }
    uint64_t before = 0;
    for (uint32_t i = 0; i < lives.n_past; i++) {
        lives.past[i].life = bb_mp_read_uint(&reader);
        lives.past[i].upto = bb_mp_read_uint(&reader);
        if (i > 0 && lives.past[i].life <= before) {
            reader.error = BB_ECORRUPT;
        }
        before = lives.past[i].life;
    }
    if (reader.error != 0 || (lives.n_past > 0 && lives.now <= before)) {
        free(lives.past);
        return BB_ECORRUPT;
    }
    *ret_lives = lives;
    return 0;
}
