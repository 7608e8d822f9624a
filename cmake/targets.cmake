# SPDX-License-Identifier: BSD-3-Clause
# How this project makes its libraries, programs and tests.

# Flags every target of ours gets.
add_library(tripwire_options INTERFACE)
target_include_directories(tripwire_options INTERFACE
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
  $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}>
  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/tripwire>)
target_compile_options(tripwire_options INTERFACE
  $<BUILD_INTERFACE:-Wall;-Wextra;-Werror=return-type;-Wno-missing-field-initializers>)
if(TRIPWIRE_SANITIZE)
  target_compile_options(tripwire_options INTERFACE
    $<BUILD_INTERFACE:-fsanitize=${TRIPWIRE_SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=all>)
  target_link_options(tripwire_options INTERFACE
    $<BUILD_INTERFACE:-fsanitize=${TRIPWIRE_SANITIZE}>)
endif()

# tripwire_library(NAME SOURCES file... [DEPENDS target...])
# A layer of the system, as a static library `tripwire_NAME`. DEPENDS is the
# whole list of what the layer may use: the layering is enforced by the linker.
function(tripwire_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  add_library(tripwire_${name} STATIC ${ARG_SOURCES})
  target_link_libraries(tripwire_${name} PUBLIC tripwire_options ${ARG_DEPENDS})
endfunction()

# tripwire_program(NAME SOURCES file... [DEPENDS target...])
function(tripwire_program name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE tripwire_options ${ARG_DEPENDS})
  target_compile_definitions(${name} PRIVATE TRIPWIRE_VERSION="${PROJECT_VERSION}")
  set_target_properties(${name} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
  install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endfunction()

# tripwire_test(NAME SOURCES file... [DEPENDS target...] [LABELS label...])
# A GoogleTest binary, one ctest entry for the binary.
function(tripwire_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPENDS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE tripwire_options ${ARG_DEPENDS} GTest::gmock GTest::gtest_main)
  set_target_properties(${name} PROPERTIES
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/tests/bin)
  add_test(NAME ${name} COMMAND ${name})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT})
endfunction()
