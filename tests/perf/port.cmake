# SPDX-License-Identifier: BSD-3-Clause
# Of DPDK itself, so compiled as nic/port is.
add_library(tw_ring_pair STATIC ${CMAKE_CURRENT_LIST_DIR}/ring_pair.cc)
target_include_directories(tw_ring_pair SYSTEM PRIVATE ${DPDK_INCLUDE_DIRS})
target_compile_options(tw_ring_pair PRIVATE ${DPDK_CFLAGS_OTHER})
target_link_libraries(tw_ring_pair PUBLIC tripwire_port
  PRIVATE tripwire_options rte_net_ring rte_ring rte_ethdev rte_mbuf rte_mempool rte_eal)

# The floor: what the wire itself can do, through DPDK alone and through Port.
tripwire_program(tw-port-floor SOURCES ${CMAKE_CURRENT_LIST_DIR}/port_floor.cc
  DEPENDS tripwire_port CLI11::CLI11)
target_include_directories(tw-port-floor SYSTEM PRIVATE ${DPDK_INCLUDE_DIRS})
target_compile_options(tw-port-floor PRIVATE ${DPDK_CFLAGS_OTHER})
target_link_libraries(tw-port-floor PRIVATE
  rte_ethdev rte_bus_vdev rte_mbuf rte_mempool rte_eal)
