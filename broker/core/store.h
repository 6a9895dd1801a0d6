/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Where channels are kept. */
enum bk_store {
    BK_STORE_MEMORY,
    BK_STORE_LOG,
    BK_STORES
};
