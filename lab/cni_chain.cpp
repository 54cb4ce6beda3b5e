#include "lab/cni_chain.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <ranges>

namespace tierlog::lab {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kVersion = "1.0.0";
constexpr const char* kNetwork = "tierlog-lab";
constexpr const char* kInterface = "eth0";
// In the lab's private /run, so that it goes with the lab.
constexpr const char* kIpamFolder = "/run/cni/networks";

bool is_plain(const std::string& name) {
  const auto plain = [](unsigned char c) { return std::isalnum(c) != 0 || c == '-' || c == '.'; };
  return !name.empty() && std::isalnum(static_cast<unsigned char>(name.front())) != 0 &&
         std::ranges::all_of(name, plain);
}

std::string with_prefix(const IpAddr& address, const Cidr& cidr) {
  return address.to_string() + "/" + std::to_string(cidr.prefix);
}

void add_default_routes(Json& ipam, bool v4, bool v6) {
  ipam["routes"] = Json::array();
  if (v4) ipam["routes"].push_back({{"dst", "0.0.0.0/0"}});
  if (v6) ipam["routes"].push_back({{"dst", "::/0"}});
}

// ptp wants a gateway and a subnet of its own for each further address of a family: its routes would clash.
Subnet apart(const IpAddr& address, int ordinal) {
  const bool v4 = address.family == Family::V4;
  const std::string gateway = (v4 ? "169.254.77." : "fd00:a9fe:77::") + std::to_string(ordinal);
  return {*Cidr::parse(address.to_string() + (v4 ? "/31" : "/127")), *IpAddr::parse(gateway)};
}

Result<Json> static_ipam(Cni cni, AddressPlan& plan, const std::vector<IpAddr>& addresses) {
  Json ipam{{"type", "static"}, {"addresses", Json::array()}};
  int v4 = 0;
  int v6 = 0;
  for (const auto& address : addresses) {
    TL_ASSIGN(Subnet subnet, plan.subnet_of(address));
    const int ordinal = ++(address.family == Family::V4 ? v4 : v6);
    if (cni == Cni::Ptp && ordinal > 1) subnet = apart(address, ordinal);
    ipam["addresses"].push_back(
        {{"address", with_prefix(address, subnet.cidr)}, {"gateway", subnet.gateway.to_string()}});
  }
  add_default_routes(ipam, v4 > 0, v6 > 0);
  return ipam;
}

Json range_set(const std::vector<AddressPlan::Range>& ranges) {
  Json set = Json::array();
  for (const auto& range : ranges) {
    set.push_back({{"subnet", range.subnet.cidr.to_string()},
                   {"rangeStart", range.first.to_string()},
                   {"rangeEnd", range.last.to_string()},
                   {"gateway", range.subnet.gateway.to_string()}});
  }
  return set;
}

Result<Json> host_local_ipam(const AddressPlan& plan) {
  Json ipam{{"type", "host-local"}, {"dataDir", kIpamFolder}, {"ranges", Json::array()}};
  const auto v4 = plan.ranges(Family::V4);
  const auto v6 = plan.ranges(Family::V6);
  if (v4.empty() && v6.empty()) {
    return fail(ErrorCode::InvalidArgument, "lab.pod_cidrs has no free address for pods without one");
  }
  if (!v4.empty()) ipam["ranges"].push_back(range_set(v4));
  if (!v6.empty()) ipam["ranges"].push_back(range_set(v6));
  add_default_routes(ipam, !v4.empty(), !v6.empty());
  return ipam;
}

Json common_part(const std::string& type) {
  return {{"cniVersion", kVersion}, {"name", kNetwork}, {"type", type}};
}

Json first_plugin(Cni cni, Json ipam) {
  Json config = common_part(cni == Cni::Bridge ? "bridge" : "ptp");
  if (cni == Cni::Bridge) {
    config["bridge"] = "tlbr0";
    config["isGateway"] = true;
    config["hairpinMode"] = true;
  }
  config["ipam"] = std::move(ipam);
  return config;
}

Json our_plugin(const Chain& chain, const policy::Endpoint& pod) {
  Json config = common_part("tierlog-cni");
  config["socket"] = chain.socket;
  Json labels = Json::array();
  for (const auto& [key, value] : pod.labels) labels.push_back({{"key", key}, {"value", value}});
  config["args"]["cni"]["labels"] = std::move(labels);
  return config;
}

// The words of a plugin's error object, or whatever it said instead.
Error plugin_error(const std::string& what, const Captured& said) {
  const auto object = nlohmann::json::parse(said.output, nullptr, false);
  if (!object.is_object() || !object.contains("msg") || !object["msg"].is_string()) {
    return {ErrorCode::Refused,
            what + ": exit code " + std::to_string(said.exit_code) + ": " + said.errors + said.output, 0};
  }
  std::string text = what + ": " + object["msg"].get<std::string>();
  const auto details = object.find("details");
  if (details != object.end() && details->is_string() && !details->get<std::string>().empty()) {
    text += "; " + details->get<std::string>();
  }
  const auto code = object.find("code");
  const bool later = code != object.end() && code->is_number() && *code == 11;
  return {later ? ErrorCode::Unavailable : ErrorCode::Refused, std::move(text), 0};
}

// One plugin, one command. `previous` is the prevResult, empty for none.
Result<std::string> execute(const Chain& chain, const Place& node, const CniPod& pod, const char* command,
                            const std::string& configuration, const std::string& previous) {
  auto config = Json::parse(configuration, nullptr, false);
  if (!config.is_object())
    return fail(ErrorCode::Corrupt, "unreadable CNI configuration of " + pod.container_id);
  if (!previous.empty()) config["prevResult"] = Json::parse(previous, nullptr, false);
  const std::string type = config.value("type", "");
  const std::string& folder = type == "tierlog-cni" ? chain.bin_folder : chain.cni_folder;
  const Command call{{folder + "/" + type},
                     {std::string("CNI_COMMAND=") + command, "CNI_CONTAINERID=" + pod.container_id,
                      "CNI_NETNS=/run/netns/" + pod.container_id, std::string("CNI_IFNAME=") + kInterface,
                      "CNI_ARGS=" + pod.arguments, "CNI_PATH=" + chain.cni_folder + ":" + chain.bin_folder}};
  TL_ASSIGN(Captured said, capture_in(node, call, config.dump()));
  const std::string what = "CNI " + std::string(command) + " " + pod.container_id + " by " + type;
  if (said.exit_code == 127) return fail(ErrorCode::NotFound, what + ": there is no " + call.words.front());
  if (said.exit_code != 0) return fail(plugin_error(what, said));
  return said.output;
}

std::vector<IpAddr> addresses_of(const std::string& result) {
  std::vector<IpAddr> found;
  const auto object = nlohmann::json::parse(result, nullptr, false);
  if (!object.is_object()) return found;
  for (const auto& ip : object.value("ips", nlohmann::json::array())) {
    const std::string text = ip.value("address", "");
    if (const auto address = IpAddr::parse(text.substr(0, text.find('/')))) found.push_back(*address);
  }
  return found;
}

}  // namespace

Result<CniPod> plan_pod(const Chain& chain, AddressPlan& plan, const policy::Endpoint& pod) {
  if (!is_plain(pod.endpoint_namespace) || !is_plain(pod.name)) {
    return fail(ErrorCode::InvalidArgument,
                "pod \"" + pod.display() + "\" cannot be made; expected names of letters, digits, - and .");
  }
  auto ipam = pod.addresses.empty() ? host_local_ipam(plan) : static_ipam(chain.cni, plan, pod.addresses);
  if (!ipam) return fail(ipam.error().in("pod " + pod.display()));
  CniPod planned;
  // "_" is in no Kubernetes name, so that no two pods share an id.
  planned.container_id = pod.endpoint_namespace + "_" + pod.name;
  planned.arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=" + pod.endpoint_namespace +
                      ";K8S_POD_NAME=" + pod.name + ";K8S_POD_INFRA_CONTAINER_ID=" + planned.container_id;
  planned.configurations.push_back(first_plugin(chain.cni, std::move(*ipam)).dump());
  if (!chain.socket.empty()) planned.configurations.push_back(our_plugin(chain, pod).dump());
  return planned;
}

Result<void> cni_add(const Chain& chain, const Place& node, CniPod& pod) {
  for (const auto& configuration : pod.configurations) {
    auto result = execute(chain, node, pod, "ADD", configuration, pod.result);
    if (!result) {
      static_cast<void>(cni_del(chain, node, pod));
      return fail(result.error());
    }
    pod.result = std::move(*result);
  }
  pod.addresses = addresses_of(pod.result);
  return {};
}

Result<void> cni_del(const Chain& chain, const Place& node, const CniPod& pod) {
  Result<void> first_failure;
  for (const auto& configuration : pod.configurations | std::views::reverse) {
    const auto done = execute(chain, node, pod, "DEL", configuration, pod.result);
    if (!done && first_failure) first_failure = fail(done.error());
  }
  return first_failure;
}

}  // namespace tierlog::lab
