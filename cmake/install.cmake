# SPDX-License-Identifier: BSD-3-Clause
# `cmake --install`: the NIC as a library (headers, static libraries, CMake and
# pkg-config descriptions) and the programs.
include(CMakePackageConfigHelpers)

# The headers keep their tree, so that "nic/api/context.h" is spelled the same
# inside and outside: -I.../include/tripwire.
install(DIRECTORY nic/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/tripwire/nic
        COMPONENT library
        FILES_MATCHING PATTERN "*.h" PATTERN "tools" EXCLUDE PATTERN "conform" EXCLUDE)

tripwire_install_target(tripwire_base)
get_property(installed_targets GLOBAL PROPERTY TRIPWIRE_INSTALLED_TARGETS)
install(TARGETS ${installed_targets} EXPORT tripwireTargets
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT library)
install(EXPORT tripwireTargets NAMESPACE tripwire::
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/tripwire COMPONENT library)

configure_package_config_file(
  cmake/tripwireConfig.cmake.in ${PROJECT_BINARY_DIR}/tripwireConfig.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/tripwire)
write_basic_package_version_file(
  ${PROJECT_BINARY_DIR}/tripwireConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/tripwireConfig.cmake
              ${PROJECT_BINARY_DIR}/tripwireConfigVersion.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/tripwire COMPONENT library)

# The archives use each other in the layers' order; a group spares users it.
set(pc_libraries "")
foreach(target ${installed_targets})
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "STATIC_LIBRARY")
    string(APPEND pc_libraries " -l${target}")
  endif()
endforeach()
# Found from where the file lies, so that `cmake --install --prefix` may move it.
file(RELATIVE_PATH pc_to_prefix "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
configure_file(cmake/tripwire.pc.in ${PROJECT_BINARY_DIR}/tripwire.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/tripwire.pc
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT library)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT library)
install(FILES nic/tools/wireshark/tripwire.lua
        DESTINATION ${CMAKE_INSTALL_DATADIR}/tripwire/wireshark COMPONENT programs)
