// daemon/living.h - what a change means for connections that are already there (design D9).
//
//   Program --apply--> kernel judges doubtful connections anew, packet by packet
//      `--> [LivingConnections]: dump, evaluate, rewrite labels or cut --> Backend::settle
//
// Never by deleting an entry of a pod that can still speak: the next packet of the other side would make it
// again, in its own direction, past all rules. An entry whose label says "cut" lets nothing through, both
// ways, until it expires.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_set>

#include "base/result.h"
#include "base/time.h"
#include "dataplane/backend.h"
#include "dataplane/conntrack.h"
#include "policy/program.h"

namespace tierlog::daemon {

// What one connection's label must be under a Program; pure.
struct Judgement {
  dataplane::ConnectionLabels labels;
  bool concerns = false;  // one of its ends is enforced here
};
Judgement judge(const policy::Program& program, const dataplane::Connection& connection);

// Cumulative since start.
struct LivingCounts {
  std::uint64_t judged = 0;      // looked at
  std::uint64_t relabelled = 0;  // still allowed, by another rule
  std::uint64_t cut = 0;         // no longer allowed
  std::uint64_t resumed = 0;     // cut before, allowed again
  std::uint64_t removed = 0;     // had no room for a label, or were of an address that changed hands
  std::uint64_t uncuttable = 0;  // no room for a label, and no TCP: open until they end
};

class LivingConnections {
 public:
  LivingConnections(dataplane::Backend& backend, dataplane::Conntrack& conntrack)
      : backend_(backend), conntrack_(conntrack) {}

  // A Program came into force. Entries of addresses that changed hands are gone when this returns.
  Result<void> on_applied(const std::shared_ptr<const policy::Program>& program, Nanoseconds now);
  // Does what is due; `due` says when there will be something.
  Result<void> tick(Nanoseconds now);
  Nanoseconds due() const { return due_; }
  // Judges all of them at the next tick, those without a label too: what was let be at first is so no more.
  void judge_all(Nanoseconds now);
  // Entries that a daemon before this one cut may be there.
  void look_for_cut(Nanoseconds now) { due_ = std::min(due_, now); }

  const LivingCounts& counts() const { return counts_; }
  std::uint64_t cut_now() const { return cut_now_; }  // entries that the latest look found cut

 private:
  Result<void> forget(const std::unordered_set<IpAddr>& addresses);
  Result<void> revise();
  Result<void> relabel(const dataplane::Connection& connection, const dataplane::ConnectionLabels& labels);

  dataplane::Backend& backend_;
  dataplane::Conntrack& conntrack_;
  std::shared_ptr<const policy::Program> program_;
  Nanoseconds due_ = Nanoseconds::max();
  bool also_unlabelled_ = false;
  LivingCounts counts_;
  std::uint64_t cut_now_ = 0;
};

}  // namespace tierlog::daemon
