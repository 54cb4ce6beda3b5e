#include "daemon/recorder.h"

#include <algorithm>
#include <thread>

#include "store/query.h"

namespace tierlog::daemon {
namespace {

constexpr std::size_t kEventsPerDrain = 20'000;
// The kernel sends log messages at most this long after the packet.
constexpr std::chrono::milliseconds kMessageDelay{30};

}  // namespace

Recorder::Recorder(dataplane::Backend& backend, dataplane::EventSource& events, store::FlowStore& store,
                   std::string store_path, const Clock& clock)
    : backend_(backend),
      events_(events),
      store_(store),
      store_path_(std::move(store_path)),
      clock_(clock),
      logger_(backend.denied_lifetime()) {}

Result<void> Recorder::install(const std::shared_ptr<const policy::Program>& program,
                               const std::vector<policy::NetworkSet>& policy_sets) {
  // What was denied until now is told by the names that held then.
  if (program_) {
    TL_TRY(drain());
    TL_TRY(read_denied(logger::FlowLogger::Reading::Regular));
  }
  const WallTime now = clock_.wall();
  program_ = program;
  logger_.set_program(program, policy_sets, now);
  return store_.put_catalog(logger::make_catalog(*program, now));
}

Result<void> Recorder::start() {
  TL_ASSIGN(const auto counts, backend_.read_denied());
  logger_.set_denied_baseline(counts, clock_.wall());
  return publish_counts();
}

Result<bool> Recorder::drain() {
  buffer_.clear();
  TL_ASSIGN(const bool more, events_.drain(buffer_, kEventsPerDrain));
  logger_.on_events(buffer_);
  return more;
}

Result<void> Recorder::read_denied(logger::FlowLogger::Reading reading) {
  TL_ASSIGN(const auto counts, backend_.read_denied());
  logger_.on_denied_counts(counts, clock_.wall(), reading);
  return {};
}

Result<void> Recorder::commit() {
  if (!logger_.has_records()) return {};
  const auto records = logger_.take_records();
  return store_.insert(records);
}

Result<void> Recorder::publish_counts() {
  TL_ASSIGN(const auto counters, backend_.read_counters());
  TL_ASSIGN(overflow_, backend_.read_overflow());
  std::vector<store::RuleCount> counts;
  counts.reserve(counters.size());
  for (const dataplane::RuleCounter& counter : counters)
    counts.push_back({counter.id, counter.packets, counter.bytes});
  return store_.put_counts(counts, losses(), clock_.wall());
}

std::vector<store::LossCount> Recorder::losses() const {
  const dataplane::EventLoss loss = events_.loss();
  const logger::LoggerCounts& counts = logger_.counts();
  return {{"nflog-gap", RuleId::None, loss.sequence_gaps},
          {"nflog-overrun", RuleId::None, loss.overruns},
          {"undecodable", RuleId::None, loss.undecodable},
          {"deny-set-full", RuleId::None, overflow_},
          {"unknown-rule", RuleId::None, counts.unknown_rules},
          {"attribution-mismatch", RuleId::None, counts.mismatches}};
}

Result<void> Recorder::flush() {
  std::this_thread::sleep_for(kMessageDelay);
  const auto drain_all = [this]() -> Result<void> {
    for (bool more = true; more;) {
      TL_ASSIGN(more, drain());
    }
    return {};
  };
  TL_TRY(drain_all());
  TL_TRY(read_denied(logger::FlowLogger::Reading::Last));
  TL_TRY(commit());
  return publish_counts();
}

Result<Books> Recorder::books() {
  Books books;
  TL_TRY(commit());
  TL_TRY(publish_counts());
  TL_ASSIGN(const auto denied, backend_.read_denied());
  // The index keeps counting where a counter began anew (a reboot, a new table), the kernel does not.
  TL_ASSIGN(auto reader, store::FlowReader::open(store_path_));
  TL_ASSIGN(const auto rules, reader.rules({}, true));
  std::uint64_t missing = 0;
  for (const store::RuleActivity& rule : rules) {
    if (rule.rule.action != "Allow" && rule.rule.action != "Deny") continue;
    books.kernel += rule.kernel_packets;
    books.recorded += rule.recorded_packets;
    // Rule by rule: what one has too many does not make good what another lacks.
    if (rule.kernel_packets > rule.recorded_packets) missing += rule.kernel_packets - rule.recorded_packets;
  }
  books.waiting = std::min(missing, logger_.waiting(denied));
  books.unattributed = missing - books.waiting;
  return books;
}

}  // namespace tierlog::daemon
