# The Debian package: cpack -G DEB --config build/release/CPackConfig.cmake -B build/package
# Component `package` is what only the package has: /etc, /usr/lib/cni, Debian's own documents.
set(debian "${CMAKE_BINARY_DIR}/deploy/debian")
file(MAKE_DIRECTORY "${debian}/empty")
string(TIMESTAMP debian_date "%a, %d %b %Y %H:%M:%S +0000" UTC)
configure_file(deploy/debian/changelog.in "${debian}/changelog" @ONLY)
execute_process(COMMAND gzip -9nf "${debian}/changelog")
file(CREATE_LINK ../../bin/tierlog-cni "${debian}/tierlog-cni" SYMBOLIC)

install(FILES deploy/tierlogd.yaml DESTINATION /etc/tierlog COMPONENT package EXCLUDE_FROM_ALL)
install(DIRECTORY "${debian}/empty/" DESTINATION /etc/tierlog/policies COMPONENT package EXCLUDE_FROM_ALL)
install(FILES "${debian}/tierlog-cni" DESTINATION /usr/lib/cni COMPONENT package EXCLUDE_FROM_ALL)
install(FILES deploy/debian/copyright "${debian}/changelog.gz" DESTINATION /usr/share/doc/tierlog
  COMPONENT package EXCLUDE_FROM_ALL)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME tierlog)
set(CPACK_PACKAGE_CONTACT "Tierlog maintainers <maintainers@tierlog.io>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "policy enforcement and flow records for container hosts")
set(CPACK_PACKAGE_DESCRIPTION "Enforces tiered network policies (Calico, Kubernetes NetworkPolicy) on a
container host through nftables, underneath whatever CNI plugin made the
pods, and records which rule of which policy in which tier decided on every
connection.
.
Contains the daemon tierlogd, the command tierlog and the chained CNI plugin
tierlog-cni.")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS
  OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
set(CPACK_COMPONENTS_ALL Unspecified package)
set(CPACK_COMPONENTS_GROUPING ALL_COMPONENTS_IN_ONE)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS passwd)
# nft shows the rules to people, and takes them out when the package is purged.
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "nftables, containernetworking-plugins")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS sqlite3)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(scripts "${CMAKE_SOURCE_DIR}/deploy/debian")
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA
  "${scripts}/conffiles" "${scripts}/postinst" "${scripts}/prerm" "${scripts}/postrm")
include(CPack)
