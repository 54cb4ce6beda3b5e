#include "daemon/recorder.h"

#include <net/if.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <iterator>
#include <thread>
#include <unordered_map>

#include "query/moment.h"
#include "store/query.h"

namespace tierlog::daemon {
namespace {

using logger::Connections;
using logger::FlowLogger;
using logger::PacketsOfRules;

constexpr std::size_t kEventsPerDrain = 20'000;
// The kernel sends log messages at most this long after the packet.
constexpr std::chrono::milliseconds kMessageDelay{30};
// And, where a number is told that nobody can take back, at most this long.
constexpr std::chrono::milliseconds kMessagesCome{150};
// A store that takes longer is behind: its books are compared another time.
constexpr std::chrono::milliseconds kStoreIsQuick{100};
// Where somebody waits for what is told: a change of policies, a question.
constexpr std::chrono::milliseconds kStoreIsWaitedFor{1000};
constexpr std::chrono::seconds kStoreAtTheEnd{30};
// Changes of what is in force that wait for a slow flow index.
constexpr std::size_t kMostMoments = 256;
// Connections of one drain whose entry is asked for: some milliseconds.
constexpr std::size_t kMostAsked = 512;

void append(std::vector<store::LossCount>& to, std::vector<store::LossCount> from) {
  to.insert(to.end(), std::make_move_iterator(from.begin()), std::make_move_iterator(from.end()));
}

// Behind the translation of destinations, before that of sources.
dataplane::ConnectionTuple reply_of(const dataplane::VerdictEvent& event) {
  dataplane::ConnectionTuple reply;
  reply.source = event.destination;
  reply.destination = event.source;
  reply.protocol = event.protocol;
  reply.source_port = event.destination_port;
  reply.destination_port = event.source_port;
  return reply;
}

PacketsOfRules by_rule(const std::vector<store::RuleCount>& counts) {
  PacketsOfRules packets;
  for (const store::RuleCount& count : counts) packets[count.id] = count.packets;
  return packets;
}

}  // namespace

Recorder::Recorder(dataplane::Backend& backend, dataplane::EventSource& events,
                   dataplane::ConnectionSource& conntrack, store::FlowStore& store, std::string store_path,
                   const Clock& clock)
    : backend_(backend),
      events_(events),
      conntrack_(conntrack),
      store_(store),
      store_path_(std::move(store_path)),
      clock_(clock),
      logger_(backend.denied_lifetime()),
      writer_(store, clock) {
  logger_.set_interfaces([](std::uint32_t index) {
    char name[IF_NAMESIZE];
    return std::string(::if_indextoname(index, name) == nullptr ? "" : name);
  });
}

Result<void> Recorder::load() {
  TL_ASSIGN(told_, store_.told());
  logger_.connections().restore(std::move(told_.connections));
  TL_ASSIGN(auto reader, store::FlowReader::open(store_path_));
  TL_ASSIGN(const auto losses, reader.losses());
  books_.resume(losses);
  TL_ASSIGN(const auto rules, reader.rules({}, true));
  std::vector<store::RuleRow> rows;
  for (const store::RuleActivity& rule : rules) {
    rows.push_back(rule.rule);
    if (rule.suppressed > 0) logger_.resume_suppressed(rule.rule.id, rule.suppressed);
  }
  logger_.learn(rows);
  return load_last_program(reader);
}

// What the rules in the kernel were made from decided what nobody watched.
Result<void> Recorder::load_last_program(store::FlowReader& reader) {
  const auto past = query::past_at(reader, clock_.wall());
  const auto program = past ? query::program_of(reader, *past) : Result<policy::Program>(fail(past.error()));
  if (program) {
    logger_.set_program(std::make_shared<const policy::Program>(*program), {}, past->set.since);
    return {};
  }
  if (program.error().code != ErrorCode::NotFound)
    spdlog::warn("what was denied while no tierlogd ran has no trace: {}", program.error().message);
  return {};
}

Result<void> Recorder::install(const std::shared_ptr<const policy::Program>& program,
                               const std::vector<policy::NetworkSet>& policy_sets,
                               std::vector<logger::ServiceAddress> services, StoreWriter::InForce in_force) {
  // What was denied until now is told by the names that held then.
  if (started_) {
    TL_TRY(drain());
    TL_TRY(read_denied(FlowLogger::Reading::Regular));
  }
  const WallTime now = clock_.wall();
  asks_translations_ = !events_.tell_translations(!services.empty()) && !services.empty();
  logger_.set_services(std::move(services));
  logger_.set_program(program, policy_sets, now);
  catalog_ = logger::make_catalog(*program, now);
  if (moments_.size() >= kMostMoments) {
    // What came between is not told; its rules keep their ids.
    in_force.rules.insert(in_force.rules.end(), moments_.back().rules.begin(), moments_.back().rules.end());
    moments_.pop_back();
  }
  moments_.push_back(std::move(in_force));
  TL_ASSIGN(const bool written, settle(kStoreIsWaitedFor));
  if (written || writer_.problem().empty()) return {};
  return fail(ErrorCode::Unavailable, writer_.problem());
}

Result<void> Recorder::start() {
  TL_ASSIGN(const auto denied, backend_.read_denied());
  const WallTime read_at = clock_.wall();
  // After the denied flows: no entry has more than its rule's counter.
  TL_TRY(publish_counts());
  TL_ASSIGN(const bool written, settle(kStoreAtTheEnd));
  if (!written) return fail(ErrorCode::Unavailable, "the flow index takes no records: " + writer_.problem());
  TL_ASSIGN(counted_, store_.counted());
  TL_ASSIGN(const auto recorded, store_.recorded());
  PacketsOfRules room = by_rule(counted_);
  for (const store::RuleCount& count : recorded) {
    std::uint64_t& left = room[count.id];
    left -= std::min(left, count.packets);
  }
  for (auto& [rule, left] : room) left -= std::min(left, books_.declared(rule));
  const PacketsOfRules news = logger_.set_denied_baseline(denied, read_at, told_.denied, room, told_.until);
  told_ = {};
  PacketsOfRules told_by_then = by_rule(recorded);
  for (const auto& [rule, packets] : news) {
    told_by_then[rule] += packets;
    std::uint64_t& left = room[rule];
    left -= std::min(left, packets);
  }
  TL_TRY(dump_connections(Connections::Dump::Start));
  started_ = true;

  std::this_thread::sleep_for(kMessagesCome);
  TL_TRY(drain_all());
  for (const auto& [rule, packets] : logger_.connections().tell_unheard(std::move(room), clock_.wall()))
    told_by_then[rule] += packets;
  TL_ASSIGN(denied_, backend_.read_denied());
  TL_TRY(settle(kStoreAtTheEnd));
  TL_ASSIGN(auto balanced, balances());
  for (logger::RuleBalance& balance : balanced) {
    const std::uint64_t told = balance.recorded + balance.waiting;
    balance.recent = told - std::min(told, told_by_then[balance.rule]);
  }
  books_.declare_not_running(balanced);
  return publish_counts();
}

Result<bool> Recorder::drain() {
  buffer_.clear();
  TL_ASSIGN(const bool more, events_.drain(buffer_, kEventsPerDrain));
  // After the messages were read, before they are told: the end of a connection whose ports come again is
  // there before the message of its successor is.
  TL_TRY(drain_ended());
  if (asks_translations_) TL_TRY(ask_translations());
  logger_.on_events(buffer_);
  logger_.connections().settle(clock_.wall());
  return more;
}

// A connection's first packet has passed by the time its message is read, so its entry is in the table. A
// denied one never gets an entry.
Result<void> Recorder::ask_translations() {
  std::size_t asked = 0;
  const dataplane::VerdictEvent* last = nullptr;  // both directions' messages stand beside each other
  for (dataplane::VerdictEvent& event : buffer_) {
    if (event.kind != dataplane::EventKind::Allowed || event.addressed ||
        !protocol::has_ports(event.protocol))
      continue;
    const dataplane::ConnectionTuple reply = reply_of(event);
    if (last != nullptr && reply_of(*last) == reply) {
      event.addressed = last->addressed;
      continue;
    }
    if (++asked > kMostAsked) return {};
    TL_ASSIGN(const auto found, conntrack_.find_by_reply(reply));
    if (found && (found->original.destination != event.destination ||
                  found->original.destination_port != event.destination_port))
      event.addressed = dataplane::Addressed{found->original.destination, found->original.destination_port};
    last = &event;
  }
  return {};
}

Result<void> Recorder::drain_ended() {
  for (bool more = true; more;) {
    ended_.clear();
    TL_ASSIGN(more, conntrack_.drain(ended_, kEventsPerDrain));
    logger_.connections().on_ended(ended_, clock_.wall());
  }
  return {};
}

Result<void> Recorder::drain_all() {
  for (bool more = true; more;) {
    TL_ASSIGN(more, drain());
  }
  return {};
}

Result<void> Recorder::dump_connections(Connections::Dump dump) {
  std::vector<dataplane::Connection> entries;
  TL_TRY(conntrack_.dump([&](const dataplane::Connection& entry) { entries.push_back(entry); }));
  logger_.connections().on_dump(entries, clock_.wall(), dump);
  return {};
}

Result<void> Recorder::read_connections() {
  // What ended before the dump must not look like its successor.
  TL_TRY(drain_all());
  return dump_connections(Connections::Dump::Interval);
}

Result<void> Recorder::read_denied(FlowLogger::Reading reading) {
  TL_TRY(publish_counts());
  TL_ASSIGN(const bool written, settle(kStoreIsQuick));
  counted_.clear();
  if (written) {
    TL_ASSIGN(counted_, store_.counted());
  }
  counted_at_ = clock_.boottime();
  TL_ASSIGN(denied_, backend_.read_denied());
  logger_.on_denied_counts(denied_, clock_.wall(), reading);
  return {};
}

void Recorder::commit() {
  if (!writer_.idle()) return;
  StoreWriter::Batch batch{std::exchange(catalog_, std::nullopt), std::exchange(moments_, {}),
                           logger_.take_entries(), logger_.take_changes(),
                           std::exchange(counts_, std::nullopt)};
  if (!batch.empty()) writer_.give(std::move(batch));
}

// Two batches: one that was under way, and one with what is there now.
Result<bool> Recorder::settle(Nanoseconds longest) {
  for (int batch = 0; batch < 2; ++batch) {
    if (!writer_.wait(longest)) return false;
    if (!pending()) break;
    commit();
  }
  return writer_.wait(longest);
}

Recorder::Backlog Recorder::backlog() const {
  return {logger_.pending().size(), logger_.pending().merged(), writer_.refused(), writer_.problem(),
          writer_.longest()};
}

Result<std::vector<logger::RuleBalance>> Recorder::balances() {
  TL_ASSIGN(const auto sums, store_.recorded());
  const PacketsOfRules recorded = by_rule(sums);
  const PacketsOfRules waiting = logger_.waiting_by_rule(denied_);
  const auto of = [](const PacketsOfRules& packets, RuleId rule) {
    const auto found = packets.find(rule);
    return found == packets.end() ? std::uint64_t{0} : found->second;
  };
  std::vector<logger::RuleBalance> found;
  const PacketsOfRules& given_up = logger_.pending().given_up();
  for (const store::RuleCount& count : counted_) {
    const store::RuleRow* rule = logger_.rule(count.id);
    if (rule == nullptr || (rule->action != "Allow" && rule->action != "Deny")) continue;
    found.push_back({count.id, rule->action == "Allow", count.packets, of(recorded, count.id),
                     of(waiting, count.id), 0, of(frames_, count.id), of(given_up, count.id)});
  }
  return found;
}

Result<void> Recorder::balance() {
  // A change of policies reads too, perhaps just now.
  if (clock_.boottime() - counted_at_ < kMessagesCome) return {};
  return declare();
}

Result<void> Recorder::declare() {
  if (counted_.empty()) return {};
  TL_ASSIGN(const bool written, settle(kStoreIsQuick));
  if (!written) {
    counted_.clear();
    return {};
  }
  TL_ASSIGN(const auto balanced, balances());
  const dataplane::EventLoss loss = events_.loss();
  books_.declare(balanced, {loss.messages(), overflow_,
                            logger_.counts().stateless});
  counted_.clear();  // each reading is compared once
  return {};
}

Result<void> Recorder::publish_counts() {
  TL_ASSIGN(const auto counters, backend_.read_counters());
  TL_ASSIGN(overflow_, backend_.read_overflow());
  TL_TRY(conntrack_.count_full());
  std::vector<store::RuleCount> counts;
  counts.reserve(counters.size());
  for (const dataplane::RuleCounter& counter : counters) {
    counts.push_back({counter.id, counter.packets, counter.bytes});
    if (counter.frames > 0) frames_[counter.id] = counter.frames;
    const store::RuleRow* rule = logger_.rule(counter.id);
    if (rule != nullptr && rule->action == "Log" && counter.packets >= counter.messages)
      logger_.on_suppressed(counter.id, counter.packets - counter.messages);
  }
  measure_rate(counts);
  counts_ = StoreWriter::Counts{std::move(counts), losses(), clock_.wall()};
  return {};
}

// Over a second at least: whoever asks for status reads the counters too.
void Recorder::measure_rate(const std::vector<store::RuleCount>& counts) {
  const Nanoseconds now = clock_.boottime();
  if (now - verdicts_at_ < std::chrono::seconds(1)) return;
  std::uint64_t verdicts = 0;
  for (const store::RuleCount& count : counts) {
    const store::RuleRow* rule = logger_.rule(count.id);
    if (rule != nullptr && (rule->action == "Allow" || rule->action == "Deny")) verdicts += count.packets;
  }
  const bool measured = verdicts_at_ > Nanoseconds(0) && verdicts >= verdicts_;
  if (measured)
    pace_.per_second =
        static_cast<double>(verdicts - verdicts_) / std::chrono::duration<double>(now - verdicts_at_).count();
  verdicts_ = verdicts;
  verdicts_at_ = now;
}

// Those without a rule are what readers and sets say of themselves, in their own units.
std::vector<store::LossCount> Recorder::losses() const {
  const dataplane::EventLoss loss = events_.loss();
  const dataplane::ConntrackLoss& ends = conntrack_.loss();
  const logger::LoggerCounts& counts = logger_.counts();
  const logger::ConnectionCounts& connections = logger_.connections().counts();
  const std::uint64_t merged = logger_.pending().merged();
  std::vector<store::LossCount> all{
      {"nflog-gap", RuleId::None, loss.sequence_gaps},
      {"nflog-overrun", RuleId::None, loss.overruns},
      {"undecodable", RuleId::None, loss.undecodable + ends.undecodable},
      {"deny-set-overflow", RuleId::None, overflow_},
      {"unknown-rule", RuleId::None, counts.unknown_rules},
      {"attribution-mismatch", RuleId::None, counts.mismatches},
      {"conntrack-overrun", RuleId::None, ends.overruns},
      {"conntrack-unattributed", RuleId::None, connections.unattributed_packets},
      {"conntrack-end-unseen", RuleId::None, connections.ends_unseen},
      {"conntrack-full", RuleId::None, ends.table_full},
      {"store-aggregated", RuleId::None, merged}};
  if (loss.ring_full > 0) all.push_back({"ring-full", RuleId::None, loss.ring_full});
  if (loss.logs_untold > 0) all.push_back({"log-rules-untold", RuleId::None, loss.logs_untold});
  if (loss.left_behind > 0) all.push_back({"left-behind", RuleId::None, loss.left_behind});
  append(all, books_.losses());
  return all;
}

Result<void> Recorder::flush() {
  const auto all_written = [this]() -> Result<void> {
    TL_ASSIGN(const bool written, settle(kStoreAtTheEnd));
    if (written) return {};
    return fail(ErrorCode::Unavailable, "the flow index takes no records: " + writer_.problem());
  };
  TL_TRY(publish_counts());
  TL_TRY(all_written());
  TL_ASSIGN(const auto before, store_.counted());
  std::this_thread::sleep_for(kMessageDelay);
  TL_TRY(drain_all());
  TL_TRY(read_denied(FlowLogger::Reading::Last));
  // Later counters than these have messages that are still on their way.
  counted_ = before;
  TL_TRY(read_connections());
  TL_TRY(all_written());
  TL_TRY(declare());
  TL_TRY(publish_counts());
  return all_written();
}

Result<BookTotals> Recorder::books() {
  BookTotals books;
  TL_TRY(publish_counts());
  TL_TRY(settle(kStoreIsWaitedFor));
  TL_ASSIGN(const auto denied, backend_.read_denied());
  // The index keeps counting where a counter began anew (a reboot, a new table), the kernel does not.
  TL_ASSIGN(auto reader, store::FlowReader::open(store_path_));
  TL_ASSIGN(const auto rules, reader.rules({}, true));
  std::uint64_t missing = 0;
  for (const store::RuleActivity& rule : rules) {
    if (rule.rule.action != "Allow" && rule.rule.action != "Deny") continue;
    books.kernel += rule.kernel_packets;
    books.recorded += rule.recorded_packets;
    books.unattributed += rule.unattributed;
    // Rule by rule: what one has too many does not make good what another lacks.
    const std::uint64_t told = rule.recorded_packets + rule.unattributed;
    if (rule.kernel_packets > told) missing += rule.kernel_packets - told;
  }
  books.waiting = std::min(missing, logger_.waiting(denied));
  books.undeclared = missing - books.waiting;
  books.unattributed += books.undeclared;
  for (std::size_t i = 0; i < logger::kLossCauses; ++i) {
    const auto cause = static_cast<logger::LossCause>(i);
    if (const std::uint64_t packets = books_.declared(cause); packets > 0)
      books.causes.emplace_back(name(cause), packets);
  }
  return books;
}

}  // namespace tierlog::daemon
