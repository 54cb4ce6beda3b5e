#include "daemon/recorder.h"

#include <thread>
#include <unordered_map>

namespace tierlog::daemon {
namespace {

constexpr std::size_t kEventsPerDrain = 20'000;
// The kernel sends log messages at most this long after the packet.
constexpr std::chrono::milliseconds kMessageDelay{30};

}  // namespace

Recorder::Recorder(dataplane::Backend& backend, dataplane::EventSource& events, store::FlowStore& store,
                   const Clock& clock)
    : backend_(backend), events_(events), store_(store), clock_(clock) {}

Result<void> Recorder::install(const std::shared_ptr<const policy::Program>& program,
                               const std::vector<policy::NetworkSet>& policy_sets) {
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
  if (!program_) return books;
  std::unordered_map<RuleId, bool> decides;
  for (const store::RuleRow& row : logger::rule_rows(*program_))
    decides[row.id] = row.action == "Allow" || row.action == "Deny";
  std::unordered_map<RuleId, std::uint64_t> recorded;
  TL_ASSIGN(const auto sums, store_.recorded());
  for (const store::RuleCount& sum : sums) recorded[sum.id] = sum.packets;
  TL_ASSIGN(const auto counters, backend_.read_counters());
  for (const dataplane::RuleCounter& counter : counters) {
    const auto found = decides.find(counter.id);
    if (found == decides.end() || !found->second) continue;
    const std::uint64_t known = recorded[counter.id];
    books.kernel += counter.packets;
    books.recorded += known;
    books.unattributed += counter.packets > known ? counter.packets - known : 0;
  }
  return books;
}

}  // namespace tierlog::daemon
