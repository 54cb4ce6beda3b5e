// daemon/recorder.h - the event half: events and counts -> flow records -> flow index.
//
//   EventSource --drain--> FlowLogger --records, what was told--> StoreWriter (thread) --> FlowStore
//   Conntrack   --ends, dump--^                                      ^
//   Backend     --read_denied--^ --read_counters--> Books --losses---'  catalog
//
// Taking events never waits for the store: while a batch is being written, records wait in bounded room
// (logger/pending.h) and numbers are told when it is done.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "daemon/store_writer.h"
#include "dataplane/backend.h"
#include "dataplane/connection_source.h"
#include "dataplane/events.h"
#include "logger/books.h"
#include "logger/flow_logger.h"
#include "store/flow_store.h"
#include "store/query.h"

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

// How much there is to do, and how late it is done.
struct Pace {
  double per_second = 0;  // verdicts, as the kernel counted them between the last two readings
  Nanoseconds behind{};   // from the oldest event of the last batch to its being visible
};

class Recorder {
 public:
  Recorder(dataplane::Backend& backend, dataplane::EventSource& events, dataplane::ConnectionSource& conntrack,
           store::FlowStore& store, std::string store_path, const Clock& clock);

  // What earlier daemons told and declared; before the first Program.
  Result<void> load();

  // Verdicts are what would have been.
  void set_audit(bool audits) { logger_.set_audit(audits); }
  // The tables were taken away and made anew: nothing that was counted flow by flow is there.
  void on_rebuilt() { logger_.forget_counted_flows(); }
  // A Program came into force: names first, so that its records find them.
  Result<void> install(const std::shared_ptr<const policy::Program>& program,
                       const std::vector<policy::NetworkSet>& policy_sets,
                       std::vector<logger::ServiceAddress> services, StoreWriter::InForce in_force);
  // Takes over what the kernel holds: denied flows and connections go on where the records ended, and what
  // was counted meanwhile and cannot be told any more is declared.
  Result<void> start();
  // From now on a thread writes; it has the privileges that are left now.
  void start_writer() { writer_.start(); }
  // Takes what is waiting; true when there may be more.
  Result<bool> drain();
  // Counters, then denied flows: balance() compares the two when all messages of that time have come.
  Result<void> read_denied(logger::FlowLogger::Reading reading);
  Result<void> balance();
  // Open connections that moved bytes.
  Result<void> read_connections();
  void commit();                  // what the above made, as soon as the batch before it is written
  Result<void> publish_counts();  // rule counters and losses, with the next commit
  // All that the kernel counted and reported until now is committed.
  Result<void> flush();

  std::size_t waiting_records() const { return logger_.pending().size(); }
  bool pending() const { return logger_.has_records() || catalog_ || counts_ || !moments_.empty(); }
  // Events that evaluator and kernel decide differently, since the last call.
  std::vector<logger::Disagreement> take_disagreements() { return logger_.take_disagreements(); }
  // How far the store is behind, and why.
  struct Backlog {
    std::size_t records = 0;       // that wait
    std::uint64_t aggregated = 0;  // that were put together while they waited
    std::uint64_t refused = 0;     // batches that the store did not take at once
    std::string problem;           // of the latest; empty: it was taken
    Nanoseconds longest{};         // that a batch took
  };
  Backlog backlog() const;
  store::StoreState store_state() const { return writer_.state(); }
  std::int64_t last_sequence() const { return writer_.last_sequence(); }
  Result<BookTotals> books();
  std::vector<store::LossCount> losses() const;
  const Pace& pace() const { return pace_; }

 private:
  Result<void> load_last_program(store::FlowReader& reader);
  Result<void> drain_ended();
  Result<void> ask_translations();
  Result<void> drain_all();
  Result<void> dump_connections(logger::Connections::Dump dump);
  // Gives all that is there to the store and waits until it has it. False: it had not within that time.
  Result<bool> settle(Nanoseconds longest);
  Result<std::vector<logger::RuleBalance>> balances();
  Result<void> declare();
  void measure_rate(const std::vector<store::RuleCount>& counts);

  dataplane::Backend& backend_;
  dataplane::EventSource& events_;
  dataplane::ConnectionSource& conntrack_;
  store::FlowStore& store_;
  std::string store_path_;
  const Clock& clock_;
  logger::FlowLogger logger_;
  bool started_ = false;
  bool asks_translations_ = false;  // there are Services, and events do not tell
  std::vector<dataplane::VerdictEvent> buffer_;
  std::vector<dataplane::Connection> ended_;
  store::Told told_;  // between load() and start()
  logger::Books books_;
  std::vector<store::RuleCount> counted_;       // when denied flows were last read, just before
  std::vector<dataplane::DeniedCount> denied_;  // then
  Nanoseconds counted_at_{};
  logger::PacketsOfRules frames_;  // as read last, see RuleCounter
  std::uint64_t overflow_ = 0;
  Pace pace_;
  std::uint64_t verdicts_ = 0;  // all rules', when they were last read for pace_
  Nanoseconds verdicts_at_{};
  // For the next batch.
  std::optional<store::Catalog> catalog_;
  std::vector<StoreWriter::InForce> moments_;
  std::optional<StoreWriter::Counts> counts_;
  StoreWriter writer_;  // last: its thread ends first
};

}  // namespace tierlog::daemon
