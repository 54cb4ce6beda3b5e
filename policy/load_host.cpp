#include "policy/load_host.h"

#include <algorithm>
#include <utility>

#include "policy/load_kinds.h"

// projectcalico.org/v3 HostEndpoint, and where a GlobalNetworkPolicy is asked at one.
namespace tierlog::policy {
namespace {

using yaml::Fields;
using yaml::Node;

NamedPort read_port(const Node& node, Diagnostics& findings) {
  Fields fields(node, "a port", findings);
  NamedPort port;
  port.name = fields.require_string("name").value_or("");
  fields.require("port");
  if (const auto number = fields.integer("port", 1, 65535)) port.port = static_cast<std::uint16_t>(*number);
  fields.require("protocol");
  if (const auto protocol = read_protocol(fields, "protocol")) port.protocol = *protocol;
  return port;
}

// Profiles are other objects, which are not read: two kinds of them are known by their names.
bool read_profiles(Fields& spec) {
  bool open = false;
  const auto items = spec.list("profiles");
  for (const Node* item : items) {
    const auto name = yaml::read_string(*item, "profiles", spec.findings());
    if (!name) continue;
    if (*name == "projectcalico-default-allow" || name->starts_with("kns."))
      open = true;
    else
      spec.findings().warning(item->place, "profile \"" + *name +
                                               "\" is not known and allows nothing; expected "
                                               "projectcalico-default-allow, or none");
  }
  return open;
}

void read_host_endpoint(const Node& node, LoadContext& context) {
  Fields object(node, "a HostEndpoint", context.findings);
  const Meta meta = read_meta(object, {.kind = "HostEndpoint"}, context);
  const Node* spec_node = require_spec(object);
  if (spec_node == nullptr) return;
  Fields spec(*spec_node, "the host endpoint's spec", context.findings);
  HostEndpoint host;
  host.name = meta.name;
  host.labels = meta.labels;
  host.node = spec.require_string("node").value_or("");
  host.interface = spec.string("interfaceName").value_or("");
  if (host.interface != "*" && (host.interface.size() > 15 || host.interface.find_first_of("/ \t*") != std::string::npos))
    context.findings.error(spec.place_of("interfaceName"),
                           "\"" + host.interface +
                               "\" is no interface; expected a name of at most 15 characters, or * for all");
  for (const Node* item : spec.list("expectedIPs"))
    if (const auto address = read_address(*item, context.findings)) host.addresses.push_back(*address);
  for (const Node* item : spec.list("ports")) host.ports.push_back(read_port(*item, context.findings));
  host.open = read_profiles(spec);
  if (host.interface.empty() && host.addresses.empty())
    context.findings.error(spec_node->place,
                           "neither interfaceName nor expectedIPs; expected one of them, to say which interface");
  if (meta.valid) context.objects.host_endpoints.push_back(std::move(host));
}

}  // namespace

std::vector<KindRow> host_kinds() {
  return {{{"projectcalico.org/v3", "crd.projectcalico.org/v1"}, "HostEndpoint", read_host_endpoint}};
}

void read_host_stages(Fields& spec, Policy& policy) {
  policy.apply_on_forward = spec.boolean("applyOnForward").value_or(false);
  policy.pre_dnat = spec.boolean("preDNAT").value_or(false);
  policy.do_not_track = spec.boolean("doNotTrack").value_or(false);
  Diagnostics& findings = spec.findings();
  if (policy.pre_dnat && policy.do_not_track)
    findings.error(spec.place_of("doNotTrack"), "doNotTrack beside preDNAT; expected one of the two");
  for (const char* key : {"preDNAT", "doNotTrack"})
    if (spec.node().find(key) != nullptr && spec.node().find(key)->as_bool() == true && !policy.apply_on_forward)
      findings.error(spec.place_of(key), std::string(key) + " without applyOnForward; expected applyOnForward: true, "
                                                            "for it is about forwarded packets too");
  if (policy.pre_dnat && policy.applies_egress)
    findings.error(spec.place_of(spec.has("egress") ? "egress" : "types"),
                   "a preDNAT policy for egress; expected ingress rules only");
}

}  // namespace tierlog::policy
