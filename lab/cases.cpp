#include "lab/cases.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <limits>
#include <map>
#include <system_error>
#include <utility>

#include "base/fields.h"
#include "base/files.h"
#include "policy/load.h"

namespace tierlog::lab {
namespace {

using yaml::Fields;

// Abilities that a case may require and this program has.
constexpr std::array<std::string_view, 6> kAbilities{"anp-sameLabels",       "calico-services-match",
                                                     "kube-admin-tier-shared", "nodes-peer",
                                                     "non-k8s-label-values", "ports-without-protocol"};
constexpr std::uint16_t kEphemeralPort = 50000;
constexpr std::uint8_t kEchoRequest = 8, kEchoRequestV6 = 128;

std::optional<policy::Action> verdict_field(Fields& fields, std::string_view key) {
  const auto choice = fields.choice(key, {"allow", "deny"});
  if (!choice) return std::nullopt;
  return *choice == 0 ? policy::Action::Allow : policy::Action::Deny;
}

template <typename T>
std::optional<T> integer_field(Fields& fields, std::string_view key) {
  const auto value = fields.integer(key, 0, std::numeric_limits<T>::max());
  if (!value) return std::nullopt;
  return static_cast<T>(*value);
}

bool needs_port(std::uint8_t number) {
  return number == protocol::kTcp || number == protocol::kUdp || number == protocol::kSctp;
}

// Reads the checks of one case, whose topology is known.
class CheckReader {
 public:
  CheckReader(const policy::Cluster& cluster, Diagnostics& findings) : findings_(findings) {
    for (const policy::Endpoint& pod : cluster.endpoints) pods_.push_back(pod.display());
  }

  Check read(const yaml::Node& node);

 private:
  CaseEnd end(Fields& fields, std::string_view key);
  void protocol(Fields& fields, Check& check);
  std::optional<ExpectedDecider> decides(Fields& fields);

  Diagnostics& findings_;
  std::vector<std::string> pods_;
};

Check CheckReader::read(const yaml::Node& node) {
  Fields fields(node, "the check", findings_);
  Check check;
  check.place = node.place;
  check.from = end(fields, "from");
  check.to = end(fields, "to");
  protocol(fields, check);
  check.port = integer_field<std::uint16_t>(fields, "port").value_or(0);
  check.source_port = integer_field<std::uint16_t>(fields, "sourcePort");
  check.icmp_type = integer_field<std::uint8_t>(fields, "icmpType");
  check.icmp_code = integer_field<std::uint8_t>(fields, "icmpCode");
  fields.require("expect");
  check.expect = verdict_field(fields, "expect").value_or(policy::Action::Allow);
  check.ingress = verdict_field(fields, "ingress");
  check.egress = verdict_field(fields, "egress");
  check.decides = decides(fields);
  if (needs_port(check.protocol) && node.kind == yaml::Kind::Map) fields.require("port");
  if (!protocol::is_icmp(check.protocol))
    for (const std::string_view key : {"icmpType", "icmpCode"})
      if (fields.has(key))
        findings_.error(fields.place_of(key), std::string(key) + " with protocol " +
                                                  protocol::name(check.protocol) + "; expected ICMP");
  return check;
}

CaseEnd CheckReader::end(Fields& check, std::string_view key) {
  CaseEnd result;
  const yaml::Node* node = check.require(key);
  if (node == nullptr) return result;
  Fields fields(*node, std::string(key), findings_);
  const auto pod = fields.string("pod"), ip = fields.string("ip");
  if (fields.is_map() && fields.has("pod") == fields.has("ip"))
    findings_.error(node->place, std::string(key) + ": expected either pod (\"ns/name\") or ip");
  if (pod) {
    result.pod = *pod;
    if (std::find(pods_.begin(), pods_.end(), *pod) == pods_.end()) {
      const std::string near = nearest(*pod, pods_);
      findings_.error(node->find("pod")->place, "no pod \"" + *pod +
                                                    "\" in the topology; expected ns/name of one" +
                                                    (near.empty() ? "" : " (did you mean " + near + "?)"));
    }
  }
  if (ip) {
    result.address = IpAddr::parse(*ip);
    if (!result.address)
      findings_.error(node->find("ip")->place,
                      "\"" + *ip + "\" is no address; expected one like 10.0.0.1 or fd00::1");
  }
  return result;
}

void CheckReader::protocol(Fields& fields, Check& check) {
  const yaml::Node* node = fields.require("protocol");
  if (node == nullptr) return;
  const auto number =
      node->kind == yaml::Kind::Scalar ? tierlog::protocol::parse(node->text) : std::optional<std::uint8_t>();
  if (!number) {
    findings_.error(node->place,
                    "unknown protocol" +
                        (node->kind == yaml::Kind::Scalar ? " \"" + node->text + "\"" : std::string()) +
                        "; expected TCP, UDP, SCTP, UDPLite, ICMP, ICMPv6 or a number from 1 to 255");
    return;
  }
  check.protocol = *number;
  check.any_icmp = *number == tierlog::protocol::kIcmp && !node->as_int();
}

std::optional<ExpectedDecider> CheckReader::decides(Fields& check) {
  const yaml::Node* node = check.get("decides");
  if (node == nullptr) return std::nullopt;
  Fields fields(*node, "decides", findings_);
  ExpectedDecider decider;
  fields.require("direction");
  const auto direction = fields.choice("direction", {"ingress", "egress"});
  decider.direction = direction == 1u ? Direction::Egress : Direction::Ingress;
  decider.tier = fields.string("tier");
  decider.policy = fields.string("policy");
  if (const auto rule = fields.integer("rule", -1, 65535)) decider.rule = static_cast<int>(*rule);
  return decider;
}

// Programs that write cases know no difference between {} and [] where a network set has no nets.
yaml::Node with_empty_lists(yaml::Node topology) {
  const auto child = [](yaml::Node* node, std::string_view key) -> yaml::Node* {
    if (node == nullptr) return nullptr;
    const auto found = std::find_if(node->entries.begin(), node->entries.end(),
                                    [&](const auto& entry) { return entry.first.text == key; });
    return found == node->entries.end() ? nullptr : &found->second;
  };
  if (yaml::Node* sets = child(&topology, "networksets"))
    for (yaml::Node& set : sets->items) {
      yaml::Node* nets = child(child(&set, "spec"), "nets");
      if (nets != nullptr && nets->kind == yaml::Kind::Map && nets->entries.empty())
        nets->kind = yaml::Kind::Sequence;
    }
  return topology;
}

// Why a case with these `requires` cannot be run.
std::optional<std::string> lacking(const std::vector<std::string>& required) {
  std::string missing;
  for (const std::string& ability : required)
    if (std::find(kAbilities.begin(), kAbilities.end(), ability) == kAbilities.end())
      missing += (missing.empty() ? "" : ", ") + ability;
  if (missing.empty()) return std::nullopt;
  return "requires " + missing;
}

// Among policy files an object of an unknown kind is left out with a warning at its kind; a case without
// one of its policies would judge another world.
std::optional<std::string> unread_kind(const std::vector<const yaml::Node*>& objects,
                                       const Diagnostics& findings) {
  for (const yaml::Node* object : objects)
    if (const yaml::Node* kind = object->find("kind"))
      for (const Diagnostic& finding : findings.all())
        if (finding.severity == Severity::Warning && finding.place == kind->place) return finding.message;
  return std::nullopt;
}

class CaseReader {
 public:
  explicit CaseReader(LoadedCases& loaded) : loaded_(loaded) {}

  void add(const yaml::Documents& file) {
    ++loaded_.files;
    loaded_.findings.add(file.findings);
    if (file.findings.has_errors()) return;
    for (const yaml::Node& document : file.documents) {
      if (document.kind == yaml::Kind::Sequence)
        for (const yaml::Node& item : document.items) add(item);
      else
        add(document);
    }
  }

 private:
  void add(const yaml::Node& node) {
    Diagnostics findings;
    PolicyCase test_case = read(node, findings);
    loaded_.findings.add(findings);
    if (!findings.has_errors()) loaded_.cases.push_back(std::move(test_case));
  }

  PolicyCase read(const yaml::Node& node, Diagnostics& findings);
  void read_id(Fields& fields, PolicyCase& test_case);
  void read_world(Fields& fields, PolicyCase& test_case);
  void read_checks(Fields& fields, PolicyCase& test_case);

  LoadedCases& loaded_;
  std::map<std::string, SourceRef> ids_;
};

PolicyCase CaseReader::read(const yaml::Node& node, Diagnostics& findings) {
  Fields fields(node, "the test case", findings);
  PolicyCase test_case;
  test_case.file = node.place.file;
  read_id(fields, test_case);
  fields.accept({"features", "notes", "source", "license", "topology", "policies", "checks"});
  test_case.required = fields.strings("requires");
  test_case.skipped = lacking(test_case.required);
  if (test_case.skipped || !fields.is_map()) return test_case;
  read_world(fields, test_case);
  read_checks(fields, test_case);
  return test_case;
}

void CaseReader::read_id(Fields& fields, PolicyCase& test_case) {
  const auto id = fields.require_string("id");
  if (!id) return;
  test_case.id = *id;
  const auto [known, is_new] = ids_.emplace(*id, fields.get("id")->place);
  if (!is_new)
    fields.findings().error(fields.get("id")->place, "id \"" + *id + "\" is also that of the case at " +
                                                         known->second.to_string() +
                                                         "; expected a name of its own");
}

void CaseReader::read_world(Fields& fields, PolicyCase& test_case) {
  if (const yaml::Node* node = fields.require("topology")) {
    endpoints::LoadedTopology topology = endpoints::read_topology(with_empty_lists(*node));
    fields.findings().add(topology.findings);
    test_case.topology = std::move(topology.topology);
  }
  fields.require("policies");
  const std::vector<const yaml::Node*> objects = fields.list("policies");
  policy::Loaded loaded = policy::load_trees(objects);
  fields.findings().add(loaded.findings);
  test_case.policies = std::move(loaded.set);
  policy::add_objects(test_case.topology.cluster, test_case.policies);
  test_case.skipped = unread_kind(objects, loaded.findings);
  for (const yaml::Node* object : objects) test_case.policy_objects.push_back(*object);
}

void CaseReader::read_checks(Fields& fields, PolicyCase& test_case) {
  if (fields.require("checks") == nullptr) return;
  CheckReader reader(test_case.topology.cluster, fields.findings());
  for (const yaml::Node* node : fields.list("checks")) test_case.checks.push_back(reader.read(*node));
  if (test_case.checks.empty())
    fields.findings().error(fields.place_of("checks"),
                            "checks: the list is empty; expected at least one check");
}

// A folder's case files in name order, or the path itself.
std::vector<std::string> files_of(const std::string& path, Diagnostics& findings) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) return {path};
  auto files = yaml_files_in(path);
  if (!files) {
    findings.error({path, 0, 0}, "cannot read the folder: " +
                                     std::generic_category().message(files.error().errno_value));
    return {};
  }
  if (files->empty())
    findings.error({path, 0, 0}, "the folder has no test cases; expected *.yaml, *.yml or *.json files");
  return std::move(*files);
}

std::optional<IpAddr> address_of(const policy::Cluster& cluster, const CaseEnd& end, Family family) {
  if (end.address) return end.address->family == family ? end.address : std::nullopt;
  const auto slash = end.pod.find('/');
  if (slash == std::string::npos) return std::nullopt;
  const policy::Endpoint* pod = cluster.find(end.pod.substr(0, slash), end.pod.substr(slash + 1));
  if (pod == nullptr) return std::nullopt;
  const auto found = std::find_if(pod->addresses.begin(), pod->addresses.end(),
                                  [&](const IpAddr& address) { return address.family == family; });
  return found == pod->addresses.end() ? std::nullopt : std::optional(*found);
}

}  // namespace

std::string CaseEnd::text() const {
  return address ? address->to_string() : pod;
}

LoadedCases load_cases(const std::vector<std::string>& paths) {
  LoadedCases loaded;
  CaseReader reader(loaded);
  for (const std::string& path : paths)
    for (const std::string& file : files_of(path, loaded.findings)) reader.add(yaml::parse_file(file));
  return loaded;
}

LoadedCases load_cases_text(std::string_view text, const std::string& name) {
  LoadedCases loaded;
  CaseReader(loaded).add(yaml::parse(text, name));
  return loaded;
}

std::optional<policy::Packet> packet_of(const policy::Cluster& cluster, const Check& check) {
  for (const Family family : {Family::V4, Family::V6}) {
    const auto source = address_of(cluster, check.from, family),
               destination = address_of(cluster, check.to, family);
    if (!source || !destination) continue;
    policy::Packet packet{*source, *destination, check.protocol};
    if (check.any_icmp && family == Family::V6) packet.protocol = protocol::kIcmpV6;
    if (protocol::has_ports(packet.protocol)) {
      packet.source_port = check.source_port.value_or(kEphemeralPort);
      packet.destination_port = check.port;
    }
    if (protocol::is_icmp(packet.protocol)) {
      packet.icmp_type =
          check.icmp_type.value_or(packet.protocol == protocol::kIcmp ? kEchoRequest : kEchoRequestV6);
      packet.icmp_code = check.icmp_code.value_or(0);
    }
    return packet;
  }
  return std::nullopt;
}

}  // namespace tierlog::lab
