#include "query/epochs.h"

#include <algorithm>
#include <map>
#include <set>
#include <unordered_map>

namespace tierlog::query {
namespace {

using store::ObjectKind;
using store::ObjectVersion;

// Everything that happens at one time.
struct Change {
  std::vector<const ObjectVersion*> begin, end;
};

std::map<WallTime, Change> changes_of(const std::vector<ObjectVersion>& versions) {
  std::map<WallTime, Change> changes;
  for (const ObjectVersion& version : versions) {
    changes[version.since].begin.push_back(&version);
    if (version.until) changes[*version.until].end.push_back(&version);
  }
  return changes;
}

Result<std::vector<IpAddr>> addresses_of(const ObjectVersion& version) {
  policy::Cluster one;
  TL_TRY(store::add_object(one, version));
  return one.endpoints.empty() ? std::vector<IpAddr>() : one.endpoints.front().addresses;
}

class Cutter {
 public:
  Result<void> apply(WallTime at, const Change& change) {
    for (const ObjectVersion* version : change.end) alive_.erase(version);
    for (const ObjectVersion* version : change.begin) alive_.insert(version);
    TL_ASSIGN(const bool fits, fits_in(change));
    if (!epochs_.empty() && fits) {
      for (const ObjectVersion* version : change.begin) TL_TRY(add(*version));
      return {};
    }
    TL_TRY(finish());
    epochs_.push_back({at, nullptr});
    for (const ObjectVersion* version : alive_) TL_TRY(add(*version));
    return {};
  }

  Result<std::vector<Epoch>> take() {
    TL_TRY(finish());
    return std::move(epochs_);
  }

 private:
  Result<bool> fits_in(const Change& change) {
    const auto is_pod = [](const ObjectVersion* v) { return v->kind == ObjectKind::Endpoint; };
    if (!std::all_of(change.begin.begin(), change.begin.end(), is_pod)) return false;
    if (!std::all_of(change.end.begin(), change.end.end(), is_pod)) return false;
    for (const ObjectVersion* version : change.begin) {
      TL_ASSIGN(const auto addresses, addresses_of(*version));
      for (const IpAddr& address : addresses) {
        const auto owner = owners_.find(address);
        if (owner != owners_.end() && owner->second->value != version->value) return false;
      }
    }
    return true;
  }

  Result<void> add(const ObjectVersion& version) {
    if (version.kind == ObjectKind::Endpoint) {
      TL_ASSIGN(const auto addresses, addresses_of(version));
      bool known = !addresses.empty();  // the same pod went and came back
      for (const IpAddr& address : addresses) known &= !owners_.try_emplace(address, &version).second;
      if (known) return {};
    }
    return store::add_object(cluster_, version);
  }

  Result<void> finish() {
    if (!epochs_.empty())
      epochs_.back().cluster = std::make_shared<const policy::Cluster>(std::move(cluster_));
    cluster_ = {};
    owners_.clear();
    return {};
  }

  std::vector<Epoch> epochs_;
  std::set<const ObjectVersion*> alive_;
  std::unordered_map<IpAddr, const ObjectVersion*> owners_;  // in the union
  policy::Cluster cluster_;                                  // of the last epoch, as it grows
};

}  // namespace

Result<std::vector<Epoch>> cut_epochs(const std::vector<ObjectVersion>& versions) {
  Cutter cutter;
  for (const auto& [at, change] : changes_of(versions)) TL_TRY(cutter.apply(at, change));
  return cutter.take();
}

std::optional<std::size_t> epoch_at(const std::vector<Epoch>& epochs, WallTime t) {
  const auto later = std::upper_bound(epochs.begin(), epochs.end(), t,
                                      [](WallTime at, const Epoch& epoch) { return at < epoch.from; });
  if (later == epochs.begin()) return std::nullopt;
  return static_cast<std::size_t>(later - epochs.begin()) - 1;
}

}  // namespace tierlog::query
