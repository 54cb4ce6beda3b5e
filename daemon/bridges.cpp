#include "daemon/bridges.h"

namespace tierlog::daemon {

Result<std::unique_ptr<Bridges>> Bridges::open() {
  TL_ASSIGN(auto links, dataplane::Links::open());
  return std::unique_ptr<Bridges>(new Bridges(std::move(links)));
}

// One look for all: each costs as much as the node has interfaces.
Result<std::map<std::string, std::string>> Bridges::bridges_of(const std::set<std::string>& interfaces) {
  std::map<std::string, std::string> found;
  if (interfaces.empty()) return found;
  TL_ASSIGN(const auto links, links_->list());
  std::map<int, const dataplane::Link*> bridges;
  for (const dataplane::Link& link : links)
    if (link.is_bridge) bridges.emplace(link.index, &link);
  for (const dataplane::Link& port : links) {
    const auto bridge = bridges.find(port.master);
    if (bridge == bridges.end() || interfaces.count(port.name) == 0) continue;
    const dataplane::Link& link = *bridge->second;
    found.emplace(port.name, link.name);
    const auto known = kept_.find(link.name);
    if (known != kept_.end() && known->second == link.index) continue;
    TL_TRY(links_->filter_bridge(link));
    kept_[link.name] = link.index;
  }
  return found;
}

Result<std::vector<std::string>> Bridges::keep() {
  std::vector<std::string> repaired;
  if (kept_.empty()) return repaired;
  TL_ASSIGN(const auto links, links_->list());
  for (const dataplane::Link& link : links) {
    const auto known = kept_.find(link.name);
    if (known == kept_.end() || !link.is_bridge || (link.filters_v4 && link.filters_v6)) continue;
    TL_TRY(links_->filter_bridge(link));
    known->second = link.index;
    repaired.push_back(link.name);
    ++repairs_;
  }
  return repaired;
}

}  // namespace tierlog::daemon
