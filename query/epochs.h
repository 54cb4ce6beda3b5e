// query/epochs.h - the past cut into spans in which an address means one thing.
//
//   FlowReader::object_versions --[cut_epochs]--> Epoch: a cluster that serves all its time --> replay.h
//
// A span's cluster is the union of all pods that were there in it. That is exact for a packet of the span:
// another pod, elsewhere in the union, changes no verdict about two addresses. A span ends where an address
// gets another owner or other labels, or where anything but pods changes (namespaces, sets, services).
#pragma once

#include <memory>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "policy/cluster.h"
#include "store/history.h"

namespace tierlog::query {

struct Epoch {
  WallTime from{};  // until the next one's
  std::shared_ptr<const policy::Cluster> cluster;
};

// In the order of time; empty without versions. `versions`: as object_versions gives them.
// Errors: Corrupt.
Result<std::vector<Epoch>> cut_epochs(const std::vector<store::ObjectVersion>& versions);

// Index of the epoch that `t` is in; nothing before the first.
std::optional<std::size_t> epoch_at(const std::vector<Epoch>& epochs, WallTime t);

}  // namespace tierlog::query
