// What the loop tells HTTP at intervals (http_face.h).
#include <spdlog/spdlog.h>

#include <nlohmann/json.hpp>

#include "daemon/daemon.h"

namespace tierlog::daemon {
namespace {

// Somebody else has the address: perhaps not for long.
constexpr std::chrono::seconds kTryEvery{10};

}  // namespace

Result<void> Daemon::open_http() {
  if (config_.http_listen.empty()) return {};
  TL_ASSIGN(http_, HttpFace::open(config_, clock_));
  if (!http_->events_problem().empty())
    spdlog::warn("metrics: drop reasons come from /proc, TCP flags and round trip times are absent: {}",
                 http_->events_problem());
  return {};
}

Result<void> Daemon::begin_world() {
  const Nanoseconds before = clock_.boottime();
  auto begun = world_->start();
  syncs_.last = clock_.boottime() - before;
  syncs_.failed += !begun;
  return begun;
}

Result<bool> Daemon::read_files() {
  const Nanoseconds before = clock_.boottime();
  auto done = world_->reload();
  syncs_.last = clock_.boottime() - before;
  syncs_.failed += !done;
  publish();
  return done;
}

prometheus::Health Daemon::health() {
  prometheus::Health health;
  health.dataplane = config_.dataplane;
  health.enforcement = config_.audits ? "audit" : "enforce";
  health.ready = world_->ready();
  health.in_sync = world_->last_error().empty();
  health.in_force_since = world_->in_force_since();
  health.revision = world_->program()->revision;
  health.syncs = syncs_.done;
  health.sync_failures = syncs_.failed;
  health.sync_duration = syncs_.last;
  health.verdicts_per_second = recorder_->pace().per_second;
  health.event_lag = recorder_->pace().behind;
  const Recorder::Backlog backlog = recorder_->backlog();
  health.backlog_records = backlog.records;
  health.backlog_aggregated = backlog.aggregated;
  health.backlog_refused = backlog.refused;
  for (const auto& worker : exports_) {
    const ExportStatus told = worker->status();
    prometheus::ExportHealth& one = health.exports.emplace_back();
    one.name = told.name;
    one.delivered_sequence = told.delivered_sequence;
    one.kept_sequence = told.kept_sequence;
    one.skipped = told.counts.skipped;
    one.failing = !told.error.empty();
    one.sent_records = told.counts.records;
    one.sent_bytes = told.counts.bytes;
    one.sent_messages = told.counts.messages;
    one.expired = told.expired;
    one.retries = told.retries;
    for (std::size_t i = 0; i < told.failures.size(); ++i)
      one.failures.emplace_back(name(static_cast<exporters::FailureCause>(i)), told.failures[i]);
  }
  for (std::size_t i = 0; i < logger::kLossCauses; ++i)
    health.causes.emplace_back(name(static_cast<logger::LossCause>(i)));
  for (const store::LossCount& loss : recorder_->losses())
    if (loss.rule == RuleId::None) health.losses.emplace_back(loss.cause, loss.packets);
  health.repairs = {{"tables", table_repairs_}, {"bridges", bridges_->repairs()}};
  const LivingCounts living = living_ == nullptr ? LivingCounts{} : living_->counts();
  health.connections = {
      {"judged_anew", living.judged}, {"relabelled", living.relabelled}, {"cut", living.cut},
      {"resumed", living.resumed},    {"removed", living.removed},       {"uncuttable", living.uncuttable}};
  return health;
}

void Daemon::publish() {
  if (!http_) return;
  const nlohmann::json status = status_json(Detail::WithoutIndex);
  prometheus::Health now = health();
  now.store_bytes = status["store"].value("bytes", std::uint64_t{0});
  http_->publish(std::move(now), status);
}

// When one begins to fail and when it goes on again; why it fails meanwhile is in `tierlog status`.
void Daemon::tell_exports() {
  for (const auto& worker : exports_) {
    const ExportStatus told = worker->status();
    if (told.error.empty() && failing_exports_.erase(told.name) > 0)
      spdlog::info("export {}: goes on after record {}", told.name, told.delivered_sequence);
    if (!told.error.empty() && failing_exports_.insert(told.name).second)
      spdlog::warn("export {}: {}; it is tried again, nothing is lost while the flow index keeps it", told.name, told.error);
  }
}

// Whether it answers or not, the rules are in force.
void Daemon::keep_answering(Nanoseconds now) {
  if (!http_ || http_->answers() || now < next_http_) return;
  next_http_ = now + kTryEvery;
  if (const auto started = http_->start(); !started) {
    if (started.error().message != http_problem_) spdlog::error("HTTP: {}", started.error().message);
    http_problem_ = started.error().message;
    return;
  }
  http_problem_.clear();
  spdlog::info("http={}", http_->url());
  if (http_->is_open_to_all())
    spdlog::warn("whoever reaches {} reads all flow records: no token is asked for (http.token)",
                 http_->url());
}

}  // namespace tierlog::daemon
