# SPDX-License-Identifier: BSD-3-Clause
# How this project makes its libraries, programs and tests.

# Flags every target of ours gets.
add_library(tripwire_options INTERFACE)
target_include_directories(tripwire_options INTERFACE
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
  $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}>
  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/tripwire>)
target_compile_features(tripwire_options INTERFACE cxx_std_20)
target_compile_options(tripwire_options INTERFACE
  $<BUILD_INTERFACE:-Wall;-Wextra;-Werror=return-type;-Wno-missing-field-initializers>)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # It sees overlaps and overflows in std::string and std::vector, inlined, that
  # are none (GCC bug 105651, and its like).
  target_compile_options(tripwire_options INTERFACE
    $<BUILD_INTERFACE:-Wno-restrict;-Wno-stringop-overflow>)
endif()
if(TRIPWIRE_SANITIZE)
  target_compile_options(tripwire_options INTERFACE
    $<BUILD_INTERFACE:-fsanitize=${TRIPWIRE_SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=all>)
  target_link_options(tripwire_options INTERFACE
    $<BUILD_INTERFACE:-fsanitize=${TRIPWIRE_SANITIZE}>)
endif()
if(TRIPWIRE_FUZZERS)
  # Coverage for libFuzzer in every layer; harmless to programs without it.
  target_compile_options(tripwire_options INTERFACE
    $<BUILD_INTERFACE:-fsanitize=fuzzer-no-link>)
  target_link_options(tripwire_options INTERFACE
    $<BUILD_INTERFACE:-fsanitize=fuzzer-no-link>)
endif()

# Half of the time of a sanitizer build is reading the same headers again. With
# TRIPWIRE_PCH they are read once for libraries and once for tests. The release
# build does without, so that a file which forgets an include is found out.
function(tripwire_precompile target kind)
  if(NOT TRIPWIRE_PCH)
    return()
  endif()
  if(NOT TARGET tripwire_pch_${kind})
    set(source ${PROJECT_BINARY_DIR}/pch/${kind}.cc)
    file(CONFIGURE OUTPUT ${source} CONTENT "// Nothing but the headers.\n")
    if(kind STREQUAL tests)
      add_executable(tripwire_pch_tests EXCLUDE_FROM_ALL ${source})
      target_link_libraries(tripwire_pch_tests PRIVATE tripwire_options GTest::gmock GTest::gtest_main)
      target_precompile_headers(tripwire_pch_tests PRIVATE <gmock/gmock.h> <gtest/gtest.h>)
    else()
      add_library(tripwire_pch_${kind} OBJECT EXCLUDE_FROM_ALL ${source})
      target_link_libraries(tripwire_pch_${kind} PRIVATE tripwire_options)
    endif()
    target_precompile_headers(tripwire_pch_${kind} PRIVATE
      <algorithm> <atomic> <chrono> <condition_variable> <cstring> <deque> <filesystem>
      <functional> <map> <memory> <mutex> <optional> <set> <span> <sstream> <string> <thread>
      <vector> <absl/container/flat_hash_map.h> <absl/status/statusor.h>
      <absl/strings/str_cat.h> <absl/strings/str_format.h> <absl/time/time.h>)
  endif()
  target_precompile_headers(${target} REUSE_FROM tripwire_pch_${kind})
endfunction()

if(TRIPWIRE_PCH)
  target_compile_options(tripwire_options INTERFACE
    $<BUILD_INTERFACE:-pthread;SHELL:-Xclang -fno-pch-timestamp>)  # as GStreamer's users; the same for ccache
endif()

# The targets that `cmake --install` exports; the programs' own layers
# (fs-server, fuse-client, periph) are not part of the library.
set_property(GLOBAL PROPERTY TRIPWIRE_INSTALLED_TARGETS tripwire_options)
function(tripwire_install_target target)
  string(REGEX REPLACE "^tripwire_" "" export_name ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${export_name})
  set_property(GLOBAL APPEND PROPERTY TRIPWIRE_INSTALLED_TARGETS ${target})
endfunction()

# tripwire_library(NAME SOURCES file... [DEPENDS target...])
# A layer of the system, as a static library `tripwire_NAME`. DEPENDS is the
# whole list of what the layer may use: the layering is enforced by the linker,
# and for headers by cmake/check_layering.cmake.
function(tripwire_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  add_library(tripwire_${name} STATIC ${ARG_SOURCES})
  target_link_libraries(tripwire_${name} PUBLIC tripwire_options ${ARG_DEPENDS})
  tripwire_precompile(tripwire_${name} libraries)
  if(CMAKE_CURRENT_SOURCE_DIR MATCHES "^${PROJECT_SOURCE_DIR}/nic/"
     AND NOT CMAKE_CURRENT_SOURCE_DIR MATCHES "/nic/(tools|conform)")
    tripwire_install_target(tripwire_${name})
  endif()
endfunction()

# tripwire_program(NAME SOURCES file... [DEPENDS target...])
function(tripwire_program name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE tripwire_options ${ARG_DEPENDS})
  target_compile_definitions(${name} PRIVATE TRIPWIRE_VERSION="${PROJECT_VERSION}")
  set_target_properties(${name} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
  install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR}
          COMPONENT programs)
endfunction()

# What a sanitizer build tells its tests; third-party code that cannot be
# instrumented is named in the suppression files.
set(tripwire_sanitizer_environment
  "ASAN_OPTIONS=detect_stack_use_after_return=1:detect_container_overflow=0:abort_on_error=0"
  "LSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/sanitizers/lsan.supp:print_suppressions=0"
  "UBSAN_OPTIONS=print_stacktrace=1:suppressions=${PROJECT_SOURCE_DIR}/tests/sanitizers/ubsan.supp"
  "TSAN_OPTIONS=second_deadlock_stack=1:suppressions=${PROJECT_SOURCE_DIR}/tests/sanitizers/tsan.supp")

# A target that builds all tests with a label, so that a sanitizer build need
# not build the others.
foreach(label unit sim conformance posix system perf fuzz races)
  add_custom_target(${label}_tests)
endforeach()

function(tripwire_register_test name labels timeout)
  if(NOT timeout)
    set(timeout 300)
  endif()
  if(TRIPWIRE_SANITIZE)
    math(EXPR timeout "${timeout} * 4")
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${labels}" TIMEOUT ${timeout})
  set_property(TEST ${name} APPEND PROPERTY ENVIRONMENT
    "GTEST_OUTPUT=xml:${PROJECT_BINARY_DIR}/results/${name}.xml"
    ${tripwire_sanitizer_environment})
  foreach(label ${labels})
    if(label STREQUAL "perf")
      set_property(TEST ${name} PROPERTY RUN_SERIAL TRUE)  # they measure
    endif()
    if(TARGET ${label}_tests AND TARGET ${name})
      add_dependencies(${label}_tests ${name})
    endif()
  endforeach()
endfunction()

# tripwire_test(NAME SOURCES file... [DEPENDS target...] [LABELS label...]
#               [TIMEOUT seconds] [ARGS argument...] [NO_CTEST])
# A GoogleTest binary, one ctest entry for the binary. Labels: unit, sim,
# conformance, posix, system, perf. With NO_CTEST it is only built: something
# else (a system test) runs it.
function(tripwire_test name)
  cmake_parse_arguments(ARG "NO_CTEST" "TIMEOUT" "SOURCES;DEPENDS;LABELS;ARGS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE tripwire_options ${ARG_DEPENDS} GTest::gmock GTest::gtest_main)
  tripwire_precompile(${name} tests)
  if(ARG_LABELS STREQUAL unit)  # what they test is optimised, they need not be
    target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)
  endif()
  set_target_properties(${name} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests/bin)
  if(ARG_NO_CTEST)
    return()
  endif()
  add_test(NAME ${name} COMMAND ${name} ${ARG_ARGS})
  tripwire_register_test(${name} "${ARG_LABELS}" "${ARG_TIMEOUT}")
endfunction()

# tripwire_script_test(NAME COMMAND program argument... LABELS label...
#                      [TIMEOUT seconds])
# A test that is not a binary of ours: it counts as one.
function(tripwire_script_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "COMMAND;LABELS" ${ARGN})
  add_test(NAME ${name} COMMAND ${ARG_COMMAND})
  tripwire_register_test(${name} "${ARG_LABELS}" "${ARG_TIMEOUT}")
endfunction()

# tripwire_fuzzer(NAME SOURCES file... [DEPENDS target...] [MAX_LENGTH bytes]
#                 [SEEDS directory] [SECONDS seconds])
# A libFuzzer binary with `LLVMFuzzerTestOneInput`; does nothing unless
# TRIPWIRE_FUZZERS is on. Its test is a bounded run that starts from the inputs in
# SEEDS (a directory beside the CMakeLists.txt), if given, and keeps what it
# finds in the build directory.
function(tripwire_fuzzer name)
  if(NOT TRIPWIRE_FUZZERS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "MAX_LENGTH;SEEDS;SECONDS" "SOURCES;DEPENDS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE tripwire_options ${ARG_DEPENDS})
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  set_target_properties(${name} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests/bin)
  set(corpus ${PROJECT_BINARY_DIR}/fuzz/${name})
  file(MAKE_DIRECTORY ${corpus})
  if(NOT ARG_SECONDS)
    set(ARG_SECONDS 20)
  endif()
  if(NOT ARG_MAX_LENGTH)
    set(ARG_MAX_LENGTH 4096)
  endif()
  if(ARG_SEEDS)
    set(ARG_SEEDS ${CMAKE_CURRENT_SOURCE_DIR}/${ARG_SEEDS})
  endif()
  # The same seed each time: a check answers for the change it runs on, not for
  # luck. New seeds are for tests/fuzz/fuzz.sh.
  add_test(NAME ${name} COMMAND ${name} -seed=1 -max_total_time=${ARG_SECONDS}
    -max_len=${ARG_MAX_LENGTH} -timeout=20 -rss_limit_mb=3000
    -artifact_prefix=${corpus}- ${corpus} ${ARG_SEEDS})
  tripwire_register_test(${name} fuzz 300)
endfunction()
