#include "lab/names.h"

#include <fstream>
#include <sstream>

namespace tierlog::lab {
namespace {

void print(std::ostringstream& out, const std::vector<IpAddr>& addresses, const std::string& name) {
  for (const auto& address : addresses) out << address.to_string() << "\t" << name << "\n";
}

// "tenant-01/db" -> "db.tenant-01"
std::string dns_name(const std::string& pod) {
  const auto slash = pod.find('/');
  return pod.substr(slash + 1) + "." + pod.substr(0, slash);
}

}  // namespace

std::string hosts_text(const LabState& state) {
  std::ostringstream out;
  out << "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";
  for (const auto& node : state.nodes) {
    print(out, node.addresses, (&node == state.nodes.data() ? "node " : "") + node.name);
  }
  print(out, state.outside, "outside");
  for (const auto& pod : state.pods) {
    if (!pod.host_network()) print(out, pod.cni.addresses, dns_name(pod.name));
  }
  for (const auto& service : state.services)
    print(out, service.cluster_ips, dns_name(service.display()) + ".svc");
  return out.str();
}

Result<void> write_hosts(const LabState& state) {
  std::ofstream file(state.file("hosts"), std::ios::trunc);
  file << hosts_text(state);
  file.close();
  if (!file) return fail(ErrorCode::Io, "cannot write " + state.file("hosts"));
  return {};
}

}  // namespace tierlog::lab
