// policy/program.h - the one IR: the policy of one node as rules with stable ids, address sets, classes.
//
//   PolicySet + Cluster --compile.h--> [Program] --> dataplane/*  (to the kernel)
//                                            |-----> evaluate.h   (reference verdicts, traces)
//                                            `-----> logger/      (from RuleId to rule, policy, tier)
//
// Immutable once built; all threads share it as std::shared_ptr<const Program> without a lock.
// Shapes: T tiers in evaluation order, P policies in evaluation order (tier by tier), R rules, S sets,
// C classes, E endpoints. Endpoints with the same resolved tiers share a class, one per direction.
// Indices into the vectors are plain std::uint32_t; kNone = no such thing.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/ids.h"
#include "base/net_types.h"
#include "policy/cluster.h"
#include "policy/model.h"

namespace tierlog::policy {

inline constexpr std::uint32_t kNone = 0xffffffff;

// Addresses that one selector, list of nets or service stands for.
struct AddressSet {
  std::string key;            // canonical selector or nets; equal key = same meaning
  std::string text;           // for people: "role == 'api'", "10.0.0.0/8"
  std::vector<Cidr> members;  // sorted, without duplicates, none inside another

  bool contains(const IpAddr& address) const;  // O(log n)
};

// Named ports, resolved: each selected endpoint's (address, protocol, port).
struct PortSet {
  std::string key;
  std::string text;                   // "http"
  std::vector<EndpointPort> members;  // sorted

  bool contains(const IpAddr& address, std::uint8_t protocol, std::uint16_t port) const;
};

struct PeerMatch {
  std::vector<std::uint32_t> in_sets;      // the address must be in every one
  std::vector<std::uint32_t> not_in_sets;  // and in none of these
  // Ports: no restriction when both are empty, else in a range OR in the port set. A packet without
  // ports matches no restriction on ports, and every negated one.
  std::vector<PortRange> ports;
  std::optional<std::uint32_t> port_set;
  std::vector<PortRange> not_ports;
  std::optional<std::uint32_t> not_port_set;
  // (address, protocol, port) must be in it: destination.services.
  std::optional<std::uint32_t> service_ports;

  bool restricts_ports() const { return !ports.empty() || port_set.has_value(); }
};

// One conjunction. An impossible one (nets of no family, unknown named port only) is not left out but
// has `never` set, so that explanations can say so.
struct Match {
  bool never = false;
  std::optional<std::uint8_t> protocol;
  std::optional<std::uint8_t> not_protocol;
  std::optional<Family> family;
  std::optional<IcmpSpec> icmp;      // type and code together
  std::optional<IcmpSpec> not_icmp;  // NOT(type AND code)
  PeerMatch source;
  PeerMatch destination;
};

struct ProgramRule {
  RuleId id{};
  Direction direction{};
  Action action{};
  int index = 0;  // as the user counts
  std::uint32_t policy = kNone;
  std::vector<Match> any_of;
  bool log_decision = false;  // its decision counts as logged (tierlog.io/log)
  std::string log_label;
  std::optional<LogRate> log_rate;  // of a Log rule; the node's default when absent
  std::string text;  // one line for people
  SourceRef source;
};

struct ProgramPolicy {
  PolicyKey key;
  std::string display;  // "tier/ns/name"
  std::uint32_t tier = 0;
  double order = kNoOrder;
  std::uint32_t revision = 1;  // grows when a rule of it gets a new id
  bool staged = false;
  bool applies_ingress = false;
  bool applies_egress = false;
  bool log_denied_end = false;         // tierlog.io/log: deny|all: an end of tier it takes part in is logged
  std::vector<std::uint32_t> ingress;  // into rules
  std::vector<std::uint32_t> egress;
  std::uint32_t endpoints_selected = 0;  // among all endpoints of the cluster
  std::string subject_text;
  SourceRef source;

  const std::vector<std::uint32_t>& rules(Direction d) const {
    return d == Direction::Ingress ? ingress : egress;
  }
};

struct ProgramTier {
  std::string name;
  double order = kNoOrder;
  Action default_action = Action::Deny;
  bool exists = true;
};

// The end of a tier for one ordered list of asked policies: its own rule with its own id.
struct EndOfTier {
  RuleId id{};
  std::uint32_t tier = 0;
  Direction direction{};
  Action action = Action::Deny;         // Deny or Pass
  std::vector<std::uint32_t> policies;  // the enforced ones that were asked, in order, at least one
};

struct ClassTier {
  std::uint32_t tier = 0;
  std::vector<std::uint32_t> policies;  // in order, staged ones included
  std::uint32_t end = kNone;            // into ends; kNone when only staged policies select: tier is skipped
};

// Where in a packet's way the policies of a class are asked. All but Local are of host endpoints.
enum class Stage : std::uint8_t {
  Local,      // what a pod or the node itself sends and gets
  Forward,    // what the node forwards through the interface
  PreDnat,    // before addresses are rewritten; nothing decides when no rule matches
  Untracked,  // packet by packet, before any connection; nothing decides when no rule matches
};

struct EndpointClass {
  Direction direction{};
  std::vector<ClassTier> tiers;  // only those with a policy for the endpoint in this direction
  // What decides after the last tier: reserved no-policy (no enforced policy at all) or profile.
  RuleId fallback{};
  Action fallback_action = Action::Allow;
  Stage stage = Stage::Local;

  // Whether packets that no rule of a tier matches are decided by the tier.
  bool has_ends() const { return stage == Stage::Local || stage == Stage::Forward; }
};

struct ProgramEndpoint {
  std::uint32_t endpoint = 0;  // into cluster->endpoints
  std::uint32_t ingress_class = 0;
  std::uint32_t egress_class = 0;
  bool audited = false;  // verdicts are recorded and not carried out

  std::uint32_t class_of(Direction d) const { return d == Direction::Ingress ? ingress_class : egress_class; }
};

// The classes of a host endpoint; kNone where no policy of that stage selects it.
struct ProgramHost {
  std::uint32_t endpoint = 0;  // into cluster->host_endpoints
  std::uint32_t ingress_class = 0, egress_class = 0;  // Local
  std::uint32_t forward_ingress = kNone, forward_egress = kNone;
  std::uint32_t pre_dnat = kNone;
  std::uint32_t untracked_ingress = kNone, untracked_egress = kNone;

  std::uint32_t class_of(Direction direction, Stage stage) const;
};

// A way to the node that no policy of a host endpoint can close.
struct Failsafe {
  std::uint8_t protocol = protocol::kTcp;
  std::uint16_t port = 0;
  std::optional<Cidr> net;  // of the other end; nothing: any

  // "tcp:22", "tcp:10.0.0.0/8:22", "udp:[fd00::/8]:68"; nothing when `text` is none.
  static std::optional<Failsafe> parse(std::string_view text);
  bool admits(std::uint8_t protocol_number, std::uint16_t port_number, const IpAddr& other_end) const;
  bool operator==(const Failsafe&) const = default;
};

struct Failsafes {
  std::vector<Failsafe> inbound;
  std::vector<Failsafe> outbound;

  bool operator==(const Failsafes&) const = default;
};
// Calico's: SSH, DHCP, BGP, etcd, Typha, the Kubernetes API; DNS too on the way out.
const Failsafes& default_failsafes();

// What a RuleId stands for in this Program.
struct RuleRef {
  enum class Kind : std::uint8_t { Rule, EndOfTier, Reserved } kind = Kind::Reserved;
  std::uint32_t index = kNone;  // into rules or ends
};

struct Program {
  std::uint64_t revision = 0;  // of the whole set: grows with every change that is applied
  std::vector<ProgramTier> tiers;
  std::vector<ProgramPolicy> policies;
  std::vector<ProgramRule> rules;
  std::vector<EndOfTier> ends;
  std::vector<AddressSet> sets;
  std::vector<PortSet> port_sets;
  std::vector<EndpointClass> classes;
  std::vector<ProgramEndpoint> endpoints;  // the enforced ones only
  std::vector<ProgramHost> hosts;          // the enforced host endpoints, named interfaces before "*"
  Failsafes failsafes;
  std::shared_ptr<const Cluster> cluster;

  // The node's own addresses, when it may reach its pods whatever policies say (host_to_pod: allow).
  std::unordered_set<IpAddr> host_addresses;

  // Interfaces of pods that are gone but for their interface: nothing may come out of them.
  std::vector<std::string> closed_interfaces;

  // Filled by compile(): look-ups for evaluator and logger.
  std::unordered_map<RuleId, RuleRef> by_id;
  std::unordered_map<IpAddr, std::uint32_t> enforced_by_address;  // into endpoints
  std::unordered_map<IpAddr, std::uint32_t> endpoint_by_address;  // into cluster->endpoints, all known

  // Addresses of nodes with host endpoints, each with the one that stands for it; into hosts.
  std::unordered_map<IpAddr, std::uint32_t> host_by_address;

  const ProgramEndpoint* enforced(const IpAddr& address) const;
  bool audits(const IpAddr& address) const {
    const ProgramEndpoint* endpoint = enforced(address);
    return endpoint != nullptr && endpoint->audited;
  }
  const Endpoint* known(const IpAddr& address) const;
  // One line a rule, class and set; equal for equal Programs: what goldens and `tierlog compile` show.
  std::string dump() const;
};

}  // namespace tierlog::policy
