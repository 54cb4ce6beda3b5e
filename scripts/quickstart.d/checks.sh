# Sourced by ./quickstart: what this machine can do, the build, and the demonstration without packets.

# Exit 0 when real packets are possible, else 1 and why not on stdout.
why_no_packets() {
  local id='' version=''
  if [ -r /etc/os-release ]; then
    id=$(. /etc/os-release && echo "${ID:-}")
    version=$(. /etc/os-release && echo "${VERSION_ID%%.*}")
  fi
  if [ "$id" != debian ] || [ "${version:-0}" -lt 12 ]; then
    echo "this is not Debian 12 or later, from which the quickstart installs what it needs (here: ${id:-unknown} ${version:-})"
  elif [ "$(id -u)" -ne 0 ]; then
    echo "only root can make network namespaces and load rules; you are $(id -un)"
  elif ! command -v unshare >/dev/null || ! unshare --net --mount --pid --fork true 2>/dev/null; then
    echo "this machine does not let root make network namespaces (a container without privileges?)"
  elif command -v nft >/dev/null && ! unshare --net nft add table inet tierlog_probe 2>/dev/null; then
    echo "this kernel has no nftables for network namespaces"
  else
    return 0
  fi
  return 1
}

build_release() {
  run_logged "$out/configure.log" "configure" cmake --preset release
  run_logged "$out/build.log" "build (minutes the first time: about ten on two slow cores)" cmake --build build/release
}

# What can be shown without a packet, and that it is no more than that.
model_only() {
  echo "No packets: $1."
  if [ ! -x "$bin/tierlog" ]; then
    if ! scripts/install-deps || ! build_release; then
      echo "The program cannot be built here either, so there is nothing to show."
      exit 1
    fi
  fi
  echo
  echo "MODEL ONLY: the policies' own answer, computed; no kernel was asked and no packet sent."
  show "$bin/tierlog" explain -f "$policies" --topology "$topology" "${explained_pair[@]}"
}
