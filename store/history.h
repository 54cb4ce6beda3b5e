// store/history.h - what was enforced and who there was, at any time the flow index knows.
//
//   daemon/ --[Moment, when a Program came into force]--> FlowStore::put_moment --> tables policy_set,
//   policy_text, object_history, rule_key --[FlowReader]--> query/moment.h (explain and diff, back in time)
//
// Texts and objects are kept once and by interval: a pod that comes costs a row, not a copy of the cluster.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/net_types.h"
#include "base/result.h"
#include "base/time.h"
#include "policy/cluster.h"
#include "policy/compile.h"
#include "policy/load.h"

namespace tierlog::store {

// What makes a Program: the same again gives the same verdicts.
struct Moment {
  WallTime since{};
  std::uint64_t revision = 0;  // of the Program
  bool ready = true;           // false: no good set, endpoints' traffic is denied
  std::vector<policy::SourceText> texts;
  std::vector<IpAddr> host_addresses;  // that reach the node's pods whatever policies say
};

// A rule's key and what the registry gave it. `hash`: key_hash() of RuleKey::text().
struct KnownRule {
  std::uint64_t hash = 0;
  policy::RuleIdentity identity;
};
// 64-bit FNV-1a: part of the file, so it may never change.
std::uint64_t key_hash(const std::string& text);

// A policy set that was in force from `since` until the next one; its texts are read apart.
struct PolicySetRow {
  std::int64_t id = 0;
  WallTime since{};
  std::uint64_t revision = 0;
  bool ready = true;
  std::vector<IpAddr> host_addresses;
};

enum class ObjectKind : std::uint8_t { Endpoint, Namespace, Node, Service, ServiceAccount, NetworkSet };

// One version of an object of the cluster. Open-ended while `until` is empty.
struct ObjectVersion {
  ObjectKind kind{};
  std::string name;  // unique among its kind: "ns/name", a namespace's name
  WallTime since{};
  std::optional<WallTime> until;
  std::string value;  // JSON
};

// The objects of a cluster as versions without times, and back. Equal objects give equal text. What no
// verdict depends on (interfaces, MAC addresses) is left out. Errors of add_object: Corrupt.
std::vector<ObjectVersion> objects_of(const policy::Cluster& cluster);
Result<void> add_object(policy::Cluster& cluster, const ObjectVersion& object);

}  // namespace tierlog::store
