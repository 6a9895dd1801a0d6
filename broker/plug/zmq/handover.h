/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that libzmq carries from one thread to another. It orders that properly, but is not instrumented, so
 * the thread sanitizer cannot see it and has to be told. Without that sanitizer these are nothing.
 */
#pragma once

#if defined(__has_feature)
#    if __has_feature(thread_sanitizer)
#        define BB_THREAD_SANITIZER 1
#    endif
#elif defined(__SANITIZE_THREAD__)
#    define BB_THREAD_SANITIZER 1
#endif

#if defined(BB_THREAD_SANITIZER)
void __tsan_acquire(void *memory);
void __tsan_release(void *memory);
#    define BB_HANDOVER_GIVE(memory) __tsan_release(memory)
#    define BB_HANDOVER_TAKE(memory) __tsan_acquire(memory)
#else
/* Give before libzmq gets it, take where libzmq gives it back. */
#    define BB_HANDOVER_GIVE(memory) ((void)(memory))
#    define BB_HANDOVER_TAKE(memory) ((void)(memory))
#endif
