#include "lab/case_packets.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <tuple>
#include <utility>

#include "lab/case_wire.h"
#include "logger/flow_logger.h"
#include "logger/rule_names.h"
#include "policy/compile.h"
#include "store/flow_store.h"

namespace tierlog::lab {
namespace {

using policy::Action;
using policy::Program;
using store::FlowRecord;
using Clock = std::chrono::steady_clock;

constexpr std::uint16_t kFirstSourcePort = 20'000;
constexpr std::size_t kShotsPerRound = 2000;
constexpr std::size_t kEventsPerDrain = 20'000;
constexpr std::size_t kRecordsPerRead = 100'000;
// Log messages come after 10 ms; who is not told of by then may be counted only.
constexpr std::chrono::milliseconds kMessages{60};

// Never gives an id twice.
class FreshRuleIds final : public policy::RuleIdRegistry {
 public:
  Result<std::vector<policy::RuleIdentity>> identify(const std::vector<policy::RuleKey>& keys) override {
    std::vector<policy::RuleIdentity> identities;
    for (std::size_t i = 0; i < keys.size(); ++i) identities.push_back({RuleId{next_++}, 1});
    return identities;
  }

 private:
  std::uint32_t next_ = kFirstPolicyRuleId;
};

// A folder of its own that goes with it.
class ScratchFolder {
 public:
  static Result<ScratchFolder> make() {
    std::string pattern = (std::filesystem::temp_directory_path() / "tierlog-test-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) return fail(Error::from_errno(errno, "make", pattern));
    return ScratchFolder(pattern);
  }
  ScratchFolder(ScratchFolder&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  ScratchFolder& operator=(ScratchFolder&&) = delete;
  ~ScratchFolder() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  std::string file(const char* name) const { return path_ + "/" + name; }

 private:
  explicit ScratchFolder(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

// One packet of the case on its way.
struct Flight {
  std::size_t check = 0;
  Shot shot;
  Arrival arrival;
  bool from_enforced = false, to_enforced = false;
  std::optional<FlowRecord> denial, egress, ingress;  // what the flow index told

  bool has_connection() const {  // the kernel can follow it, so its allow is told with an id
    const policy::Packet& packet = shot.packet;
    if (is_icmp_of_the_other_family()) return false;
    if (packet.protocol == protocol::kIcmp)
      return packet.icmp_type == 8 || packet.icmp_type == 13 || packet.icmp_type == 15 ||
             packet.icmp_type == 17;
    if (packet.protocol == protocol::kIcmpV6) return packet.icmp_type == 128 || packet.icmp_type == 139;
    // It checks the checksum of UDP-Lite as if it were UDP's, and finds each one wrong.
    return packet.protocol != protocol::kUdpLite;
  }
  // What nobody sends: the kernel has no connection for it, and the rules no flow.
  bool is_icmp_of_the_other_family() const {
    const bool v4 = shot.packet.source.family == Family::V4;
    return shot.packet.protocol == (v4 ? protocol::kIcmpV6 : protocol::kIcmp);
  }
  bool told() const {
    if (denial) return true;
    if (arrival.delivered && is_icmp_of_the_other_family()) return true;
    return arrival.delivered && (egress || !from_enforced) && (ingress || !to_enforced);
  }
};

bool is_of(const FlowRecord& record, const Flight& flight) {
  const policy::Packet& packet = flight.shot.packet;
  if (record.src.ip != packet.source || record.dst.ip != packet.destination ||
      record.proto != packet.protocol)
    return false;
  if (protocol::is_icmp(packet.protocol))
    return record.icmp_type == packet.icmp_type && record.icmp_code == packet.icmp_code;
  if (!protocol::has_ports(packet.protocol)) return true;
  // A flow that is denied, or has no connection, is counted without the source port; its records have the
  // first packet's, or none.
  const bool has_source_port = record.action == store::Verdict::Allow && flight.has_connection();
  return record.dst_port == packet.destination_port &&
         (!has_source_port || record.src_port == packet.source_port);
}

Decider decider_of(const FlowRecord& record) {
  Decider decider{record.direction, {}, {}, {}, record.rule};
  if (!record.tier.empty()) decider.tier = record.tier;
  if (!record.policy.empty()) decider.policy = record.policy;
  decider.rule = record.rule_index;
  return decider;
}

std::optional<policy::StepResult> result_named(const std::string& text) {
  for (const auto result :
       {policy::StepResult::NoMatch, policy::StepResult::Logged, policy::StepResult::Passed,
        policy::StepResult::Allowed, policy::StepResult::Denied})
    if (text == policy::name(result)) return result;
  return std::nullopt;
}

// As `tierlog test` reports it: of a denial itself, of an allow the direction that is asked about, else
// ingress if a policy applied there, else egress.
const FlowRecord* reported(const Flight& flight, const Check& check) {
  if (flight.denial) return &*flight.denial;
  const auto pointer = [](const std::optional<FlowRecord>& record) { return record ? &*record : nullptr; };
  if (check.decides)
    return pointer(check.decides->direction == Direction::Egress ? flight.egress : flight.ingress);
  if (flight.ingress && (!flight.ingress->policy.empty() || !flight.egress)) return &*flight.ingress;
  return pointer(flight.egress);
}

Observed observed_of(const Flight& flight, const Check& check) {
  Observed observed;
  const bool delivered = flight.arrival.delivered;
  if (delivered && flight.denial) {
    observed.error = "the packet arrived though a rule denied it";
  } else if (!delivered && flight.arrival.returned) {
    observed.verdict = CheckVerdict::Refused;
  } else if (!delivered && !flight.denial) {
    observed.error = "the packet did not arrive and no rule denied it";
  } else if (flight.has_connection() && !flight.told()) {
    observed.error = "the packet arrived and no record tells who allowed it";
  } else {
    observed.verdict = delivered ? CheckVerdict::Allow : CheckVerdict::Deny;
  }
  if (observed.verdict == CheckVerdict::Allow) {
    observed.egress = observed.ingress = Action::Allow;
  } else if (observed.verdict == CheckVerdict::Deny) {
    // What the other end's ingress would have said of it, no packet of this connection tells.
    const bool at_source = flight.denial->direction == Direction::Egress;
    observed.egress = at_source ? Action::Deny : Action::Allow;
    if (!at_source) observed.ingress = Action::Deny;
  }
  const FlowRecord* record = reported(flight, check);
  if (record == nullptr) return observed;
  observed.decides = decider_of(*record);
  for (const store::TraceEntry& entry : record->trace)
    if (const auto result = result_named(entry.result))
      observed.trace.push_back({entry.direction, entry.tier, entry.policy, entry.rule_index, *result, false});
  return observed;
}

// The kernel and the evaluator must give the same verdict and name the same rule, whatever the case says.
std::string disagreement(const Program& program, const Flight& flight) {
  const policy::Evaluation evaluation =
      evaluate(program, flight.shot.packet, policy::Detail::Summary, policy::Directions::AsTheKernel);
  const policy::DirectionVerdict* expected = evaluation.deciding();
  const std::string by_evaluator = expected == nullptr ? "none" : "0x" + to_hex(expected->rule);
  const bool denied = flight.denial.has_value();
  if ((denied || flight.arrival.delivered) && denied != (evaluation.action == Action::Deny))
    return denied ? "the kernel denied it by rule 0x" + to_hex(flight.denial->rule) +
                        ", the evaluator allows it by " + by_evaluator
                  : "the kernel allowed it, the evaluator denies it by " + by_evaluator;
  const auto differs = [](const std::optional<policy::DirectionVerdict>& verdict,
                          const std::optional<FlowRecord>& record) {
    return record && (!verdict || verdict->rule != record->rule);
  };
  const auto text = [&](const FlowRecord& record) {
    const policy::DirectionVerdict* verdict = nullptr;
    const auto& own = record.direction == Direction::Egress ? evaluation.egress : evaluation.ingress;
    if (own) verdict = &*own;
    return "the kernel decided " + std::string(name(record.direction)) + " by rule 0x" + to_hex(record.rule) +
           ", the evaluator by " + (verdict == nullptr ? "none" : "0x" + to_hex(verdict->rule));
  };
  for (const auto* record : {&flight.denial, &flight.egress, &flight.ingress})
    if (*record &&
        differs((*record)->direction == Direction::Egress ? evaluation.egress : evaluation.ingress, *record))
      return text(**record);
  return {};
}

// The node of a run has none of the interfaces that host endpoints are about.
std::string passes_host_endpoint(const Program& program, const policy::Packet& packet) {
  if (program.cluster->host_endpoints.empty()) return {};
  for (const IpAddr* end : {&packet.source, &packet.destination})
    if (program.enforced(*end) == nullptr)
      return end->to_string() + " is behind a host endpoint, which only the evaluator judges";
  return {};
}

// One node with its rules, and all that is needed to learn what they did.
class Bench {
 public:
  static Result<std::unique_ptr<Bench>> make(const PolicyCase& like, const std::string& store_path,
                                             const OpenPlane& open, const PacketRun& run) {
    std::unique_ptr<Bench> bench(new Bench(run));
    std::vector<WirePod> pods;
    for (const policy::Endpoint& pod : like.topology.cluster.endpoints)
      if (!pod.host_network) pods.push_back({pod.addresses, {}, {}});
    TL_ASSIGN(bench->wire_, Wire::make(std::move(pods)));
    TL_ASSIGN(bench->plane_, open());
    TL_ASSIGN(auto store, store::FlowStore::open_writer(store_path, {"", "test"}));
    bench->store_ = std::make_unique<store::FlowStore>(std::move(store));
    TL_ASSIGN(bench->sequence_, bench->store_->last_sequence());
    TL_TRY(bench->plane_.backend->end_sparing());
    return bench;
  }

  CaseResult run(const PolicyCase& test_case) {
    const auto begin = Clock::now();
    CaseResult result{test_case.id, test_case.file, test_case.skipped, false, {}, {}};
    const auto done = try_run(test_case, result);
    if (!done) {
      result.checks.clear();
      for (std::size_t i = 0; i < test_case.checks.size(); ++i) {
        Observed observed;
        observed.error = done.error().message;
        result.checks.push_back(judge(i, test_case.checks[i], std::move(observed)));
      }
    }
    const auto left_out = [](const CheckResult& check) { return check.skipped.has_value(); };
    if (!result.checks.empty() && std::all_of(result.checks.begin(), result.checks.end(), left_out))
      result.skipped = *result.checks.front().skipped;
    result.passed =
        !result.skipped && std::all_of(result.checks.begin(), result.checks.end(),
                                       [](const CheckResult& c) { return c.passed || c.skipped; });
    result.took = Clock::now() - begin;
    return result;
  }

 private:
  explicit Bench(const PacketRun& run) : run_(run) {}
  Result<void> try_run(const PolicyCase& test_case, CaseResult& result);
  Result<std::shared_ptr<const Program>> enforce(const PolicyCase& test_case);
  std::vector<Flight> plan(const PolicyCase& test_case, const Program& program,
                           std::vector<CheckResult>& results);
  Result<void> fly(std::vector<Flight*>& round);
  Result<void> forget_connections();
  Result<void> learn(std::vector<Flight*>& round);
  Result<void> read_records(std::vector<Flight*>& round);

  std::unique_ptr<Wire> wire_;
  PacketPlane plane_;
  const PacketRun& run_;
  std::unique_ptr<store::FlowStore> store_;
  std::unique_ptr<logger::FlowLogger> logger_;
  std::shared_ptr<const Program> program_;  // of the case that runs
  FreshRuleIds ids_;
  SystemClock clock_;
  std::int64_t sequence_ = 0;
  std::uint16_t next_port_ = 0;
};

Result<std::shared_ptr<const Program>> Bench::enforce(const PolicyCase& test_case) {
  auto cluster = std::make_shared<policy::Cluster>(test_case.topology.cluster);
  std::size_t next = 0;
  for (policy::Endpoint& pod : cluster->endpoints) {
    pod.local = !pod.host_network;
    if (pod.host_network) continue;
    const WirePod& link = wire_->pods()[next++];
    pod.interface = link.interface;
    pod.mac = link.mac;
  }
  TL_ASSIGN(Program compiled,
            policy::compile(test_case.policies, cluster, ids_, {policy::CompileOptions::Scope::Local, 1}));
  auto program = std::make_shared<const Program>(std::move(compiled));
  TL_TRY(forget_connections());
  if (run_.plant) {
    auto spoiled = std::make_shared<Program>(*program);
    run_.plant(*spoiled);
    TL_TRY(plane_.backend->apply(spoiled));
  } else {
    TL_TRY(plane_.backend->apply(program));
  }
  if (plane_.backend->connections_in_doubt()) TL_TRY(plane_.backend->settle(false));
  logger_ = std::make_unique<logger::FlowLogger>(plane_.backend->denied_lifetime());
  const WallTime now = clock_.wall();
  logger_->set_program(program, test_case.policies.network_sets, now);
  TL_ASSIGN(const auto counts, plane_.backend->read_denied());
  logger_->set_denied_baseline(counts, now);
  TL_TRY(store_->put_catalog(logger::make_catalog(*program, now)));
  program_ = program;
  return program;
}

std::vector<Flight> Bench::plan(const PolicyCase& test_case, const Program& program,
                                std::vector<CheckResult>& results) {
  std::vector<Flight> flights;
  std::map<std::tuple<IpAddr, IpAddr, std::uint8_t, std::uint8_t>, std::uint16_t> ids;
  for (std::size_t i = 0; i < test_case.checks.size(); ++i) {
    const Check& check = test_case.checks[i];
    const auto packet = packet_of(*program.cluster, check);
    std::string odd = packet ? unroutable(*packet) : std::string();
    if (packet && odd.empty()) odd = passes_host_endpoint(program, *packet);
    if (!packet || !odd.empty()) {
      Observed observed;
      observed.error =
          packet ? odd : check.from.text() + " and " + check.to.text() + " have no addresses of one family";
      CheckResult& left = results.emplace_back(judge(i, check, std::move(observed)));
      if (packet) {
        left.skipped = odd;
        left.problems.clear();
      }
      continue;
    }
    // As few ids as there can be: two messages of the same ends with one id must still be told apart.
    const std::uint16_t id = ids[{packet->source, packet->destination, packet->icmp_type, packet->icmp_code}]++;
    Flight flight{i, {*packet, id}, {}, false, false, {}, {}, {}};
    if (protocol::has_ports(packet->protocol) && !check.source_port) {
      flight.shot.packet.source_port = static_cast<std::uint16_t>(kFirstSourcePort + next_port_);
      next_port_ = static_cast<std::uint16_t>((next_port_ + 1) % 40'000);
    }
    flight.from_enforced = program.enforced(packet->source) != nullptr;
    flight.to_enforced = program.enforced(packet->destination) != nullptr;
    flights.push_back(std::move(flight));
  }
  return flights;
}

bool all_told(const std::vector<Flight*>& round) {
  return std::all_of(round.begin(), round.end(), [](const Flight* flight) { return flight->told(); });
}

using End = std::pair<IpAddr, std::uint16_t>;
using Key = std::tuple<End, End, std::uint8_t>;

// What two packets must not share in one round: a denied flow's count (which knows no source port), or a
// connection, be it the other way round.
std::vector<Key> keys_of(const policy::Packet& packet) {
  const std::uint8_t proto = packet.protocol;
  const auto detail = static_cast<std::uint16_t>(
      protocol::is_icmp(proto) ? packet.icmp_type << 8 | packet.icmp_code : packet.destination_port);
  const End from{packet.source, packet.source_port}, to{packet.destination, detail};
  if (protocol::is_icmp(proto)) return {{{packet.source, 0}, to, proto}};
  // No port is 0 on both sides of a connection, so the two kinds of keys cannot meet.
  return {{{packet.source, 0}, to, proto}, {std::min(from, to), std::max(from, to), proto}};
}

std::vector<std::vector<Flight*>> rounds_of(std::vector<Flight>& flights) {
  std::vector<std::vector<Flight*>> rounds;
  std::vector<std::set<Key>> taken;
  for (Flight& flight : flights) {
    const std::vector<Key> keys = keys_of(flight.shot.packet);
    const auto fits = [&](std::size_t round) {
      return rounds[round].size() < kShotsPerRound &&
             std::none_of(keys.begin(), keys.end(),
                          [&](const Key& key) { return taken[round].contains(key); });
    };
    std::size_t round = 0;
    while (round < rounds.size() && !fits(round)) ++round;
    if (round == rounds.size()) {
      rounds.emplace_back();
      taken.emplace_back();
    }
    rounds[round].push_back(&flight);
    taken[round].insert(keys.begin(), keys.end());
  }
  return rounds;
}

Result<void> Bench::try_run(const PolicyCase& test_case, CaseResult& result) {
  TL_ASSIGN(const auto program, enforce(test_case));
  std::vector<Flight> flights = plan(test_case, *program, result.checks);
  for (auto& round : rounds_of(flights)) TL_TRY(fly(round));
  for (const Flight& flight : flights) {
    const Check& check = test_case.checks[flight.check];
    CheckResult judged = judge(flight.check, check, observed_of(flight, check));
    if (const std::string differs = disagreement(*program, flight); !differs.empty()) {
      judged.problems.push_back(differs);
      judged.passed = false;
    }
    result.checks.push_back(std::move(judged));
  }
  std::sort(result.checks.begin(), result.checks.end(),
            [](const CheckResult& a, const CheckResult& b) { return a.index < b.index; });
  return plane_.backend->sweep_when_due();
}

Result<void> Bench::forget_connections() {
  TL_TRY(wire_->flush_connections());
  return plane_.forget ? plane_.forget() : Result<void>{};
}

Result<void> Bench::fly(std::vector<Flight*>& round) {
  if (round.empty()) return {};
  std::vector<Shot> shots;
  for (const Flight* flight : round) shots.push_back(flight->shot);
  // The kernel had no memory at hand for a denied flow's entry and says so: the packet is sent again.
  constexpr int kMostAttempts = 4;
  for (int attempt = 1;; ++attempt) {
    TL_ASSIGN(const std::uint64_t before, plane_.backend->read_overflow());
    TL_TRY(forget_connections());
    TL_ASSIGN(const auto arrivals, wire_->shoot(shots));
    for (std::size_t i = 0; i < round.size(); ++i) round[i]->arrival = arrivals[i];
    TL_TRY(learn(round));
    TL_ASSIGN(const std::uint64_t after, plane_.backend->read_overflow());
    if (after == before || attempt == kMostAttempts || all_told(round)) return {};
    for (Flight* flight : round) flight->denial = flight->egress = flight->ingress = std::nullopt;
  }
}

// Until the flow index tells of every packet, or will not any more.
Result<void> Bench::learn(std::vector<Flight*>& round) {
  const auto begin = Clock::now();
  std::vector<dataplane::VerdictEvent> events;
  while (!all_told(round) && Clock::now() - begin < run_.patience) {
    pollfd ready{plane_.ready, POLLIN, 0};
    static_cast<void>(::poll(&ready, 1, 20));
    for (bool more = true; more;) {
      events.clear();
      TL_ASSIGN(more, plane_.events->drain(events, kEventsPerDrain));
      logger_->on_events(events);
    }
    if (Clock::now() - begin > kMessages) {
      TL_ASSIGN(const auto counts, plane_.backend->read_denied());
      logger_->on_denied_counts(counts, clock_.wall(), logger::FlowLogger::Reading::Last);
    }
    TL_TRY(read_records(round));
  }
  return {};
}

Result<void> Bench::read_records(std::vector<Flight*>& round) {
  const auto records = logger_->take_records();
  static_cast<void>(logger_->take_changes());  // nobody restarts here
  TL_TRY(store_->insert(records));
  TL_ASSIGN(const auto stored, store_->read_after(sequence_, kRecordsPerRead));
  std::map<std::pair<IpAddr, IpAddr>, std::vector<Flight*>> by_ends;
  for (Flight* flight : round)
    by_ends[{flight->shot.packet.source, flight->shot.packet.destination}].push_back(flight);
  for (const store::StoredRecord& row : stored) {
    sequence_ = row.sequence;
    const FlowRecord& record = row.record;
    if (!program_->by_id.contains(record.rule)) continue;  // a late message of the case before
    const auto found = by_ends.find({record.src.ip, record.dst.ip});
    if (found == by_ends.end()) continue;
    for (Flight* flight : found->second) {
      if (!is_of(record, *flight)) continue;
      if (record.action == store::Verdict::Deny)
        flight->denial = record;
      else if (flight->arrival.delivered)
        (record.direction == Direction::Egress ? flight->egress : flight->ingress) = record;
    }
  }
  return {};
}

std::string addresses_of(const PolicyCase& test_case) {
  std::string key;
  for (const policy::Endpoint& pod : test_case.topology.cluster.endpoints) {
    if (pod.host_network) continue;
    key += "|";
    for (const IpAddr& address : pod.addresses) key += address.to_string() + ",";
  }
  return key;
}

using Group = std::vector<std::size_t>;

// Groups for several threads: a node is the network namespace of the thread that made it, and most of a
// case's time is waiting for the kernel.
class Work {
 public:
  Work(const std::vector<PolicyCase>& cases, std::vector<Group> groups, std::vector<CaseResult>& results,
       const OpenPlane& open, const PacketRun& run)
      : cases_(cases),
        groups_(std::move(groups)),
        results_(results),
        open_(open),
        run_(run),
        finished_(cases.size()) {
    for (const Group& group : groups_) finished_ -= group.size();  // those that are skipped
  }

  Result<void> run(const ScratchFolder& folder) {
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < std::min(kThreads, groups_.size()); ++i)
      threads.emplace_back([&] { take_groups(folder); });
    for (std::thread& thread : threads) thread.join();
    return outcome_;
  }

 private:
  void take_groups(const ScratchFolder& folder) {
    for (;;) {
      const std::size_t group = next_.fetch_add(1);
      if (group >= groups_.size()) return;
      // Its namespace must not be the one that the next group begins in.
      std::thread([&] {
        run_group(groups_[group], folder.file(("flows-" + std::to_string(group)).c_str()));
      }).join();
    }
  }

  void run_group(const Group& group, const std::string& store_path) {
    auto bench = Bench::make(cases_[group.front()], store_path, open_, run_);
    if (!bench) {
      const std::lock_guard lock(mutex_);
      outcome_ = fail(bench.error());
      next_ = groups_.size();
      return;
    }
    for (const std::size_t index : group) {
      CaseResult result = (*bench)->run(cases_[index]);
      const std::lock_guard lock(mutex_);
      results_[index] = std::move(result);
      if (run_.progress) run_.progress(++finished_);
    }
  }

  static constexpr std::size_t kThreads = 4;
  const std::vector<PolicyCase>& cases_;
  const std::vector<Group> groups_;
  std::vector<CaseResult>& results_;
  const OpenPlane& open_;
  const PacketRun& run_;
  std::size_t finished_ = 0;
  std::mutex mutex_;
  std::atomic<std::size_t> next_{0};
  Result<void> outcome_;
};

}  // namespace

Result<std::vector<CaseResult>> run_packets(const std::vector<PolicyCase>& cases, const OpenPlane& open,
                                            const PacketRun& run) {
  std::vector<CaseResult> results(cases.size());
  std::map<std::string, Group> by_addresses;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    if (!cases[i].skipped) {
      by_addresses[addresses_of(cases[i])].push_back(i);
      continue;
    }
    results[i] = {cases[i].id, cases[i].file, cases[i].skipped, false, {}, {}};
  }
  std::vector<Group> groups;
  for (auto& [addresses, group] : by_addresses) groups.push_back(std::move(group));
  // The largest first: they decide when all is done.
  std::stable_sort(groups.begin(), groups.end(),
                   [](const Group& a, const Group& b) { return a.size() > b.size(); });
  TL_ASSIGN(const ScratchFolder folder, ScratchFolder::make());
  TL_TRY(Work(cases, std::move(groups), results, open, run).run(folder));
  return results;
}

}  // namespace tierlog::lab
