// daemon/daemon.h - tierlogd: joins the compile half (world.h) and the event half (recorder.h) and runs
// the one loop that drives both.
//
//   policy files, CNI --> World --> Backend --> kernel --> EventSource --> Recorder --> flows.db
//                           ^ control socket, inotify, signals                ` ExportWorkers, HttpFace (threads)
//
// One thread but for the exports, the writer of the flow index and HTTP. Rules stay in the kernel when it ends, however it ends.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/handle.h"
#include "base/result.h"
#include "base/time.h"
#include "daemon/bridges.h"
#include "daemon/commit_pace.h"
#include "daemon/config.h"
#include "daemon/control_server.h"
#include "daemon/export_worker.h"
#include "daemon/http_face.h"
#include "daemon/instance_lock.h"
#include "daemon/left_over.h"
#include "daemon/living.h"
#include "daemon/mismatch_cases.h"
#include "daemon/plane.h"
#include "daemon/policy_watch.h"
#include "daemon/recorder.h"
#include "daemon/service_manager.h"
#include "daemon/world.h"
#include "store/flow_store.h"
#include "store/state_db.h"

namespace tierlog::daemon {

class Daemon {
 public:
  // Takes the lock, opens the stores, makes or adopts the table, applies the policies. A bad policy set
  // is told in the log and by `status`, not an error here. Errors: Unavailable (another daemon runs: the
  // message names its pid), Refused by the kernel, Corrupt stores.
  static Result<std::unique_ptr<Daemon>> start(const Config& config);
  ~Daemon();

  // Until SIGTERM or SIGINT; everything known is committed then.
  Result<void> run();
  // Takes all of ours out of this network namespace's kernel; returns what that was. Errors: Unavailable
  // while a daemon runs.
  static Result<std::vector<std::string>> remove();

 private:
  explicit Daemon(const Config& config) : config_(config) {}
  Result<void> open();
  static Result<void> lock_node(InstanceLock& lock);
  Result<void> keep_ids_apart();
  Result<void> take_over();
  Result<void> forget_gone_pods();
  Result<void> replay_spool();
  void start_exports();
  Result<void> replay_spool(const std::function<Result<void>(const SpooledDel&)>& remove);
  void tell_service_manager();
  Result<void> open_http();
  Result<void> begin_world();
  Result<bool> read_files();  // policies and topology; false: nothing new
  void reload(const char* why);
  void on_signal(bool& stop);
  Result<void> tick(Nanoseconds now);
  Result<void> keep_in_force(Nanoseconds now);
  Result<void> read_kernel(Nanoseconds now);
  void look_for_label_writers();
  void give_back_memory(Nanoseconds now);
  void keep_mismatches();
  Result<void> install(const std::vector<store::KnownRule>& rule_keys);
  Result<void> open_store();
  void keep_store(Nanoseconds now);
  Result<void> replace_store();
  int wait_ms(Nanoseconds now) const;
  Result<nlohmann::json> handle(const nlohmann::json& request, Trust trust);
  // WithoutIndex: nothing that has to be read from a file.
  enum class Detail : std::uint8_t { All, WithoutIndex };
  nlohmann::json status_json(Detail detail);
  void add_books(nlohmann::json& status, nlohmann::json& warnings);
  void add_store(nlohmann::json& status, Detail detail);
  prometheus::Health health();
  void publish();
  void keep_answering(Nanoseconds now);
  void tell_exports();
  nlohmann::json kernel_json() const;
  Result<nlohmann::json> explain(const nlohmann::json& request) const;
  Result<nlohmann::json> endpoints_json() const;

  Config config_;
  SystemClock clock_;
  KernelView host_;
  Nanoseconds started_{};
  InstanceLock lock_;
  Fd signals_;
  ServiceManager manager_ = ServiceManager::from_environment();
  std::vector<GonePod> gone_pods_;              // at the start
  std::set<std::string> forgotten_interfaces_;  // of pods that were let go then
  std::vector<std::string> lost_pods_;          // interfaces whose pods state.db lost
  std::set<std::string> told_complaints_;       // about the spool
  std::string capabilities_;
  std::unique_ptr<store::StateDb> state_;
  std::unique_ptr<store::FlowStore> flows_;
  Plane plane_;
  std::unique_ptr<LivingConnections> living_;  // null where the kernel itself judges them anew
  std::unique_ptr<Bridges> bridges_;
  std::unique_ptr<Recorder> recorder_;
  std::unique_ptr<MismatchCases> mismatches_;
  std::string store_problem_;  // as told last
  Nanoseconds replace_store_at_{};
  Nanoseconds store_told_{};
  std::unique_ptr<World> world_;
  std::vector<policy::NetworkSet> policy_sets_;  // of the Program in force
  std::unique_ptr<PolicyWatch> watch_;
  std::unique_ptr<ControlServer> control_;
  std::vector<std::unique_ptr<ExportWorker>> exports_;
  std::unique_ptr<HttpFace> http_;  // null: http.listen is none
  std::string http_problem_;        // as told last
  Nanoseconds next_http_{};
  std::set<std::string> failing_exports_;  // as told last
  struct Syncs {
    std::uint64_t done = 0, failed = 0;
    Nanoseconds last{};  // how long the last reading and applying took
  } syncs_;
  // Until then, connections from before the first start are let be.
  std::optional<Nanoseconds> spare_until_;
  Nanoseconds next_verify_{};
  Nanoseconds try_again_{};  // to put the files into force
  std::uint64_t table_repairs_ = 0;
  Nanoseconds next_trim_{};
  Nanoseconds next_drain_{}, next_denied_{}, next_counts_{}, next_flows_{};
  std::optional<Nanoseconds> balance_at_;
  CommitPace commit_pace_;
};

}  // namespace tierlog::daemon
