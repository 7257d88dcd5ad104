# The netlink layer and the overlay device against the real kernel, each in namespaces of its own.
set(sandbox ${CMAKE_CURRENT_LIST_DIR}/nl_sandbox.cpp)
add_executable(netns_nl ${sandbox} ${CMAKE_CURRENT_LIST_DIR}/nl_test.cpp ${CMAKE_CURRENT_LIST_DIR}/nl_monitor_test.cpp)
add_executable(netns_overlay ${sandbox} ${CMAKE_CURRENT_LIST_DIR}/overlay_test.cpp)
add_executable(netns_netfilter ${sandbox} ${CMAKE_CURRENT_LIST_DIR}/netfilter_test.cpp)
add_executable(netns_kernel_overlay ${sandbox} ${CMAKE_CURRENT_LIST_DIR}/kernel_overlay_test.cpp)
add_executable(netns_programs ${sandbox} ${CMAKE_CURRENT_LIST_DIR}/programs_test.cpp)
foreach(name nl overlay kernel_overlay netfilter programs)
  target_link_libraries(netns_${name} PRIVATE twill_overlay doctest::doctest)
  add_test(NAME netns.${name} COMMAND netns_${name})
  set_tests_properties(netns.${name} PROPERTIES LABELS netns SKIP_RETURN_CODE 77 TIMEOUT 300)
endforeach()
target_link_libraries(netns_netfilter PRIVATE twill_daemon)
target_link_libraries(netns_programs PRIVATE twill_dataplane)

# Nodes without programs, and the way to them and back, by either kind of attachment.
variant_test(netns.without_programs kernel_overlay 180 tcx.vxlan clsact.vxlan)
