#include <algorithm>
#include <map>
#include <string>

#include "exporters/prometheus/families.h"

namespace tierlog::prometheus {
namespace {

double seconds_of(WallTime time) {
  return std::chrono::duration<double>(time.time_since_epoch()).count();
}
double seconds_of(Nanoseconds duration) {
  return std::chrono::duration<double>(duration).count();
}
double truth(bool value) {
  return value ? 1 : 0;
}

void policy_sync(Exposition& out, const Index& index, const Health& health) {
  std::uint64_t enforced = 0;
  for (const store::EndpointRow& endpoint : index.endpoints) enforced += endpoint.enforced;
  out.family(Metric::Endpoints);
  out.sample({"enforced"}, enforced);
  out.sample({"known"}, index.endpoints.size() - enforced);
  out.single(Metric::PolicySyncs, SinceStart{health.syncs});
  out.single(Metric::PolicySyncFailed, truth(!health.in_sync));
  out.single(Metric::PolicySyncFailures, SinceStart{health.sync_failures});
  out.single(Metric::PolicySyncDuration, seconds_of(health.sync_duration));
  out.single(Metric::PolicyInForceSince, seconds_of(health.in_force_since));
  out.single(Metric::PolicyRevision, health.revision);
  out.single(Metric::VerdictRate, health.verdicts_per_second);
  out.single(Metric::EventLag, seconds_of(health.event_lag));
}

// As the flow index has them: the kernel's counters are written there every two seconds.
void books(Exposition& out, const Index& index, const Health& health) {
  std::uint64_t kernel = 0, recorded = 0, open = 0;
  for (const store::RuleActivity& rule : index.rules) {
    if (rule.rule.action != "Allow" && rule.rule.action != "Deny") continue;
    kernel += rule.kernel_packets;
    recorded += rule.recorded_packets;
    const std::uint64_t told = rule.recorded_packets + rule.unattributed;
    open += rule.kernel_packets - std::min(rule.kernel_packets, told);
  }
  // increase() does not see what was not there before.
  std::map<std::string, std::uint64_t> causes;
  for (const std::string& cause : health.causes) causes[cause];
  for (const store::LossCount& loss : index.losses)
    if (loss.rule != RuleId::None) causes[loss.cause] += loss.packets;
  out.single(Metric::BooksKernel, kernel);
  out.single(Metric::BooksRecorded, recorded);
  out.family(Metric::BooksUnattributed);
  for (const auto& [cause, packets] : causes) out.sample({cause}, packets);
  out.single(Metric::BooksOpen, open);
  // The index keeps them, but not while it refuses to be written.
  std::map<std::string, std::uint64_t> losses(health.losses.begin(), health.losses.end());
  for (const store::LossCount& loss : index.losses)
    if (loss.rule == RuleId::None) losses[loss.cause] = std::max(losses[loss.cause], loss.packets);
  out.family(Metric::Losses);
  for (const auto& [cause, amount] : losses) out.sample({cause}, AtLeast{amount});
  out.single(Metric::Mismatches, AtLeast{losses["attribution-mismatch"]});
}

void store_and_exports(Exposition& out, const Index& index, const Health& health, WallTime now) {
  out.single(Metric::Backlog, health.backlog_records);
  out.single(Metric::BacklogAggregated, SinceStart{health.backlog_aggregated});
  out.single(Metric::BacklogRefused, SinceStart{health.backlog_refused});
  out.single(Metric::StoreBytes, health.store_bytes);
  out.single(Metric::StoreRecords, static_cast<std::uint64_t>(index.last_written));
  if (index.oldest) out.single(Metric::StoreOldest, seconds_of(*index.oldest));
  const auto each = [&](Metric metric, auto value_of) {
    out.family(metric);
    for (std::size_t i = 0; i < health.exports.size(); ++i)
      out.sample({health.exports[i].name}, value_of(health.exports[i], i));
  };
  each(Metric::ExportDelivered, [](const ExportHealth& one, std::size_t) {
    return Value(static_cast<std::uint64_t>(std::max<std::int64_t>(0, one.kept_sequence)));
  });
  each(Metric::ExportWaiting, [&](const ExportHealth& one, std::size_t) {
    return Value(
        static_cast<std::uint64_t>(std::max<std::int64_t>(0, index.last_sequence - one.delivered_sequence)));
  });
  each(Metric::ExportAge, [&](const ExportHealth&, std::size_t i) {
    const auto since = i < index.waiting_since.size() ? index.waiting_since[i] : std::nullopt;
    return Value(since ? std::max(0.0, seconds_of(now - *since)) : 0.0);
  });
  each(Metric::ExportSkipped, [](const ExportHealth& one, std::size_t) { return Value(SinceStart{one.skipped}); });
  each(Metric::ExportFailing, [](const ExportHealth& one, std::size_t) { return Value(truth(one.failing)); });
  each(Metric::ExportSent, [](const ExportHealth& one, std::size_t) { return Value(SinceStart{one.sent_records}); });
  each(Metric::ExportSentBytes, [](const ExportHealth& one, std::size_t) { return Value(SinceStart{one.sent_bytes}); });
  each(Metric::ExportSentMessages, [](const ExportHealth& one, std::size_t) { return Value(SinceStart{one.sent_messages}); });
  each(Metric::ExportExpired, [](const ExportHealth& one, std::size_t) { return Value(SinceStart{one.expired}); });
  each(Metric::ExportRetries, [](const ExportHealth& one, std::size_t) { return Value(SinceStart{one.retries}); });
  out.family(Metric::ExportFailures);
  for (const ExportHealth& one : health.exports)
    for (const auto& [cause, count] : one.failures) out.sample({one.name, cause}, SinceStart{count});
}

}  // namespace

void daemon_families(Exposition& out, const Index& index, const Health& health, WallTime now) {
  policy_sync(out, index, health);
  books(out, index, health);
  store_and_exports(out, index, health, now);
  out.family(Metric::Repairs);
  for (const auto& [what, count] : health.repairs) out.sample({what}, SinceStart{count});
  out.family(Metric::Connections);
  for (const auto& [outcome, count] : health.connections) out.sample({outcome}, SinceStart{count});
}

}  // namespace tierlog::prometheus
