# BPF programs: compiled by clang, embedded by bpftool as a header "NAME.skel.h" with everything in it.
# Programs use the UAPI headers only, so that no description of the building kernel's types is needed.
find_program(TIERLOG_CLANG NAMES clang clang-14 REQUIRED)
find_program(TIERLOG_BPFTOOL bpftool HINTS /usr/sbin /sbin REQUIRED)

# tierlog_bpf(TARGET SOURCE file.bpf.c [HEADERS shared.h…])
# TARGET is an interface library that gives "file.skel.h" to whom it is linked to, and libbpf with it.
function(tierlog_bpf target)
  cmake_parse_arguments(arg "" "SOURCE" "HEADERS" ${ARGN})
  string(REGEX REPLACE "\\.bpf\\.c$" "" stem "${arg_SOURCE}")
  set(folder "${CMAKE_CURRENT_BINARY_DIR}/bpf")
  set(object "${folder}/${stem}.bpf.o")
  set(skeleton "${folder}/${stem}.skel.h")
  list(TRANSFORM arg_HEADERS PREPEND "${CMAKE_CURRENT_SOURCE_DIR}/")
  file(MAKE_DIRECTORY "${folder}")
  add_custom_command(OUTPUT "${object}"
    COMMAND ${TIERLOG_CLANG} -O2 -g -target bpf -mcpu=v2 -Wall -Wextra -Werror
      "-I${CMAKE_SOURCE_DIR}" -idirafter "/usr/include/${CMAKE_LIBRARY_ARCHITECTURE}"
      "-ffile-prefix-map=${CMAKE_SOURCE_DIR}=." -c "${CMAKE_CURRENT_SOURCE_DIR}/${arg_SOURCE}" -o "${object}"
    DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/${arg_SOURCE}" ${arg_HEADERS} VERBATIM)
  add_custom_command(OUTPUT "${skeleton}"
    COMMAND sh -c "\"$0\" gen skeleton \"$1\" name \"$2\" > \"$3.new\" && mv \"$3.new\" \"$3\""
      "${TIERLOG_BPFTOOL}" "${object}" "${stem}_bpf" "${skeleton}"
    DEPENDS "${object}" VERBATIM)
  add_custom_target(${target}_skeleton DEPENDS "${skeleton}")
  pkg_check_modules(LIBBPF REQUIRED IMPORTED_TARGET libbpf)
  add_library(${target} INTERFACE)
  add_dependencies(${target} ${target}_skeleton)
  # Generated code is not held to our warnings.
  target_include_directories(${target} SYSTEM INTERFACE "${folder}")
  target_link_libraries(${target} INTERFACE PkgConfig::LIBBPF)
endfunction()
