# cmake -DFROM=maps/abi -DTO=DIR -P next_abi.cmake: the map ABI of a later version: TW_SCHEMA is one more, and struct tw_peer
# has one more field in its middle, so that what follows moves. Fails when a header no longer has what is replaced here.
cmake_minimum_required(VERSION 3.25)

function(patch pattern replacement)
  string(REGEX REPLACE "${pattern}" "${replacement}" patched "${text}")
  if(patched STREQUAL text)
    message(FATAL_ERROR "next_abi.cmake: ${FROM}: nothing matches ${pattern}")
  endif()
  set(text "${patched}" PARENT_SCOPE)
endfunction()

# Semicolons would make lists of the lines.
function(load name)
  file(READ ${FROM}/${name} text)
  string(REPLACE ";" "<semicolon>" text "${text}")
  set(text "${text}" PARENT_SCOPE)
endfunction()

function(store name)
  string(REPLACE "<semicolon>" ";" text "${text}")
  file(CONFIGURE OUTPUT ${TO}/${name} CONTENT "${text}" @ONLY)
endfunction()

load(limits.h)
string(REGEX MATCH "#define TW_SCHEMA ([0-9]+)" found "${text}")
math(EXPR schema "${CMAKE_MATCH_1} + 1")
patch("#define TW_SCHEMA [0-9]+" "#define TW_SCHEMA ${schema}")
store(limits.h)

load(peer.h)
patch("\n\tenum tw_mode mode<semicolon>\n" "\n\tenum tw_mode mode<semicolon>\n\t__u32 added<semicolon>\n")
# The size, and the offsets behind the new field: two addresses and the mode come before it.
string(REGEX MATCHALL "\\(struct tw_peer, ([a-z0-9_]+, )?[0-9]+\\)" asserted "${text}")
foreach(entry IN LISTS asserted)
  string(REGEX MATCH "([0-9]+)\\)" found "${entry}")
  if(CMAKE_MATCH_1 LESS 36)
    continue()
  endif()
  math(EXPR moved "${CMAKE_MATCH_1} + 4")
  string(REPLACE "${CMAKE_MATCH_1})" "${moved})" patched "${entry}")
  string(REPLACE "${entry}" "${patched}" text "${text}")
endforeach()
store(peer.h)
