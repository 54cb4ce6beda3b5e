// logger/descriptions.h - what many records have in common, kept once.
//
// An open connection needs the names, labels and trace of its first record until its end, and a hundred
// thousand connections between the same pods need them once.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>

#include "store/record.h"

namespace tierlog::logger {

using Description = std::shared_ptr<const store::FlowRecord>;

class Descriptions {
 public:
  // The record without what differs from one connection to the next (id, times, source port, amounts).
  Description share(store::FlowRecord record);
  std::size_t size() const { return known_.size(); }

 private:
  void drop_unused();

  std::unordered_multimap<std::size_t, std::weak_ptr<const store::FlowRecord>> known_;
  std::size_t clean_at_ = 1024;
};

}  // namespace tierlog::logger
