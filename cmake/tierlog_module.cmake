# How every target of the project is made: one call, with what it is made of and what it stands on.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

add_library(tierlog_flags INTERFACE)
target_compile_features(tierlog_flags INTERFACE cxx_std_20)
target_compile_options(tierlog_flags INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -fno-omit-frame-pointer
  # g++ 12 takes an inlined std::string::insert for overlapping copies (GCC bug 105651).
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
target_include_directories(tierlog_flags INTERFACE "${CMAKE_SOURCE_DIR}")
target_compile_definitions(tierlog_flags INTERFACE TIERLOG_VERSION="${PROJECT_VERSION}")
add_library(tierlog_test_flags INTERFACE)
if(TIERLOG_SANITIZE)
  # Null dereferences end in ASan's hands anyway; the rest left out doubles the compile time (decision 0008).
  target_compile_options(tierlog_flags INTERFACE -fsanitize=${TIERLOG_SANITIZE} -fno-sanitize-recover=all
    -fno-sanitize=null,vptr,object-size,pointer-overflow)
  # The tests' own lines are not what is tested: no optimisation, no UBSan.
  target_compile_options(tierlog_test_flags INTERFACE -O0 -fno-sanitize=undefined)
  target_link_options(tierlog_flags INTERFACE -fsanitize=${TIERLOG_SANITIZE})
endif()
# The same source gives the same objects wherever the tree lies, so that clones share one compiler cache.
target_compile_options(tierlog_flags INTERFACE "-ffile-prefix-map=${CMAKE_SOURCE_DIR}=.")
find_program(TIERLOG_CCACHE ccache)
if(TIERLOG_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env "CCACHE_BASEDIR=${CMAKE_SOURCE_DIR}" CCACHE_NOHASHDIR=1
    CCACHE_SLOPPINESS=pch_defines,time_macros ${TIERLOG_CCACHE})
endif()
# What nearly every file includes, parsed once. Off in release, where a missing #include shows itself.
# Every room counts its branches for the fuzzers, which link the driver.
if(TIERLOG_FUZZ)
  target_compile_options(tierlog_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

if(TIERLOG_PCH)
  file(CONFIGURE OUTPUT "${CMAKE_BINARY_DIR}/pch/empty.cpp" CONTENT "")
  set(std_headers <algorithm> <array> <atomic> <charconv> <chrono> <cstdint> <cstring> <filesystem> <fstream> <functional>
    <map> <memory> <mutex> <optional> <set> <span> <sstream> <string> <string_view> <thread> <unordered_map>
    <unordered_set> <utility> <vector> <nlohmann/json.hpp> <tl/expected.hpp>)
  add_library(tierlog_pch OBJECT "${CMAKE_BINARY_DIR}/pch/empty.cpp")
  target_link_libraries(tierlog_pch PRIVATE tierlog_flags)
  target_compile_options(tierlog_flags INTERFACE $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>)  # ccache wants it
  target_precompile_headers(tierlog_pch PRIVATE ${std_headers})
  if(TIERLOG_TESTS)
    find_package(GTest REQUIRED)
    add_library(tierlog_test_pch OBJECT "${CMAKE_BINARY_DIR}/pch/empty.cpp")
    target_link_libraries(tierlog_test_pch PRIVATE tierlog_flags tierlog_test_flags GTest::gtest)
    target_precompile_headers(tierlog_test_pch PRIVATE ${std_headers} <gtest/gtest.h>)
  endif()
endif()
function(tierlog_use_pch name pch)
  if(TIERLOG_PCH)
    target_precompile_headers(${name} REUSE_FROM ${pch})
  endif()
endfunction()

find_program(TIERLOG_MOLD mold)
if(TIERLOG_MOLD)
  add_link_options(-fuse-ld=mold)
endif()

# tierlog_library(NAME SOURCES a.cpp … [USES our targets…] [EXTERNAL foreign targets…])
# Without sources it is a header-only room. What is EXTERNAL stays private.
function(tierlog_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;USES;EXTERNAL" ${ARGN})
  if(arg_SOURCES)
    add_library(${name} STATIC ${arg_SOURCES})
    target_link_libraries(${name} PUBLIC tierlog_flags ${arg_USES} PRIVATE ${arg_EXTERNAL})
    tierlog_use_pch(${name} tierlog_pch)
  else()
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE tierlog_flags ${arg_USES} ${arg_EXTERNAL})
  endif()
endfunction()

# The allocator of what lives long, and of the benches that measure it (decision 0042). Sanitizers bring their own.
set(TIERLOG_MALLOC jemalloc CACHE STRING "Allocator of tierlogd: jemalloc or system")
if(TIERLOG_MALLOC STREQUAL jemalloc AND NOT TIERLOG_SANITIZE)
  pkg_check_modules(JEMALLOC REQUIRED IMPORTED_TARGET jemalloc)
endif()

# tierlog_program(NAME SOURCES … USES … EXTERNAL … [NOT_INSTALLED | LIVES_LONG]): a program in build/<preset>/bin,
# installed to bin.
function(tierlog_program name)
  cmake_parse_arguments(arg "NOT_INSTALLED;LIVES_LONG" "DESTINATION" "SOURCES;USES;EXTERNAL" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE tierlog_flags ${arg_USES} ${arg_EXTERNAL})
  tierlog_use_pch(${name} tierlog_pch)
  if(TARGET PkgConfig::JEMALLOC AND (arg_NOT_INSTALLED OR arg_LIVES_LONG))
    target_link_libraries(${name} PRIVATE PkgConfig::JEMALLOC)
  endif()
  if(NOT arg_DESTINATION)
    set(arg_DESTINATION ${CMAKE_INSTALL_BINDIR})
  endif()
  if(NOT arg_NOT_INSTALLED)
    install(TARGETS ${name} RUNTIME DESTINATION ${arg_DESTINATION})
  endif()
endfunction()

# tierlog_test(NAME SOURCES … USES … [LABELS unit|kernel|e2e] [ENVIRONMENT …] [TIMEOUT s] [COST n] [WHOLE])
# One ctest entry a GoogleTest case, so that they run in parallel; WHOLE: one entry for the program.
include(GoogleTest)
function(tierlog_test name)
  cmake_parse_arguments(arg "WHOLE" "TIMEOUT" "SOURCES;USES;EXTERNAL;LABELS;ENVIRONMENT" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  if(NOT arg_LABELS)
    set(arg_LABELS unit)
  endif()
  add_executable(${name} ${arg_SOURCES})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/tests")
  target_link_libraries(${name} PRIVATE tierlog_flags tierlog_test_flags ${arg_USES} ${arg_EXTERNAL} GTest::gtest_main)
  tierlog_use_pch(${name} tierlog_test_pch)
  target_compile_definitions(${name} PRIVATE TIERLOG_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
    TIERLOG_BINARY_DIR="${CMAKE_BINARY_DIR}")
  if(arg_WHOLE)
    add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}")
    set_tests_properties(${name} PROPERTIES LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT}
      ENVIRONMENT "${arg_ENVIRONMENT}")
  else()
    # Without values in the names: a struct would show its bytes, other ones in each run.
    gtest_discover_tests(${name} NO_PRETTY_VALUES WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}" DISCOVERY_TIMEOUT 60
      PROPERTIES LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT} ENVIRONMENT "${arg_ENVIRONMENT}")
  endif()
endfunction()
