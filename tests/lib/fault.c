/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/lib/fault.h"

#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static struct {
    size_t n_left; /* allocations that succeed */
    enum fault_mode mode;
    bool armed;
    bool inside;
    bool failed;
    size_t n_live;
} fault;

/* ld --wrap calls what it wraps __wrap_NAME and the original __real_NAME. */
#define LINKER_NAME(name) __asm__("__" #name)

void *real_malloc(size_t size) LINKER_NAME(real_malloc);
void *real_calloc(size_t n, size_t size) LINKER_NAME(real_calloc);
void *real_realloc(void *memory, size_t size) LINKER_NAME(real_realloc);
char *real_strdup(const char *text) LINKER_NAME(real_strdup);
void real_free(void *memory) LINKER_NAME(real_free);
void *wrap_malloc(size_t size) LINKER_NAME(wrap_malloc);
void *wrap_calloc(size_t n, size_t size) LINKER_NAME(wrap_calloc);
void *wrap_realloc(void *memory, size_t size) LINKER_NAME(wrap_realloc);
char *wrap_strdup(const char *text) LINKER_NAME(wrap_strdup);
void wrap_free(void *memory) LINKER_NAME(wrap_free);

void fault_start(size_t nth, enum fault_mode mode)
{
    fault.n_left = nth;
    fault.mode = mode;
    fault.armed = true;
    fault.failed = false;
}

bool fault_stop(void)
{
    fault.armed = false;
    return fault.failed;
}

void fault_enter(void)
{
    fault.inside = true;
}

bool fault_leave(void)
{
    bool was = fault.inside;
    fault.inside = false;
    return was;
}

size_t fault_live(void)
{
    return fault.n_live;
}

static bool must_fail(void)
{
    if (!fault.armed || !fault.inside) {
        return false;
    }
    if (fault.n_left > 0) {
        fault.n_left--;
        return false;
    }
    fault.failed = true;
    fault.armed = fault.mode == FAULT_ONWARD;
    return true;
}

static void *counted(void *memory)
{
    fault.n_live += memory != NULL;
    return memory;
}

void *wrap_malloc(size_t size)
{
    return must_fail() ? NULL : counted(real_malloc(size));
}

void *wrap_calloc(size_t n, size_t size)
{
    return must_fail() ? NULL : counted(real_calloc(n, size));
}

void *wrap_realloc(void *memory, size_t size)
{
    if (must_fail()) {
        return NULL;
    }
    bool is_new = memory == NULL;
    void *bigger = real_realloc(memory, size);
    return is_new ? counted(bigger) : bigger;
}

char *wrap_strdup(const char *text)
{
    return must_fail() ? NULL : counted(real_strdup(text));
}

void wrap_free(void *memory)
{
    fault.n_live -= memory != NULL;
    real_free(memory);
}

void fault_json_use(void)
{
    json_set_alloc_funcs(wrap_malloc, wrap_free);
}
