// logger/pending.h - records that wait for the store, in bounded room.
//
//   FlowLogger --add--> [Pending] --take--> store
//
// While the store keeps up, records pass as they are. When it does not, the oldest are put together:
// first those of one description (the same rule, ends and port), then those of one rule and pair of
// addresses. Their sums stay exact, their single times and source ports are gone. What finds no room even
// so is given up and stays as a number by rule, which the books declare. Pure.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "store/flow_entry.h"

namespace tierlog::logger {

class Pending {
 public:
  explicit Pending(std::size_t most = 100'000) : most_(most) {}

  void add(store::FlowEntry entry);
  std::vector<store::FlowEntry> take();
  bool empty() const { return entries_.empty(); }
  std::size_t size() const { return entries_.size(); }

  // Cumulative: records that were put into others, and verdicts whose records were given up, by rule.
  std::uint64_t merged() const { return merged_; }
  const std::unordered_map<RuleId, std::uint64_t>& given_up() const { return given_up_; }

 private:
  void shrink();
  template <typename SameKey>
  void merge_oldest(std::size_t count, const SameKey& key_of);

  std::size_t most_;
  std::vector<store::FlowEntry> entries_;  // in the order they came
  std::uint64_t merged_ = 0;
  std::unordered_map<RuleId, std::uint64_t> given_up_;
};

}  // namespace tierlog::logger
