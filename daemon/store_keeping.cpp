// The flow index within its limits and in one piece: how it is opened, what is said about it, and what is
// done when it turns out to be damaged.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <charconv>

#include "daemon/daemon.h"

namespace tierlog::daemon {
namespace {

constexpr std::chrono::seconds kTellEvery{60};
constexpr std::chrono::seconds kReplaceAgain{10};

// A new file goes on above what exports have delivered, so that no cursor hides its records.
std::int64_t highest_cursor(store::StateDb& state, const Config& config) {
  std::int64_t highest = 0;
  for (const ExportConfig& target : config.exports) {
    const auto text = state.get("cursor/" + target.name);
    std::int64_t cursor = 0;
    if (text && *text) std::from_chars((*text)->data(), (*text)->data() + (*text)->size(), cursor);
    highest = std::max(highest, cursor);
  }
  return highest;
}

void shout(const std::string& path, const std::string& aside) {
  spdlog::error("THE FLOW INDEX WAS DAMAGED: what it held is kept aside as {}, {} begins anew", aside, path);
}

}  // namespace

Result<void> Daemon::open_store() {
  store::StoreOptions options;
  if (config_.store_max_age.count() > 0) options.limits.max_age = config_.store_max_age;
  options.limits.max_bytes = config_.store_max_bytes;
  options.limits.max_rows = config_.store_max_rows;
  options.replace_damaged = true;
  options.first_sequence = highest_cursor(*state_, config_);
  TL_ASSIGN(auto flows,
            store::FlowStore::open_writer(config_.store_path, {config_.cluster, config_.node}, options));
  flows_ = std::make_unique<store::FlowStore>(std::move(flows));
  if (const auto aside = flows_->state().kept_aside; !aside.empty()) shout(config_.store_path, aside);
  return {};
}

// A problem is told once when it changes, then every minute.
void Daemon::keep_store(Nanoseconds now) {
  const store::StoreState state = recorder_->store_state();
  if (state.damaged && now >= replace_store_at_) {
    spdlog::error("flow index: {}", state.problem);
    const auto replaced = replace_store();
    if (replaced) return;
    spdlog::error("flow index: {}", replaced.error().message);
    replace_store_at_ = now + kReplaceAgain;
  }
  const Recorder::Backlog backlog = recorder_->backlog();
  const std::string& problem = backlog.problem.empty() ? state.problem : backlog.problem;
  if (problem == store_problem_ && (problem.empty() || now - store_told_ < kTellEvery)) return;
  store_told_ = now;
  store_problem_ = problem;
  if (problem.empty())
    spdlog::info("the flow index takes records again");
  else
    spdlog::error("THE FLOW INDEX TAKES NO RECORDS: {} waiting={} aggregated={}", problem, backlog.records,
                  backlog.aggregated);
}

// What the kernel counted until now and nobody wrote is declared as after a restart.
Result<void> Daemon::replace_store() {
  TL_ASSIGN(const std::string aside, flows_->replace_damaged());
  exports_.clear();   // they read the old file
  recorder_.reset();  // what it has in hand goes into the new one
  recorder_ =
      std::make_unique<Recorder>(*plane_.backend, *plane_.events, *plane_.connections, *flows_, config_.store_path, clock_);
  recorder_->set_audit(config_.audits);
  shout(config_.store_path, aside);
  TL_TRY(recorder_->load());
  TL_TRY(install(world_->told_rule_keys()));
  TL_TRY(recorder_->start());
  recorder_->start_writer();
  start_exports();
  return {};
}

}  // namespace tierlog::daemon
