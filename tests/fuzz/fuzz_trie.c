/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: lines; the first byte of a line says what to do with one of 32 entries and which one (`+` add,
 * `-` remove, else match), the rest is the pattern or path. A plain list with bb_pattern_matches(), which
 * fuzz_path holds to its own oracle, must report the same entries.
 */
#include "proto/base/error.h"
#include "proto/wire/path.h"
#include "proto/wire/trie.h"

#include "tests/check.h"

#define N_ITEMS 32

struct item {
    struct bb_trie_entry entry;
    struct bb_slice pattern;
    unsigned n_reported;
    bool is_in;
};

struct machine {
    struct bb_trie *trie;
    struct item items[N_ITEMS];
    size_t count;
    size_t empty_bytes;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int note(void *context, struct bb_trie_entry *entry)
{
    (void)context;
    BB_CONTAINER(entry, struct item, entry)->n_reported++;
    return 0;
}

static void add(struct machine *machine, struct item *item, struct bb_slice pattern)
{
    int r = bb_trie_add(machine->trie, &item->entry, pattern);
    if (item->is_in) {
        CHECK(r == BB_EINVAL);
        return;
    }
    CHECK(r == bb_pattern_check(pattern));
    if (r == 0) {
        item->pattern = pattern;
        item->is_in = true;
        machine->count++;
    }
}

static void take_out(struct machine *machine, struct item *item)
{
    bb_trie_remove(machine->trie, &item->entry);
    machine->count -= item->is_in ? 1 : 0;
    item->is_in = false;
}

static void match(struct machine *machine, struct bb_slice path)
{
    if (bb_path_check(path) < 0) {
        return;
    }
    CHECK(bb_trie_match(machine->trie, path, note, NULL) == 0);
    for (size_t i = 0; i < N_ITEMS; i++) {
        struct item *item = &machine->items[i];
        bool expected = item->is_in && bb_pattern_matches(item->pattern, path);
        CHECK(item->n_reported == (expected ? 1 : 0));
        item->n_reported = 0;
    }
}

static void run_line(struct machine *machine, struct bb_slice line)
{
    struct item *item = &machine->items[line.len > 1 ? line.data[1] % N_ITEMS : 0];
    struct bb_slice rest = line.len > 2 ? bb_slice(line.data + 2, line.len - 2) : bb_slice(NULL, 0);
    switch (line.len > 0 ? line.data[0] : 0) {
    case '+':
        add(machine, item, rest);
        break;
    case '-':
        take_out(machine, item);
        break;
    default:
        match(machine, line);
        break;
    }
    CHECK(bb_trie_count(machine->trie) == machine->count);
}

/* All that may stay is the hash table, of 64 pointers when new and doubled since. */
static void check_empties(struct machine *machine)
{
    const size_t table = 64 * sizeof(void *);
    for (size_t i = 0; i < N_ITEMS; i++) {
        take_out(machine, &machine->items[i]);
    }
    size_t more = bb_trie_bytes(machine->trie) - machine->empty_bytes;
    size_t times = more / table + 1;
    CHECK(more % table == 0 && (times & (times - 1)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct machine machine = {0};
    CHECK(bb_trie_new(size, &machine.trie) == 0);
    machine.empty_bytes = bb_trie_bytes(machine.trie);
    while (size > 0) {
        const uint8_t *newline = memchr(data, '\n', size);
        size_t len = newline != NULL ? (size_t)(newline - data) : size;
        run_line(&machine, bb_slice(data, len));
        data += newline != NULL ? len + 1 : len;
        size -= newline != NULL ? len + 1 : len;
    }
    /* Half of the inputs leave the entries in, to see that free needs nothing of them. */
    if (machine.count % 2 == 0) {
        check_empties(&machine);
    }
    bb_trie_free(machine.trie);
    return 0;
}
