#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the built library exports is exactly what bus/busbar.sym lists.
#   symbols.sh BUILD_DIR
set -euo pipefail
cd "$(dirname "$0")/../.."

library=$(find "$1/bus" -name 'libbusbar.so*' -type f)
if [[ -z $library ]]; then
    echo "no libbusbar.so in $1/bus"
    exit 1
fi
listed=$(sed -E 's/#.*//; s,/\*.*\*/,,' bus/busbar.sym | grep -oE '\bbb_[a-z0-9_]+\b' | sort)
exported=$(nm -D --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort)
diff <(echo "$listed") <(echo "$exported") && exit 0
echo "(<: only in busbar.sym, >: only in $library)"
exit 1
