// daemon/recorder.h - the event half: events and counts -> flow records -> flow index.
//
//   EventSource --drain--> FlowLogger --records--> FlowStore
//   Backend     --read_denied, read_counters--^        ^-- catalog, counts, losses
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "dataplane/backend.h"
#include "dataplane/events.h"
#include "logger/flow_logger.h"
#include "store/flow_store.h"

namespace tierlog::daemon {

// What the kernel counted for deciding rules since the flow index was made, what of it is in the index,
// what the next reading of denied flows will bring, and what is missing.
struct Books {
  std::uint64_t kernel = 0;
  std::uint64_t recorded = 0;
  std::uint64_t waiting = 0;
  std::uint64_t unattributed = 0;
};

class Recorder {
 public:
  Recorder(dataplane::Backend& backend, dataplane::EventSource& events, store::FlowStore& store,
           std::string store_path, const Clock& clock);

  // Verdicts are what would have been.
  void set_audit(bool audits) { logger_.set_audit(audits); }
  // A Program came into force: names first, so that its records find them.
  Result<void> install(const std::shared_ptr<const policy::Program>& program,
                       const std::vector<policy::NetworkSet>& policy_sets);
  // The kernel's denied flows from before this process are where the differences begin.
  Result<void> start();
  // Takes what is waiting; true when there may be more.
  Result<bool> drain();
  Result<void> read_denied(logger::FlowLogger::Reading reading);
  Result<void> commit();          // what drain and read_denied made
  Result<void> publish_counts();  // rule counters and losses
  // All that the kernel counted and reported until now is committed.
  Result<void> flush();

  bool pending() const { return logger_.has_records(); }
  Result<Books> books();
  std::vector<store::LossCount> losses() const;

 private:
  dataplane::Backend& backend_;
  dataplane::EventSource& events_;
  store::FlowStore& store_;
  std::string store_path_;
  const Clock& clock_;
  logger::FlowLogger logger_;
  std::shared_ptr<const policy::Program> program_;
  std::vector<dataplane::VerdictEvent> buffer_;
  std::uint64_t overflow_ = 0;
};

}  // namespace tierlog::daemon
