# What is installed beside the programs. Nothing outside the prefix: /etc, users and folders are made by the
# package, or by hand as docs/install.md says.
install(DIRECTORY examples/ DESTINATION ${CMAKE_INSTALL_DATADIR}/tierlog/examples)
install(FILES deploy/tierlogd.yaml DESTINATION ${CMAKE_INSTALL_DATADIR}/tierlog/deploy)
install(DIRECTORY deploy/prometheus deploy/grafana DESTINATION ${CMAKE_INSTALL_DATADIR}/tierlog/deploy
  PATTERN "*.py" EXCLUDE)
install(DIRECTORY deploy/cni DESTINATION ${CMAKE_INSTALL_DATADIR}/tierlog/deploy)
install(FILES README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(FILES deploy/sysusers.conf DESTINATION lib/sysusers.d RENAME tierlog.conf)
install(FILES deploy/tmpfiles.conf DESTINATION lib/tmpfiles.d RENAME tierlog.conf)
# Written when it is installed: only then the prefix is known (cmake --install --prefix, packages).
install(CODE "
  set(sbin_folder \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_SBINDIR}\")
  set(doc_folder \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_DOCDIR}\")
  configure_file(\"${CMAKE_SOURCE_DIR}/deploy/tierlogd.service.in\"
    \"${CMAKE_BINARY_DIR}/deploy/tierlogd.service\" @ONLY)")
install(FILES "${CMAKE_BINARY_DIR}/deploy/tierlogd.service" DESTINATION lib/systemd/system)
