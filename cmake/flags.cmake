# SPDX-License-Identifier: Apache-2.0
# Compiler and linker flags of the whole tree: warnings, then sanitizers or hardening, never both.

include(CheckPIESupported)
check_pie_supported(LANGUAGES C)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

# -Og: the warnings that follow values through a function need an optimiser.
set(CMAKE_C_FLAGS_DEBUG "-Og -g")

add_compile_options(
  -Wall -Wextra -Wshadow -Wconversion -Wsign-conversion -Wstrict-prototypes -Wmissing-prototypes -Wvla
  -Wformat=2 -Wundef -Wcast-qual -Wwrite-strings -Wswitch-enum -Wnull-dereference
  -fno-common -fvisibility=hidden)
if(BUSBAR_WERROR)
  add_compile_options(-Werror)
endif()

if(BUSBAR_SANITIZE)
  add_compile_options(-fsanitize=${BUSBAR_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${BUSBAR_SANITIZE})
else()
  add_compile_options(-fstack-protector-strong -fstack-clash-protection)
  add_compile_options($<$<CONFIG:Release,RelWithDebInfo,MinSizeRel>:-D_FORTIFY_SOURCE=3>)
  add_link_options(-Wl,-z,relro,-z,now)
endif()
if(BUSBAR_BUILD_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link -UNDEBUG) # the invariants are what is fuzzed
endif()
