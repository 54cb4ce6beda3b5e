#include "daemon/bridges.h"

#include <algorithm>

namespace tierlog::daemon {

Result<std::unique_ptr<Bridges>> Bridges::open() {
  TL_ASSIGN(auto links, dataplane::Links::open());
  return std::unique_ptr<Bridges>(new Bridges(std::move(links)));
}

Result<std::string> Bridges::bridge_of(const std::string& interface) {
  TL_ASSIGN(const auto links, links_->list());
  const auto port = std::find_if(links.begin(), links.end(),
                                 [&](const dataplane::Link& link) { return link.name == interface; });
  if (port == links.end() || port->master == 0) return std::string();
  const auto bridge = std::find_if(links.begin(), links.end(), [&](const dataplane::Link& link) {
    return link.index == port->master && link.is_bridge;
  });
  if (bridge == links.end()) return std::string();
  const auto known = kept_.find(bridge->name);
  if (known != kept_.end() && known->second == bridge->index) return bridge->name;
  TL_TRY(links_->filter_bridge(*bridge));
  kept_[bridge->name] = bridge->index;
  return bridge->name;
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
