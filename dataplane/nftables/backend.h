// dataplane/nftables/backend.h - Programs into the kernel's nftables: prepare, flip, sweep.
//
//   build.h --TableObjects--> table_state.h --TableChange--> [NftablesBackend] --batches--> kernel
//
// One transaction is not atomic for packets in flight (they look up elements of the new generation while
// they walk chains of the old one), so everything new is made beside the old, one small transaction
// flips the endpoints' chains, and the old goes after a grace time:
// docs/decisions/0007-prepare-flip-sweep.md. Both tables, inet and netdev, change together.
#pragma once

#include <array>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "dataplane/backend.h"
#include "dataplane/nftables/build.h"
#include "dataplane/nftables/build_cache.h"
#include "dataplane/nftables/socket.h"
#include "dataplane/nftables/table_state.h"

namespace tierlog::dataplane::nftables {

// Kernels differ; each may be switched off to see that the program does without.
struct Features {
  bool owner = true;        // a table that only its maker may change, and that outlives it (6.9)
  bool egress_hook = true;  // netdev egress (5.16)
};

class NftablesBackend final : public Backend {
 public:
  // Takes over the tables that are there (a restart; their rules stay in force until the first apply) or
  // begins with empty ones, in this process's network namespace. Tables of another layout are replaced at
  // the first apply; meanwhile they stay in force. Errors: Refused (no permission, no nftables, another
  // owner).
  static Result<std::unique_ptr<NftablesBackend>> open(const TableOptions& options,
                                                       const Features& features = {});

  Result<void> apply(std::shared_ptr<const policy::Program> program) override;
  Result<std::vector<RuleCounter>> read_counters() override;
  Result<std::vector<DeniedCount>> read_denied() override;
  Nanoseconds denied_lifetime() const override { return entry_lifetime(options_); }
  Result<std::uint64_t> read_overflow() override;
  Result<void> sweep_when_due() override;
  bool connections_in_doubt() const override { return !revoked_.empty(); }
  Result<void> settle(bool cut) override;
  Result<void> end_sparing() override;
  Result<Repair> verify() override;
  Result<void> remove_all() override;

  bool adopted() const { return adopted_; }
  std::uint32_t port() const { return socket_.port(); }  // of the socket that makes all changes
  // The tables that were found audited endpoints that may be enforced now.
  bool found_audited() const { return found_audited_; }
  bool owned() const { return owned_; }  // the kernel protects the table from other programs
  // The layout of the tables that the first apply will replace; empty: none.
  const std::string& older_layout() const { return older_layout_; }
  // What the tables knew when they were adopted: above which no rule id may begin anew, and whose interfaces
  // were enforced. None: nothing was adopted.
  RuleId highest_found() const { return highest_found_; }
  const std::set<std::string>& found_interfaces() const { return found_interfaces_; }
  // Objects that the latest apply made, rewrote or found to be superfluous.
  std::size_t changed() const { return changed_; }
  // Of netlink, since it was opened.
  std::uint64_t sent_bytes() const { return socket_.sent_bytes(); }
  bool spares_midstream() const { return !spared_.empty(); }
  // Packets that waited (were dropped, to be sent again) while tables of an older layout were replaced.
  std::uint64_t held_packets() const { return held_packets_; }

 private:
  using Change = std::array<TableChange, 2>;
  NftablesBackend(NetfilterSocket socket, const TableOptions& options, const Features& features)
      : socket_(std::move(socket)), options_(options), features_(features) {}
  Result<void> make_or_adopt();
  Result<void> note_what_was_enforced();
  void adopt_living();
  Result<void> take_tables();
  Result<void> replace_layout(const policy::Program& program);
  Result<void> release_hold();

  std::array<TableObjects, 2> objects_for(const policy::Program& program);
  Switches switches() const;
  // Sets whose members may not change one by one get their next version. True when there was one.
  bool choose_versions(const policy::Program& program, const TableObjects& objects);
  Result<void> carry_out(std::array<TableObjects, 2> objects, const policy::Program& program);
  Result<void> prepare(const Change& change);
  Result<void> reapply();  // the same Program under changed switches
  void revoke(const Change& change, const policy::Program& program);
  Result<void> sync_devices();
  void drop_vanished(TableObjects& guard) const;
  Result<void> sweep();
  void sweep_counters(Batch& batch);
  Error explain(Error error, const policy::Program& program) const;

  NetfilterSocket socket_;
  TableOptions options_;
  Features features_;
  bool adopted_ = false;
  bool owned_ = true;
  std::string older_layout_;
  std::array<TableState, 2> state_;  // inet, netdev
  bool holding_ = false;
  bool found_audited_ = false;
  RuleId highest_found_{};
  std::set<std::string> found_interfaces_;
  std::uint64_t held_packets_ = 0;
  SetVersions versions_;
  BuildCache built_;
  std::size_t changed_ = 0;

  std::shared_ptr<const policy::Program> program_;
  std::unordered_set<std::string> needed_counters_;
  // What the next sweep takes away, and when it may.
  std::optional<std::array<Leftover, 2>> leftover_;
  std::chrono::steady_clock::time_point sweep_at_{};

  // Endpoint chain -> ids that its class may allow by.
  using AllowIds = std::shared_ptr<const std::set<RuleId>>;
  std::map<std::string, AllowIds> allowed_by_;
  std::set<RuleId> revoked_;
  bool cut_ = false;
  bool first_start_ = false;      // until the first apply of a kernel that had none of our tables
  std::set<std::string> spared_;  // endpoints that were there then
  // Counters of rules that are gone: their last value once they were read after that.
  std::unordered_map<std::string, std::optional<CounterValue>> dead_counters_;
  // What was taken away: a rule that comes back goes on counting there, or a reader that sees the counter
  // now and then could not tell that it began anew.
  RetiredCounters retired_;
};

}  // namespace tierlog::dataplane::nftables
