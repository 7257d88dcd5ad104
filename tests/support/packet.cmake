# Packets for tests, and the real programs under BPF_PROG_TEST_RUN.
add_library(twill_test_packet STATIC ${CMAKE_CURRENT_LIST_DIR}/packet.cpp ${CMAKE_CURRENT_LIST_DIR}/packet_text.cpp)
target_link_libraries(twill_test_packet PUBLIC twill_base fmt::fmt)
# g++ 12 takes the inactive members of a moved std::variant for uninitialised.
target_compile_options(twill_test_packet PUBLIC $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-maybe-uninitialized>)
if(TARGET twill_bpf)
  add_library(twill_test_bpf STATIC ${CMAKE_CURRENT_LIST_DIR}/bpf_fixture.cpp ${CMAKE_CURRENT_LIST_DIR}/bpf_lab.cpp)
  target_link_libraries(twill_test_bpf PUBLIC twill_test_packet twill_bpf PkgConfig::LIBBPF PRIVATE PkgConfig::LIBNL)
endif()
