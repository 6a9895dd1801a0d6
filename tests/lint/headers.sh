#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Each header compiles alone; busbar.h also as it is installed, without this tree, in C and in C++.
#   headers.sh BUILD_DIR
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 2

readonly warnings=(-Wall -Wextra -Wundef -Werror -fsyntax-only)
read -ra packages < <(pkg-config --cflags libzmq jansson)
result=0

while read -r header; do
    # not as the main file, where `#pragma once` is a warning
    gcc -x c -std=gnu11 "${warnings[@]}" "${packages[@]}" -I . -include "$header" /dev/null || result=1
done < <(find proto bus broker tools tests -name '*.h' | sort)

readonly root=$1/installed
rm -rf "$root"
cmake --install "$1" --prefix "$root" >/dev/null || exit 1
include=$(dirname "$(find "$root" -name busbar.h)")
gcc -x c -std=c11 -pedantic "${warnings[@]}" -I "$include" -include busbar.h /dev/null || result=1
clang-14 -x c++ -std=c++11 -pedantic "${warnings[@]}" -I "$include" -include busbar.h /dev/null || result=1
exit $result
