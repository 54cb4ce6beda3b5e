// dataplane/ebpf/backend.h - Programs into BPF maps: write beside the old, flip one word, free.
//
//   policy/program.h --installed.h--> arena --config.root--> programs.h --counters, flows--> logger/
//
// A packet reads the root once, so it meets one Program whole. Living connections hold the generation of the
// class that allowed them and are judged anew with their next packet when it is another one: nothing is ever
// in doubt, and settle() has nothing to do.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "dataplane/backend.h"
#include "dataplane/connection.h"
#include "dataplane/ebpf/installed.h"
#include "dataplane/ebpf/older_maps.h"
#include "dataplane/ebpf/programs.h"
#include "dataplane/ebpf/services.h"

namespace tierlog::dataplane::ebpf {

struct EbpfOptions {
  // A folder in a BPF file system for what outlives the process; empty: nothing does.
  std::string pins;
  std::chrono::seconds deny_interval{10};
  std::chrono::seconds log_interval{10};
  // Connections from before the first start are judged by the rules, both ways, for five minutes.
  bool spares_midstream = false;
  bool host_to_pod_by_policy = false;  // else what the node itself sends to its pods is allowed
  policy::LogRate log_rate{1000, 1};   // messages of one Log rule, unless its policy says otherwise
  bool audits = false;                 // nothing is dropped; verdicts are counted and told all the same
  // Connections that are older than the first start, as somebody else knows them: asked for once.
  std::function<Result<std::vector<Connection>>()> older;
  Limits limits{};
};

// One living connection as the programs know it.
struct KnownFlow {
  tl_flow_key key{};
  tl_flow flow{};
};

class Interfaces;

class EbpfBackend final : public Backend {
 public:
  // In this process's network namespace. Errors: Refused (no privilege, a kernel without what is needed).
  static Result<std::unique_ptr<EbpfBackend>> open(const EbpfOptions& options);
  ~EbpfBackend() override;

  Result<void> apply(std::shared_ptr<const policy::Program> program) override;
  Result<std::vector<RuleCounter>> read_counters() override;
  Result<std::vector<DeniedCount>> read_denied() override;
  Nanoseconds denied_lifetime() const override;
  Result<std::uint64_t> read_overflow() override;
  Result<void> sweep_when_due() override;
  bool connections_in_doubt() const override { return false; }
  Result<void> settle(bool) override { return {}; }
  Result<void> end_sparing() override { return {}; }
  Result<Repair> verify() override;
  std::vector<std::string> warnings() const override;
  Result<void> remove_all() override;

  // Where Services lead, all of them. Errors: Refused.
  Result<void> set_services(const std::vector<ServiceTarget>& targets);
  Programs& programs() { return *programs_; }
  const Installed& installed() const { return *installed_; }
  bool adopted() const { return adopted_; }  // connections of a process before this one
  // What an earlier version's maps, or such of other sizes, gave; empty: there were none. Rings of theirs; borrowed until
  // the first sweep behind an apply.
  const std::string& taken_over() const { return taken_over_; }
  std::vector<int> older_rings() const { return older_ ? older_->rings() : std::vector<int>(); }
  // What was there before: above which no rule id may begin anew, and interfaces with filters of ours.
  RuleId highest_found() const { return highest_found_; }
  const std::set<std::string>& found_interfaces() const { return found_interfaces_; }
  std::uint32_t root() const { return programs_->config().root; }
  Result<std::vector<KnownFlow>> read_flows() const;
  // Connections that were silent for so long that they are over, since the last call.
  std::vector<KnownFlow> take_ended() { return std::exchange(ended_, {}); }
  // Connections that found no room, cumulative: judged all the same, packet by packet.
  Result<std::uint64_t> read_flows_refused() const;
  // Forgets every connection and every denied flow. For tests that begin anew.
  Result<void> forget_flows();

 private:
  // What stands at an interface.
  struct Standing {
    Station station = Station::Plain;
    bool is_raw = false;
    bool operator==(const Standing&) const = default;
  };

  explicit EbpfBackend(EbpfOptions options);
  Result<void> adopt_slots();
  Result<void> take_older_maps();
  Result<void> finish_older_maps(std::chrono::steady_clock::time_point now);
  Result<std::uint32_t> slot_of(RuleId id);
  Result<std::uint32_t> free_slot();
  Result<void> attach(const std::vector<Attached>& ends, const policy::Program& program);
  static Whose whose(const Standing& standing);
  void detach_others(const std::vector<Attached>& ends);
  Result<void> expire();
  void end_flows_of(const std::unordered_set<IpAddr>& addresses);
  void end_flow(const tl_flow_key& key);
  void expire_origins(std::uint64_t now);
  Result<void> limit_logs(const policy::Program& program);
  Result<void> take_older(const policy::Program& program);

  EbpfOptions options_;
  std::unique_ptr<Programs> programs_;
  std::unique_ptr<Installed> installed_;
  std::unique_ptr<Services> services_;
  std::unique_ptr<Interfaces> interfaces_;
  std::unique_ptr<OlderMaps> older_;  // until no program uses them
  std::string taken_over_;
  bool adopted_ = false;
  std::optional<std::chrono::steady_clock::time_point> applied_;  // the first time
  std::map<std::uint32_t, tl_counter> before_;  // what maps before these counted, by slot
  std::shared_ptr<const policy::Program> program_;
  const policy::Program* coming_ = nullptr;  // while it is prepared
  std::optional<std::vector<std::pair<RuleId, std::uint32_t>>> free_slots_;  // for it, once they are asked for
  std::map<RuleId, std::uint32_t> slots_;
  RuleId highest_found_{};
  std::set<std::string> found_interfaces_;
  std::uint32_t next_slot_ = TL_FIRST_SLOT;
  std::map<std::uint32_t, policy::LogRate> limited_;  // by slot
  std::map<std::uint32_t, Standing> attached_;  // by ifindex
  bool carries_ = false;                       // some Service leads somewhere
  std::vector<KnownFlow> ended_;
  std::chrono::steady_clock::time_point expire_at_{};
};

}  // namespace tierlog::dataplane::ebpf
