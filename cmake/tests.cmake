# SPDX-License-Identifier: Apache-2.0
# How tests are declared. Whatever a test prints that a sanitizer would print makes it fail.

set(BUSBAR_FAIL_REGEX
  "Tested: 0 ;LeakSanitizer;AddressSanitizer;ThreadSanitizer;runtime error:")

# busbar_suites(<exe> <suite>...): one Criterion program; test_<suite>.c holds exactly the suite of that
# name and each suite is one ctest entry. The caller links what is tested.
function(busbar_suites exe)
  list(TRANSFORM ARGN REPLACE "(.+)" "test_\\1.c" OUTPUT_VARIABLE sources)
  add_executable(${exe} ${sources})
  target_link_libraries(${exe} PRIVATE PkgConfig::CRITERION)
  foreach(suite IN LISTS ARGN)
    add_test(NAME ${exe}/${suite} COMMAND ${exe} --filter "${suite}/*")
    set_tests_properties(${exe}/${suite} PROPERTIES
      LABELS unit TIMEOUT 120 FAIL_REGULAR_EXPRESSION "${BUSBAR_FAIL_REGEX}")
  endforeach()
endfunction()

# busbar_fuzz(<target> <library>...): fuzz_<target>.c with libFuzzer in a fuzz build; otherwise with
# driver.c, as a test that replays corpus/<target>.
function(busbar_fuzz target)
  set(exe fuzz_${target})
  add_executable(${exe} ${exe}.c)
  target_link_libraries(${exe} PRIVATE ${ARGN})
  if(BUSBAR_BUILD_FUZZ)
    target_link_options(${exe} PRIVATE -fsanitize=fuzzer)
  else()
    target_sources(${exe} PRIVATE driver.c)
    add_test(NAME fuzz/${target} COMMAND ${exe} ${CMAKE_CURRENT_SOURCE_DIR}/corpus/${target})
    set_tests_properties(fuzz/${target} PROPERTIES
      LABELS fuzz TIMEOUT 120 FAIL_REGULAR_EXPRESSION "${BUSBAR_FAIL_REGEX}")
  endif()
  add_dependencies(fuzzers ${exe})
endfunction()
