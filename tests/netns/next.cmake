# twilld and twillctl of a later version: the same sources with another map ABI (next_abi.cmake). The tests swap them with the
# ones that are shipped. What knows the ABI is compiled again; ccache answers for the files that turn out not to.
set(next ${CMAKE_CURRENT_BINARY_DIR}/next)
set(next_headers ${next}/maps/abi/limits.h ${next}/maps/abi/peer.h)
add_custom_command(
  OUTPUT ${next_headers}
  COMMAND ${CMAKE_COMMAND} -DFROM=${CMAKE_SOURCE_DIR}/maps/abi -DTO=${next}/maps/abi -P ${CMAKE_CURRENT_LIST_DIR}/next_abi.cmake
  DEPENDS ${CMAKE_SOURCE_DIR}/maps/abi/limits.h ${CMAKE_SOURCE_DIR}/maps/abi/peer.h ${CMAKE_CURRENT_LIST_DIR}/next_abi.cmake
  COMMENT "map ABI of a later version"
  VERBATIM)

# The programs, with the flags of bpf/CMakeLists.txt.
get_directory_property(bpf_flags DIRECTORY ${CMAKE_SOURCE_DIR}/bpf DEFINITION TW_BPF_FLAGS)
set(next_skeletons)
foreach(name dp plain)
  set(next_object ${next}/twill_${name}.bpf.o)
  set(next_skeleton ${next}/twill_${name}.skel.h)
  set(next_source ${CMAKE_SOURCE_DIR}/bpf/twill.bpf.c)
  if(name STREQUAL plain)
    set(next_source ${CMAKE_SOURCE_DIR}/bpf/twill_plain.bpf.c)
  endif()
  add_custom_command(
    OUTPUT ${next_skeleton}
    COMMAND ${CLANG} -I${next} ${bpf_flags} -MD -MF ${next_object}.d -MT ${next_skeleton}
            -c ${next_source} -o ${next_object}
    COMMAND ${LLVM_STRIP} -g ${next_object}
    COMMAND ${BPFTOOL} gen skeleton ${next_object} name twill_${name} > ${next_skeleton}
    DEPENDS ${next_source} ${next_headers}
    DEPFILE ${next_object}.d
    COMMENT "BPF object and skeleton ${name} of a later version"
    VERBATIM)
  list(APPEND next_skeletons ${next_skeleton})
endforeach()
add_custom_target(twill_next_files DEPENDS ${next_headers} ${next_skeletons})

find_package(CLI11 REQUIRED) # imported targets are known in their own folder only
set(next_libraries twill_maps twill_dataplane twill_daemon twill_cli)

# Sources, links and definitions of `target`, compiled with the other headers in front.
function(twill_next target next_target)
  get_target_property(dir ${target} SOURCE_DIR)
  get_target_property(sources ${target} SOURCES)
  list(TRANSFORM sources PREPEND ${dir}/)
  target_sources(${next_target} PRIVATE ${sources})
  target_include_directories(${next_target} BEFORE PRIVATE ${next})
  target_compile_definitions(${next_target} PRIVATE TWILL_VERSION="${PROJECT_VERSION}+next")
  get_target_property(links ${target} LINK_LIBRARIES)
  list(REMOVE_ITEM links twill_bpf)
  foreach(library IN LISTS next_libraries)
    list(TRANSFORM links REPLACE "^${library}$" "${library}_next")
  endforeach()
  target_link_libraries(${next_target} PUBLIC ${links})
  add_dependencies(${next_target} twill_next_files)
endfunction()

foreach(library IN LISTS next_libraries)
  add_library(${library}_next STATIC)
  twill_next(${library} ${library}_next)
endforeach()
foreach(program twilld twillctl)
  add_executable(${program}_next)
  twill_next(${program} ${program}_next)
  set_target_properties(${program}_next PROPERTIES OUTPUT_NAME ${program} RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/next)
endforeach()
