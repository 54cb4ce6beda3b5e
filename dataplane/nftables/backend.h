// dataplane/nftables/backend.h - Programs into the kernel's nftables: prepare, flip, sweep.
//
//   build.h --objects--> [NftablesBackend] --batches--> table inet tierlog
//
// One transaction is not atomic for packets in flight (they look up elements of the new generation while
// they walk chains of the old one), so everything new is made beside the old, one small transaction
// flips the endpoints' chains, and the old goes after a grace time:
// docs/decisions/0007-prepare-flip-sweep.md.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "dataplane/backend.h"
#include "dataplane/nftables/build.h"
#include "dataplane/nftables/socket.h"

namespace tierlog::dataplane::nftables {

class NftablesBackend final : public Backend {
 public:
  // Makes the table in this process's network namespace, or takes over the one that is there (a
  // restart): its rules stay in force until the first apply. Errors: Refused (no permission, no nftables,
  // a table of another layout).
  static Result<std::unique_ptr<NftablesBackend>> open(const TableOptions& options);

  Result<void> apply(std::shared_ptr<const policy::Program> program) override;
  Result<std::vector<RuleCounter>> read_counters() override;
  Result<std::vector<DeniedCount>> read_denied() override;
  Nanoseconds denied_lifetime() const override { return entry_lifetime(options_); }
  Result<std::uint64_t> read_overflow() override;
  Result<void> remove_all() override;

  bool adopted() const { return adopted_; }
  bool owned() const { return owned_; }  // the kernel protects the table from other programs

 private:
  explicit NftablesBackend(NetfilterSocket socket, const TableOptions& options)
      : socket_(std::move(socket)), options_(options) {}
  Result<void> make_or_adopt();
  Result<void> make_table();
  Result<void> read_existing();

  Result<void> prepare(const ProgramObjects& objects);
  Result<void> flip(const ProgramObjects& objects, const std::set<std::string>& endpoint_chains_before);
  void sweep(const ProgramObjects& objects);
  void sweep_counters(Batch& batch, const ProgramObjects& objects);
  Error explain(Error error, const policy::Program& program) const;

  NetfilterSocket socket_;
  TableOptions options_;
  bool adopted_ = false;
  bool owned_ = true;
  std::uint64_t generation_ = 0;
  // What of ours is in the kernel, by name.
  std::set<std::string> chains_, sets_, counters_;
  std::map<std::string, std::map<Bytes, std::string>> dispatch_;  // map -> key -> chain ("" of a set)
  std::map<Bytes, std::string> first_packet_log_;
  // Counters of rules that are gone: true once they were read after that.
  std::map<std::string, bool> dead_counters_;
};

}  // namespace tierlog::dataplane::nftables
