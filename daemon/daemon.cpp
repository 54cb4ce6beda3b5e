#include "daemon/daemon.h"

#include <malloc.h>
#include <spdlog/spdlog.h>
#include <sys/signalfd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "daemon/privileges.h"
#include "daemon/syscalls.h"
#include "endpoints/service_backends.h"

namespace tierlog::daemon {
namespace {

namespace fs = std::filesystem;
using logger::FlowLogger;

// The event path is drained on a timer: waking for each message costs the forwarding core more than the
// message itself.
constexpr std::chrono::milliseconds kDrainEvery{5};
constexpr std::chrono::seconds kCountsEvery{2};
constexpr std::chrono::seconds kVerifyEvery{2};
constexpr std::chrono::seconds kTryAgainAfter{10};
constexpr std::chrono::seconds kTrimEvery{30};
constexpr std::size_t kMuchFree = std::size_t{16} << 20;
// Long enough for whatever speaks at all to speak once.
constexpr std::chrono::minutes kSparing{5};
// Messages of packets that were counted have been sent by then.
constexpr std::chrono::milliseconds kMessagesCome{200};

void log_lines(spdlog::level::level_enum level, const std::string& text) {
  std::size_t from = 0;
  while (from < text.size()) {
    const std::size_t end = std::min(text.find('\n', from), text.size());
    if (end > from) spdlog::log(level, "{}", text.substr(from, end - from));
    from = end + 1;
  }
}

void tell(const dataplane::SettingChange& change) {
  if (change.problem.empty())
    spdlog::info("{}={} was {}", change.name, change.wanted, change.was);
  else
    spdlog::warn("{}={} cannot be set: {}", change.name, change.wanted, change.problem);
}

std::vector<logger::ServiceAddress> addresses_of(const std::vector<endpoints::Service>& services,
                                                 const std::vector<IpAddr>& node) {
  std::vector<logger::ServiceAddress> addresses;
  for (const endpoints::Service& service : services)
    for (const endpoints::ServiceEntry& entry : endpoints::entries_of(service, node))
      addresses.push_back({entry.address, service.ports[entry.port].protocol, entry.number, service.display()});
  return addresses;
}

std::vector<std::string> watched_paths(const Config& config) {
  std::vector<std::string> paths = config.policies;
  if (!config.topology.empty()) paths.push_back(config.topology);
  return paths;
}

}  // namespace

Daemon::~Daemon() = default;

Result<std::unique_ptr<Daemon>> Daemon::start(const Config& config) {
  std::unique_ptr<Daemon> daemon(new Daemon(config));
  TL_TRY(daemon->open());
  return daemon;
}

Result<void> Daemon::lock_node(InstanceLock& lock) {
  TL_ASSIGN(const std::string node, node_lock_path());
  // Namespaces come and go: their files would stay for ever.
  return lock.take(node, InstanceLock::AtEnd::Remove);
}

Result<void> Daemon::open() {
  started_ = clock_.boottime();
  TL_TRY(lock_.take(config_.socket + ".lock"));
  TL_TRY(lock_node(lock_));
  TL_TRY(store::prepare_store_folder(fs::path(config_.store_path).parent_path().string()));
  TL_TRY(lock_.take(config_.state_path() + ".lock"));
  TL_ASSIGN(state_, store::StateDb::open(config_.state_path()));
  TL_TRY(forget_gone_pods());
  TL_TRY(open_store());
  TL_ASSIGN(plane_, open_plane(config_));
  if (!plane_.notice.empty()) spdlog::warn("{}", plane_.notice);
  config_.dataplane = plane_.name;
  TL_TRY(keep_ids_apart());
  if (plane_.is_nftables()) {
    for (const dataplane::SettingChange& change : plane_.conntrack->changed()) tell(change);
    living_ = std::make_unique<LivingConnections>(*plane_.backend, *plane_.conntrack);
  }
  TL_ASSIGN(bridges_, Bridges::open());
  recorder_ =
      std::make_unique<Recorder>(*plane_.backend, *plane_.events, *plane_.connections, *flows_, config_.store_path, clock_);
  recorder_->set_audit(config_.audits);
  mismatches_ = std::make_unique<MismatchCases>(fs::path(config_.state_path()).parent_path().string());
  TL_TRY(recorder_->load());
  const auto applied = [this](const auto& program, const auto& policy_sets) {
    ++syncs_.done;
    policy_sets_ = policy_sets;
    if (auto installed = install(world_->rule_keys()); !installed)
      spdlog::error("write catalog: {}", installed.error().message);
    if (auto told = tell_services(plane_, world_->services(), *program, config_.node); !told)
      spdlog::error("services: {}", told.error().message);
    if (living_ == nullptr) return;
    if (auto done = living_->on_applied(program, clock_.boottime()); !done)
      spdlog::error("living connections: {}", done.error().message);
  };
  const auto bridges_of = [this](const std::set<std::string>& interfaces) {
    auto bridges = bridges_->bridges_of(interfaces);
    if (bridges) return std::move(*bridges);
    spdlog::error("{}", bridges.error().message);
    return std::map<std::string, std::string>();
  };
  world_ = std::make_unique<World>(config_, *state_, *plane_.backend, host_, applied, bridges_of);
  for (const std::string& interface : world_->close_unknown(plane_.found_interfaces))
    if (forgotten_interfaces_.count(interface) == 0) lost_pods_.push_back(interface);
  for (const std::string& interface : lost_pods_)
    spdlog::error("{} WAS ENFORCED AND ITS POD IS IN state.db NO LONGER: nothing may come out of it until the pod is "
                  "registered anew",
                  interface);
  if (plane_.is_nftables() && !plane_.tables->older_layout().empty())
    spdlog::warn("tables of \"{}\" are replaced; what opens a connection meanwhile has to wait",
                 plane_.tables->older_layout());
  if (auto begun = begin_world(); !begun) {
    if (!world_->program()) return begun;
    log_lines(spdlog::level::err, begun.error().message);
    if (world_->source() == World::Source::LastGood)
      spdlog::error("THE POLICY FILES ARE NOT IN FORCE: the last good set is, of {}",
                    format_for_people(world_->in_force_since()));
    else
      spdlog::error("NO GOOD POLICY SET: all traffic of endpoints is denied until there is one");
  }
  TL_TRY(take_over());
  log_lines(spdlog::level::warn, world_->warnings().to_string());
  TL_TRY(recorder_->start());
  next_flows_ = clock_.boottime() + std::chrono::duration_cast<Nanoseconds>(config_.flow_interval);
  TL_ASSIGN(auto watch, PolicyWatch::open(watched_paths(config_)));
  watch_ = std::make_unique<PolicyWatch>(std::move(watch));
  TL_ASSIGN(auto control, ControlServer::listen(config_.socket, [this](const auto& request, Trust trust) {
              return handle(request, trust);
            }));
  control_ = std::make_unique<ControlServer>(std::move(control));
  TL_TRY(replay_spool());
  TL_TRY(open_http());
  TL_TRY(drop_privileges(plane_.is_nftables() ? MayUseBpf::No : MayUseBpf::Yes));
  capabilities_ = effective_capabilities();
  if (auto restricted = restrict_syscalls(!plane_.is_nftables()); !restricted)
    spdlog::warn("system calls are not restricted: {}", restricted.error().message);
  spdlog::info("capabilities=\"{}\" no_new_privs=true seccomp={}", capabilities_, syscalls_are_restricted());
  // Threads begin with what is left.
  recorder_->start_writer();
  start_exports();
  publish();
  keep_answering(clock_.boottime());
  return {};
}

// A registry that was lost begins anew, but kernel and flow index still speak of its ids.
Result<void> Daemon::keep_ids_apart() {
  TL_ASSIGN(const RuleId told, flows_->highest_rule_id());
  const RuleId highest = std::max(plane_.highest_found, told);
  if (number(highest) < kFirstPolicyRuleId) return {};
  TL_ASSIGN(const bool raised, state_->raise_floor(RuleId{number(highest) + 1}));
  if (raised)
    spdlog::error("state.db DOES NOT KNOW RULE IDS THAT ARE IN USE: it was lost or is an old one; new ids begin at {}",
                  number(highest) + 1);
  return {};
}

// What is in force now, told to those who name records.
Result<void> Daemon::install(const std::vector<store::KnownRule>& rule_keys) {
  const auto program = world_->program();
  const auto own = endpoints::addresses_of_node(*program->cluster, config_.node);
  return recorder_->install(program, policy_sets_, addresses_of(world_->services(), own),
                            {world_->moment(clock_.wall()), program->cluster, rule_keys});
}

void Daemon::start_exports() {
  for (const ExportConfig& target : config_.exports)
    exports_.push_back(std::make_unique<ExportWorker>(target, config_));
}

// This data plane is in force: what was there before it is taken over, or taken away.
Result<void> Daemon::take_over() {
  TL_ASSIGN(const auto removed, remove_other(plane_));
  for (const std::string& what : removed) spdlog::info("removed: {}, of the other data plane", what);
  if (!plane_.is_nftables()) {
    spdlog::info("dataplane=ebpf maps={}", plane_.adopted ? "adopted" : "made");
    if (!plane_.taken_over.empty()) spdlog::warn("{}", plane_.taken_over);
    return {};
  }
  const auto& tables = *plane_.tables;
  spdlog::info("table={} owned={} changed_objects={} held_packets={}", plane_.adopted ? "adopted" : "made",
               tables.owned(), tables.changed(), tables.held_packets());
  if (bridges_->blind())
    spdlog::error(
        "PODS UNDER BRIDGES ARE NOT ENFORCED AGAINST EACH OTHER: module br_netfilter is not loaded");
  if (tables.spares_midstream()) spare_until_ = started_ + kSparing;
  living_->look_for_cut(started_);
  if (tables.found_audited() && !config_.audits) living_->judge_all(started_);
  return {};
}

// Before the first Program, so that it is made without them.
Result<void> Daemon::forget_gone_pods() {
  TL_ASSIGN(const auto before, state_->endpoints());
  TL_TRY(replay_spool([this](const SpooledDel& gone) {
    spdlog::info("container {} interface {} was deleted while no tierlogd ran", gone.container_id, gone.ifname);
    return state_->remove_endpoint(gone.container_id, gone.ifname);
  }));
  TL_ASSIGN(gone_pods_, drop_gone_pods(*state_, host_));
  for (const GonePod& pod : gone_pods_) spdlog::warn("{}", pod.to_string());
  for (const store::RegisteredEndpoint& endpoint : before) forgotten_interfaces_.insert(endpoint.host_interface);
  TL_ASSIGN(const auto after, state_->endpoints());
  for (const store::RegisteredEndpoint& endpoint : after) forgotten_interfaces_.erase(endpoint.host_interface);
  return {};
}

// What the CNI plugin left because it got no answer: at a start, and from a daemon that was too busy.
Result<void> Daemon::replay_spool() {
  return replay_spool([this](const SpooledDel& gone) {
    spdlog::info("container {} interface {} is deleted, as the spool says", gone.container_id, gone.ifname);
    return world_->remove_endpoint(gone.container_id, gone.ifname);
  });
}

Result<void> Daemon::replay_spool(const std::function<Result<void>(const SpooledDel&)>& remove) {
  std::vector<std::string> complaints;
  for (const SpooledDel& gone : read_spool(config_.cni_spool, complaints)) {
    TL_TRY(remove(gone));
    ::unlink(gone.path.c_str());
  }
  for (const std::string& complaint : complaints)
    if (told_complaints_.insert(complaint).second) spdlog::warn("{}", complaint);
  return {};
}

void Daemon::tell_service_manager() {
  const auto& program = *world_->program();
  if (!world_->ready()) return manager_.starting("no good policy set: all traffic of endpoints is denied");
  const std::string what = fmt::format("{} policies, {} rules, {} endpoints", program.policies.size(),
                                       program.rules.size(), program.endpoints.size());
  manager_.ready(world_->source() == World::Source::Files ? what + " in force"
                                                          : what + " in force, NOT WHAT THE FILES SAY");
}

void Daemon::reload(const char* why) {
  const auto done = read_files();
  if (done && !*done) {
    spdlog::info("policies unchanged: revision={} because=\"{}\"", world_->program()->revision, why);
  } else if (done) {
    spdlog::info("policies in force: revision={} policies={} rules={} because=\"{}\"",
                 world_->program()->revision, world_->program()->policies.size(),
                 world_->program()->rules.size(), why);
    log_lines(spdlog::level::warn, world_->warnings().to_string());
  } else {
    spdlog::error("policies not changed, the old ones stay in force:");
    log_lines(spdlog::level::err, done.error().message);
  }
}

void Daemon::on_signal(bool& stop) {
  signalfd_siginfo info{};
  while (::read(signals_.get(), &info, sizeof info) == sizeof info) {
    if (info.ssi_signo == SIGHUP)
      reload("SIGHUP");
    else
      stop = true;
  }
}

int Daemon::wait_ms(Nanoseconds now) const {
  Nanoseconds until = std::min({next_denied_, next_counts_, now + std::chrono::seconds(1)});
  until = std::min({until, next_verify_, next_flows_});
  if (living_ != nullptr) until = std::min(until, living_->due());
  if (balance_at_) until = std::min(until, *balance_at_);
  if (const auto commit = commit_pace_.look_at(recorder_->waiting_records())) until = std::min(until, *commit);
  if (watch_->due()) until = std::min(until, *watch_->due());
  // While the drain rests, its descriptor is not polled: look again when the rest is over.
  if (now < next_drain_) until = std::min(until, next_drain_);
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(until - now).count();
  return static_cast<int>(std::clamp<std::int64_t>(ms, 0, 1000));
}

// What was put into the kernel must still be there, and mean the same to living connections.
Result<void> Daemon::keep_in_force(Nanoseconds now) {
  TL_TRY(plane_.backend->sweep_when_due());
  if (living_ != nullptr) TL_TRY(living_->tick(now));
  if (spare_until_ && now >= *spare_until_) {
    spare_until_.reset();
    TL_TRY(plane_.backend->end_sparing());
    living_->judge_all(now);
    spdlog::info("connections from before the first start are judged from now on");
  }
  if (now < next_verify_) return {};
  next_verify_ = now + kVerifyEvery;
  if (auto replayed = replay_spool(); !replayed) spdlog::error("spool: {}", replayed.error().message);
  if (plane_.conntrack != nullptr)
    for (const dataplane::SettingChange& change : plane_.conntrack->verify()) tell(change);
  TL_ASSIGN(const auto bridges, bridges_->keep());
  for (const std::string& bridge : bridges)
    spdlog::error(
        "bridge netfilter of {} was switched off and is on again: frames between its pods were not "
        "judged in between",
        bridge);
  if (!plane_.unprotected()) return {};
  // Nothing but looking protects a table without an owner, or a filter.
  TL_ASSIGN(const auto repair, plane_.backend->verify());
  if (repair.objects == 0 && !repair.rebuilt) return {};
  ++table_repairs_;
  if (repair.rebuilt) recorder_->on_rebuilt();
  spdlog::error("the rules were changed by somebody else: {} objects repaired, rebuilt={}", repair.objects,
                repair.rebuilt);
  return {};
}

// What the kernel counts and nobody tells unasked.
Result<void> Daemon::read_kernel(Nanoseconds now) {
  if (now >= next_denied_) {
    next_denied_ = now + std::chrono::duration_cast<Nanoseconds>(config_.deny_interval);
    balance_at_ = now + kMessagesCome;
    TL_TRY(recorder_->read_denied(FlowLogger::Reading::Regular));
  }
  if (now >= next_flows_) {
    next_flows_ = now + std::chrono::duration_cast<Nanoseconds>(config_.flow_interval);
    TL_TRY(recorder_->read_connections());
  }
  // Not before a drain found nothing more since.
  if (balance_at_ && now >= *balance_at_ && next_drain_ > now) {
    balance_at_.reset();
    TL_TRY(recorder_->balance());
  }
  return {};
}

// At the start they are a reason not to start; later stopping would be worse.
void Daemon::look_for_label_writers() {
  const auto changed = plane_.labels->on_readable();
  if (!changed) return spdlog::error("look for rules that write connection labels: {}", changed.error().message);
  if (!*changed) return;
  if (plane_.labels->writers().empty()) return spdlog::info("connection labels are written by nobody else any more");
  for (const std::string& writer : plane_.labels->writers())
    spdlog::error("CONNECTION LABELS ARE WRITTEN BY OTHERS TOO ({}): rule ids are kept in them, verdicts and their "
                  "rules may be wrong; take that rule out", writer);
}

void Daemon::keep_mismatches() {
  for (const logger::Disagreement& found : recorder_->take_disagreements()) {
    const auto kept = mismatches_->keep(found, world_->policy_texts());
    if (!kept)
      spdlog::error("keep a mismatch: {}", kept.error().message);
    else if (!kept->empty())
      spdlog::error(
          "THE KERNEL AND THE EVALUATOR DISAGREE, a defect of Tierlog: kernel=\"{}\" evaluator=\"{}\" "
          "case={}",
          found.kernel, found.evaluator, *kept);
  }
}

// The C library keeps what was freed between what was not: after a flood that can be most of it.
void Daemon::give_back_memory(Nanoseconds now) {
  if (now < next_trim_) return;
  next_trim_ = now + kTrimEvery;
  if (::mallinfo2().fordblks > kMuchFree) ::malloc_trim(0);
}

Result<void> Daemon::tick(Nanoseconds now) {
  give_back_memory(now);
  TL_TRY(keep_in_force(now));
  TL_TRY(read_kernel(now));
  if (now >= next_counts_) {
    next_counts_ = now + kCountsEvery;
    TL_TRY(recorder_->publish_counts());
    publish();
    tell_exports();
  }
  keep_answering(now);
  if (commit_pace_.due(now, recorder_->pending(), recorder_->waiting_records())) recorder_->commit();
  keep_mismatches();
  keep_store(now);
  if (watch_->due() && now >= *watch_->due()) {
    watch_->done();
    reload("files changed");
  }
  if (!world_->worth_another_try()) {
    try_again_ = now + kTryAgainAfter;
  } else if (now >= try_again_) {
    try_again_ = now + kTryAgainAfter;
    reload("another try");
  }
  return {};
}

Result<void> Daemon::run() {
  sigset_t wanted;
  sigemptyset(&wanted);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&wanted, signal);
  signals_ = Fd(::signalfd(-1, &wanted, SFD_NONBLOCK | SFD_CLOEXEC));
  if (!signals_) return fail(Error::from_errno(errno, "signalfd"));
  spdlog::info("ready={} node={} socket={} store={}", world_->ready(), config_.node, config_.socket,
               config_.store_path);
  bool stop = false;
  std::vector<pollfd> descriptors;
  while (!stop) {
    Nanoseconds now = clock_.boottime();
    descriptors.clear();
    descriptors.push_back({signals_.get(), POLLIN, 0});
    descriptors.push_back({watch_->fd(), POLLIN, 0});
    descriptors.push_back({bridges_->fd(), POLLIN, 0});
    descriptors.push_back({plane_.labels ? plane_.labels->fd() : -1, POLLIN, 0});
    control_->add_descriptors(descriptors);
    if (now >= next_drain_)
      for (const int fd : {plane_.events_fd, plane_.connections->fd()}) descriptors.push_back({fd, POLLIN, 0});
    if (plane_.watch) descriptors.push_back({plane_.watch->fd(), POLLIN, 0});
    if (::poll(descriptors.data(), descriptors.size(), wait_ms(now)) < 0 && errno != EINTR)
      return fail(Error::from_errno(errno, "poll"));
    now = clock_.boottime();
    if (descriptors[0].revents != 0) on_signal(stop);
    if (descriptors[1].revents != 0) watch_->on_readable(now);
    if (descriptors[2].revents != 0 && bridges_->on_readable()) next_verify_ = now;
    if (descriptors[3].revents != 0) look_for_label_writers();
    if (plane_.watch && plane_.watch->foreign_change()) next_verify_ = now;
    if (now >= next_drain_) {
      TL_ASSIGN(const bool more, recorder_->drain());
      next_drain_ = more ? now : now + kDrainEvery;
    }
    control_->serve(descriptors, now);
    if (auto ticked = tick(clock_.boottime()); !ticked) spdlog::error("{}", ticked.error().message);
    tell_service_manager();
    manager_.alive(now);
  }
  manager_.stopping();
  spdlog::info("stopping: the rules stay in the kernel");
  auto flushed = recorder_->flush();
  publish();  // the last that metrics know of this life
  return flushed;
}

Result<std::vector<std::string>> Daemon::remove() {
  InstanceLock lock;
  TL_TRY(lock_node(lock));
  return remove_all_planes();
}

}  // namespace tierlog::daemon
