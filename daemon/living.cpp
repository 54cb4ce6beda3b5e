#include "daemon/living.h"

#include <linux/netfilter/nf_conntrack_common.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "policy/evaluate.h"

namespace tierlog::daemon {
namespace {

using dataplane::Connection;
using dataplane::ConnectionLabels;
using dataplane::ConnectionTuple;

// Packets that started under the old rules have written their labels by then.
constexpr std::chrono::milliseconds kGrace{60};
// While some are cut: when to see whether the last of them has ended.
constexpr std::chrono::seconds kCutEvery{10};

policy::Packet packet_of(const ConnectionTuple& tuple) {
  return {tuple.source,           tuple.destination, tuple.protocol, tuple.source_port,
          tuple.destination_port, tuple.icmp_type,   tuple.icmp_code};
}

policy::Packet reversed(const ConnectionTuple& tuple) {
  return {tuple.destination, tuple.source, tuple.protocol, tuple.destination_port, tuple.source_port, 0, 0};
}

bool is_preexisting(const ConnectionLabels& labels) {
  return labels.egress == reserved::kPreexistingEgress || labels.ingress == reserved::kPreexistingIngress;
}

// What ICMP errors and the like belong to is judged by itself.
bool is_related(const Connection& connection) {
  return (connection.status & IPS_EXPECTED) != 0;
}

void add_endpoint_addresses(const policy::Program& from, const policy::Program& to,
                            std::unordered_set<IpAddr>& into) {
  for (const auto& [address, index] : from.endpoint_by_address) {
    const policy::Endpoint& before = from.cluster->endpoints[index];
    const policy::Endpoint* after = to.known(address);
    if (after == nullptr || after->display() != before.display() || after->interface != before.interface)
      into.insert(address);
  }
}

// What audit let be is judged in earnest now, whatever its label says.
bool any_enforced_now(const policy::Program& before, const policy::Program& now) {
  return std::any_of(now.enforced_by_address.begin(), now.enforced_by_address.end(), [&](const auto& entry) {
    return !now.endpoints[entry.second].audited && before.audits(entry.first);
  });
}

}  // namespace

Judgement judge(const policy::Program& program, const Connection& connection) {
  const ConnectionTuple view = forward_view(connection);
  const policy::Evaluation verdict = policy::evaluate(program, packet_of(view));
  Judgement judgement{connection.labels,
                      verdict.egress || verdict.ingress || verdict.host_ingress || verdict.host_egress};
  judgement.labels.flags &= ~dataplane::kLabelCut;
  if (!judgement.concerns) return {connection.labels, false};
  if (verdict.action == policy::Action::Deny && is_preexisting(connection.labels) &&
      policy::evaluate(program, reversed(view)).action == policy::Action::Allow)
    return judgement;  // nobody saw who opened it
  if (verdict.egress) {
    if (verdict.egress->action == policy::Action::Allow)
      judgement.labels.egress = verdict.egress->rule;
    else if (!program.audits(view.source))
      judgement.labels.flags |= dataplane::kLabelCutEgress;
  }
  if (verdict.ingress) {
    if (verdict.ingress->action == policy::Action::Allow)
      judgement.labels.ingress = verdict.ingress->rule;
    else if (!program.audits(view.destination))
      judgement.labels.flags |= dataplane::kLabelCutIngress;
  }
  for (const auto* host : {&verdict.host_ingress, &verdict.host_egress})
    if (*host && (*host)->action == policy::Action::Deny)
      judgement.labels.flags |= (*host)->direction == Direction::Egress ? dataplane::kLabelCutEgress
                                                                         : dataplane::kLabelCutIngress;
  return judgement;
}

Result<void> LivingConnections::on_applied(const std::shared_ptr<const policy::Program>& program,
                                           Nanoseconds now) {
  const auto before = std::exchange(program_, program);
  if (backend_.connections_in_doubt()) due_ = std::min(due_, now + kGrace);
  if (!before) return {};
  if (any_enforced_now(*before, *program)) judge_all(now);
  std::unordered_set<IpAddr> changed_hands;
  add_endpoint_addresses(*before, *program, changed_hands);
  add_endpoint_addresses(*program, *before, changed_hands);
  return changed_hands.empty() ? Result<void>{} : forget(changed_hands);
}

// Nobody speaks with such an address now: its pod is gone, or has not begun. So the entries can be deleted;
// what the other side still sends is judged as the beginning of something new.
Result<void> LivingConnections::forget(const std::unordered_set<IpAddr>& addresses) {
  std::vector<Connection> old;
  TL_TRY(conntrack_.dump([&](const Connection& connection) {
    for (const ConnectionTuple* tuple : {&connection.original, &connection.reply})
      if (addresses.count(tuple->source) != 0 || addresses.count(tuple->destination) != 0) {
        old.push_back(connection);
        return;
      }
  }));
  for (const Connection& connection : old) {
    TL_ASSIGN(const bool removed, conntrack_.remove(connection));
    if (removed) ++counts_.removed;
  }
  return {};
}

void LivingConnections::judge_all(Nanoseconds now) {
  also_unlabelled_ = true;
  due_ = std::min(due_, now + kGrace);
}

Result<void> LivingConnections::tick(Nanoseconds now) {
  if (now < due_) return {};
  due_ = now + kCutEvery;  // also when this fails
  TL_TRY(revise());
  TL_TRY(backend_.settle(cut_now_ != 0));
  also_unlabelled_ = false;
  if (cut_now_ == 0) due_ = Nanoseconds::max();
  return {};
}

Result<void> LivingConnections::revise() {
  if (!program_) return {};
  std::vector<Connection> living;
  TL_TRY(conntrack_.dump([&](const Connection& connection) {
    const bool labelled = connection.labels != ConnectionLabels{};
    if (labelled || (also_unlabelled_ && !is_related(connection))) living.push_back(connection);
  }));
  cut_now_ = 0;
  for (const Connection& connection : living) {
    ++counts_.judged;
    const Judgement judgement = judge(*program_, connection);
    if ((judgement.labels.flags & dataplane::kLabelCut) != 0) ++cut_now_;
    if (judgement.concerns && judgement.labels != connection.labels)
      TL_TRY(relabel(connection, judgement.labels));
  }
  return {};
}

Result<void> LivingConnections::relabel(const Connection& connection, const ConnectionLabels& labels) {
  const bool cuts = (labels.flags & dataplane::kLabelCut) != 0;
  const bool was_cut = (connection.labels.flags & dataplane::kLabelCut) != 0;
  TL_ASSIGN(const auto result, conntrack_.set_labels(connection, labels));
  switch (result) {
    case dataplane::LabelResult::Written:
      if (cuts != was_cut)
        ++(cuts ? counts_.cut : counts_.resumed);
      else
        ++counts_.relabelled;
      return {};
    case dataplane::LabelResult::Gone:
      if (cuts) --cut_now_;
      return {};
    case dataplane::LabelResult::NoSpace:
      break;
  }
  if (!cuts) return {};
  --cut_now_;
  // Without its entry TCP is in mid-stream, which the rules drop; anything else would begin anew, in
  // whatever direction its next packet goes.
  if (connection.original.protocol != protocol::kTcp) {
    ++counts_.uncuttable;
    return {};
  }
  TL_ASSIGN(const bool removed, conntrack_.remove(connection));
  if (removed) ++counts_.removed;
  return {};
}

}  // namespace tierlog::daemon
