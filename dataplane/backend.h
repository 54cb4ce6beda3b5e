// dataplane/backend.h - the only way to a kernel: Programs in, counters out.
//
//   policy/program.h --> [Backend: nftables | ebpf] --> kernel --> dataplane/events.h
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "dataplane/events.h"
#include "policy/program.h"

namespace tierlog::dataplane {

struct RuleCounter {
  RuleId id{};
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;
  std::uint64_t messages = 0;  // of a Log rule: packets that its limits let be told
  std::uint64_t frames = 0;  // of these packets: not IP, so no flow record can tell of them
};

// What was seen of a table that somebody changed or took away behind our back.
struct Repair {
  bool rebuilt = false;      // the table was gone: counters began anew
  std::size_t objects = 0;   // that were not as they had to be
};

class Backend {
 public:
  virtual ~Backend() = default;
  // Makes `program` what the kernel enforces: prepare beside the old, flip, sweep. On an error the old
  // rules are in force, nothing of the new is left, and the message names the operation, the object
  // (with the policy it belongs to) and the errno.
  virtual Result<void> apply(std::shared_ptr<const policy::Program> program) = 0;
  // Cumulative since each counter was made; counters outlive the rules that refer to them.
  virtual Result<std::vector<RuleCounter>> read_counters() = 0;
  virtual Result<std::vector<DeniedCount>> read_denied() = 0;
  // How long the kernel keeps a denied flow's entry after its last packet; then it counts anew.
  virtual Nanoseconds denied_lifetime() const = 0;
  // Denied packets that no entry could be made for, cumulative.
  virtual Result<std::uint64_t> read_overflow() = 0;
  // The first call some grace time after an apply takes away what the apply replaced.
  virtual Result<void> sweep_when_due() = 0;

  // A change of policy concerns living connections: until `settle`, those whose verdict may have changed
  // are judged anew with each packet of their originator (design D9).
  virtual bool connections_in_doubt() const = 0;
  // Their labels are right now; `cut`: some carry the cut bit, which stays in force.
  virtual Result<void> settle(bool cut) = 0;
  // From now on, what is in mid-stream without a connection is dropped.
  virtual Result<void> end_sparing() = 0;
  // Looks whether the kernel still holds what it must, and makes it so.
  virtual Result<Repair> verify() = 0;

  // What stands in the way of what is enforced, for people.
  virtual std::vector<std::string> warnings() const { return {}; }

  // Takes everything of ours out of the kernel.
  virtual Result<void> remove_all() = 0;
};

}  // namespace tierlog::dataplane
