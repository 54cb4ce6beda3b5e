// daemon/recorder.h - the event half: events and counts -> flow records -> flow index.
//
//   EventSource --drain--> FlowLogger --records, what was told--> FlowStore
//   Conntrack   --ends, dump--^                                      ^
//   Backend     --read_denied--^ --read_counters--> Books --losses---'  catalog
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "dataplane/backend.h"
#include "dataplane/conntrack.h"
#include "dataplane/events.h"
#include "logger/books.h"
#include "logger/flow_logger.h"
#include "store/flow_store.h"

namespace tierlog::daemon {

// What the kernel counted for deciding rules since the flow index was made, what of it is in the index,
// what the next reading of denied flows will bring, and what no record tells: declared by cause, and the
// rest that is not certain yet. kernel = recorded + waiting + unattributed, unless there are too many.
struct BookTotals {
  std::uint64_t kernel = 0;
  std::uint64_t recorded = 0;
  std::uint64_t waiting = 0;
  std::uint64_t unattributed = 0;
  std::uint64_t undeclared = 0;  // part of unattributed
  std::vector<std::pair<std::string_view, std::uint64_t>> causes;
};

class Recorder {
 public:
  Recorder(dataplane::Backend& backend, dataplane::EventSource& events, dataplane::Conntrack& conntrack,
           store::FlowStore& store, std::string store_path, const Clock& clock);

  // What earlier daemons told and declared; before the first Program.
  Result<void> load();

  // Verdicts are what would have been.
  void set_audit(bool audits) { logger_.set_audit(audits); }
  // The tables were taken away and made anew: nothing that was counted flow by flow is there.
  void on_rebuilt() { logger_.forget_counted_flows(); }
  // A Program came into force: names first, so that its records find them.
  Result<void> install(const std::shared_ptr<const policy::Program>& program,
                       const std::vector<policy::NetworkSet>& policy_sets);
  // Takes over what the kernel holds: denied flows and connections go on where the records ended, and what
  // was counted meanwhile and cannot be told any more is declared.
  Result<void> start();
  // Takes what is waiting; true when there may be more.
  Result<bool> drain();
  // Counters, then denied flows: balance() compares the two when all messages of that time have come.
  Result<void> read_denied(logger::FlowLogger::Reading reading);
  Result<void> balance();
  // Open connections that moved bytes.
  Result<void> read_connections();
  Result<void> commit();          // what the above made
  Result<void> publish_counts();  // rule counters and losses
  // All that the kernel counted and reported until now is committed.
  Result<void> flush();

  bool pending() const { return logger_.has_records() || !uncommitted_.empty(); }
  Result<BookTotals> books();
  std::vector<store::LossCount> losses() const;

 private:
  Result<void> drain_ended();
  Result<void> drain_all();
  Result<void> dump_connections(logger::Connections::Dump dump);
  Result<std::vector<logger::RuleBalance>> balances();
  Result<void> declare();

  dataplane::Backend& backend_;
  dataplane::EventSource& events_;
  dataplane::Conntrack& conntrack_;
  store::FlowStore& store_;
  std::string store_path_;
  const Clock& clock_;
  logger::FlowLogger logger_;
  bool started_ = false;
  std::vector<dataplane::VerdictEvent> buffer_;
  std::vector<dataplane::Connection> ended_;
  store::Told told_;  // between load() and start()
  logger::Books books_;
  // Records that are not in the index yet, and what they change about what was told.
  std::vector<store::FlowRecord> uncommitted_;
  store::ToldChanges uncommitted_changes_;
  std::vector<store::RuleCount> counted_;       // when denied flows were last read, just before
  std::vector<dataplane::DeniedCount> denied_;  // then
  Nanoseconds counted_at_{};
  logger::PacketsOfRules frames_;  // as read last, see RuleCounter
  std::uint64_t overflow_ = 0;
};

}  // namespace tierlog::daemon
