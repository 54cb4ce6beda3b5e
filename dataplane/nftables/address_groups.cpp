#include "dataplane/nftables/address_groups.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>

namespace tierlog::dataplane::nftables {
namespace {

// The address after; nullopt behind the highest.
std::optional<IpAddr> after(IpAddr address) {
  for (std::size_t i = address.size(); i-- > 0;)
    if (++address.bytes[i] != 0) return address;
  return std::nullopt;
}

IpAddr before(IpAddr address) {
  for (std::size_t i = address.size(); i-- > 0;)
    if (address.bytes[i]-- != 0) break;
  return address;
}

class Grouping {
 public:
  Grouping(const policy::Program& program, const std::vector<std::uint32_t>& sets, Family family,
           std::size_t budget)
      : program_(program), family_(family), budget_(budget) {
    for (const std::uint32_t set : sets) key_of_[set] = content_of(program.sets[set].key);
    std::vector<Content> keys;
    for (const auto& [set, key] : key_of_) keys.push_back(key);
    result_.domain = joined(std::move(keys));
    static_cast<void>(group_of({}));
  }

  std::optional<AddressGroups> run() {
    collect();
    if (used_ > budget_) return std::nullopt;
    sweep();
    if (used_ > budget_) return std::nullopt;
    return std::move(result_);
  }

 private:
  static Content joined(std::vector<Content> keys) {
    std::sort(keys.begin(), keys.end());
    return content_of(std::string_view(reinterpret_cast<const char*>(keys.data()), keys.size() * sizeof(Content)));
  }

  void collect() {
    for (const auto& [set, key] : key_of_)
      for (const Cidr& member : program_.sets[set].members) {
        if (member.address.family != family_) continue;
        if (++used_ > budget_) return;
        if (member.prefix == member.address.bits()) {
          hosts_[member.address].push_back(set);
          continue;
        }
        begins_[member.address].push_back(set);
        if (const auto end = after(member.last())) ends_[*end].push_back(set);
      }
  }

  std::uint32_t group_of(std::vector<std::uint32_t> sets) {
    used_ += sets.size();
    const auto [found, is_new] =
        index_.try_emplace(sets, static_cast<std::uint32_t>(result_.groups.size()));
    if (is_new) {
      std::vector<Content> keys;
      for (const std::uint32_t set : sets) keys.push_back(key_of_.at(set));
      result_.groups.push_back({joined(std::move(keys)), std::move(sets)});
    }
    return found->second;
  }

  void sweep() {
    std::set<IpAddr> cuts;
    for (const auto* at : {&begins_, &ends_})
      for (const auto& [address, sets] : *at) cuts.insert(address);
    std::set<std::uint32_t> inside;
    auto host = hosts_.begin();
    const auto take_hosts = [&](const std::optional<IpAddr>& until) {
      for (; host != hosts_.end() && (!until || host->first < *until) && used_ <= budget_; ++host) {
        std::set<std::uint32_t> all = inside;
        all.insert(host->second.begin(), host->second.end());
        result_.hosts.push_back({host->first, group_of({all.begin(), all.end()})});
      }
    };
    for (auto cut = cuts.begin(); cut != cuts.end() && used_ <= budget_; ++cut) {
      take_hosts(*cut);
      if (const auto gone = ends_.find(*cut); gone != ends_.end())
        for (const std::uint32_t set : gone->second) inside.erase(set);
      if (const auto come = begins_.find(*cut); come != begins_.end())
        inside.insert(come->second.begin(), come->second.end());
      if (inside.empty()) continue;
      IpAddr last{family_, {}};
      std::fill_n(last.bytes.begin(), last.size(), std::uint8_t{0xff});
      if (const auto next = std::next(cut); next != cuts.end()) last = before(*next);
      result_.ranges.push_back({*cut, last, group_of({inside.begin(), inside.end()})});
    }
    take_hosts(std::nullopt);
  }

  const policy::Program& program_;
  const Family family_;
  const std::size_t budget_;
  std::size_t used_ = 0;
  std::map<std::uint32_t, Content> key_of_;
  std::map<IpAddr, std::vector<std::uint32_t>> hosts_, begins_, ends_;
  std::map<std::vector<std::uint32_t>, std::uint32_t> index_;
  AddressGroups result_;
};

}  // namespace

std::optional<AddressGroups> group_addresses(const policy::Program& program, std::vector<std::uint32_t> sets,
                                             Family family, std::size_t budget) {
  std::sort(sets.begin(), sets.end());
  sets.erase(std::unique(sets.begin(), sets.end()), sets.end());
  return Grouping(program, sets, family, budget).run();
}

std::optional<std::vector<std::vector<std::uint32_t>>> tests_by_group(const AddressGroups& groups,
                                                                      const std::vector<AddressTest>& tests,
                                                                      const std::vector<bool>& wanted,
                                                                      std::size_t budget) {
  std::map<std::uint32_t, std::vector<std::uint32_t>> by_set;
  std::vector<std::uint32_t> only_not;
  for (std::uint32_t test = 0; test < tests.size(); ++test) {
    if (!wanted[test]) continue;
    if (tests[test].in.empty())
      only_not.push_back(test);
    else
      by_set[tests[test].in.front()].push_back(test);
  }
  std::vector<std::vector<std::uint32_t>> by_group;
  std::size_t asked = 0;
  for (const AddressGroups::Group& group : groups.groups) {
    const auto is_in = [&](std::uint32_t set) {
      return std::binary_search(group.sets.begin(), group.sets.end(), set);
    };
    std::vector<std::uint32_t> hold;
    const auto look_at = [&](std::uint32_t test) {
      ++asked;
      if (std::all_of(tests[test].in.begin(), tests[test].in.end(), is_in) &&
          std::none_of(tests[test].not_in.begin(), tests[test].not_in.end(), is_in))
        hold.push_back(test);
    };
    for (const std::uint32_t set : group.sets)
      if (const auto found = by_set.find(set); found != by_set.end())
        for (const std::uint32_t test : found->second) look_at(test);
    for (const std::uint32_t test : only_not) look_at(test);
    if (asked > budget) return std::nullopt;
    std::sort(hold.begin(), hold.end());
    by_group.push_back(std::move(hold));
  }
  return by_group;
}

}  // namespace tierlog::dataplane::nftables
