// store/state_db.h - what must never be lost: the id registry, the endpoints, the last good policy set.
//
// state.db, mode 0600, synchronous=FULL, apart from the flow index and under no retention. Losing it
// would give old ids new meanings.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "policy/compile.h"

namespace tierlog::store {

// A pod as tierlog-cni registered it: what must survive a restart of the daemon.
struct RegisteredEndpoint {
  std::string container_id, ifname;  // CNI's key
  std::string endpoint_namespace, name;
  std::string netns;
  std::string host_interface;
  std::vector<std::string> addresses;
  policy::Labels labels;  // from args.cni.labels
  std::string mac{};      // of the pod's side; empty: unknown

  bool operator==(const RegisteredEndpoint&) const = default;
};

class StateDb final : public policy::RuleIdRegistry {
 public:
  static Result<std::unique_ptr<StateDb>> open(const std::string& path);
  ~StateDb() override;

  Result<std::vector<policy::RuleIdentity>> identify(const std::vector<policy::RuleKey>& keys) override;
  // Ids below `floor` will not be given out: after the registry was lost, what the kernel still carries.
  // True: it would have.
  Result<bool> raise_floor(RuleId floor);

  Result<void> put_endpoint(const RegisteredEndpoint& endpoint);  // replaces the same container_id + ifname
  Result<void> remove_endpoint(const std::string& container_id, const std::string& ifname);
  Result<std::vector<RegisteredEndpoint>> endpoints();

  // Small named values: the exporters' cursors, the last good policy text, the set's revision.
  Result<void> put(const std::string& key, const std::string& value);
  Result<std::optional<std::string>> get(const std::string& key);

 private:
  struct Impl;
  explicit StateDb(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tierlog::store
