#include "logger/books.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace tierlog::logger {
namespace {

constexpr std::string_view kNames[kLossCauses] = {"not-running", "nflog-loss", "deny-set-full", "stateless",
                                                  "not-ip",      "store-back-pressure", "unknown"};

// A gap is seen at the next message, a remainder at the second reading: the two need not meet.
constexpr std::uint32_t kEvidenceLasts = 4;

}  // namespace

std::string_view name(LossCause cause) {
  return kNames[static_cast<std::size_t>(cause)];
}

void Books::resume(std::span<const store::LossCount> declared) {
  for (const store::LossCount& loss : declared)
    for (std::size_t i = 0; i < kLossCauses; ++i)
      if (loss.rule != RuleId::None && loss.cause == kNames[i]) declared_[loss.rule][i] = loss.packets;
}

std::uint64_t Books::declared(RuleId rule) const {
  const auto found = declared_.find(rule);
  if (found == declared_.end()) return 0;
  return std::accumulate(found->second.begin(), found->second.end(), std::uint64_t{0});
}

std::uint64_t Books::declared(LossCause cause) const {
  std::uint64_t sum = 0;
  for (const auto& [rule, causes] : declared_) sum += causes[static_cast<std::size_t>(cause)];
  return sum;
}

std::uint64_t Books::remainder(const RuleBalance& balance) const {
  const std::uint64_t told = balance.recorded + balance.waiting + declared(balance.rule);
  return balance.kernel > told ? balance.kernel - told : 0;
}

// The kernel counts them apart, so nothing has to stand twice. A counter with less than was declared is one
// of another table.
void Books::take_frames(std::span<const RuleBalance> balances) {
  for (const RuleBalance& balance : balances) {
    if (balance.frames == 0) continue;
    std::uint64_t& declared = declared_[balance.rule][static_cast<std::size_t>(LossCause::NotIp)];
    const auto [known, first] = frames_.try_emplace(balance.rule, declared <= balance.frames ? declared : 0);
    if (balance.frames < known->second) known->second = 0;
    declared += balance.frames - known->second;
    known->second = balance.frames;
  }
}

void Books::take_given_up(std::span<const RuleBalance> balances) {
  for (const RuleBalance& balance : balances) {
    if (balance.given_up == 0) continue;
    std::uint64_t& known = given_up_[balance.rule];
    declared_[balance.rule][static_cast<std::size_t>(LossCause::StoreFull)] += balance.given_up - known;
    known = balance.given_up;
  }
}

void Books::declare_not_running(std::span<const RuleBalance> balances) {
  take_frames(balances);
  for (const RuleBalance& balance : balances) {
    if (balance.recent > 0) hidden_at_start_[balance.rule] = balance.recent;
    if (const std::uint64_t missing = remainder(balance); missing > 0)
      declared_[balance.rule][static_cast<std::size_t>(LossCause::NotRunning)] += missing;
  }
}

LossCause Books::cause_of(const RuleBalance& balance) const {
  const auto fresh = [this](std::uint32_t reading) {
    return reading != 0 && readings_ - reading < kEvidenceLasts;
  };
  if (balance.allows && fresh(lost_messages_at_)) return LossCause::NflogLoss;
  if (fresh(overflow_at_)) return LossCause::DenySetFull;
  if (balance.allows && fresh(stateless_at_)) return LossCause::Stateless;
  return LossCause::Unknown;
}

void Books::add(const RuleBalance& balance, std::uint64_t missing) {
  Causes& causes = declared_[balance.rule];
  if (const auto hidden = hidden_at_start_.find(balance.rule); hidden != hidden_at_start_.end()) {
    const std::uint64_t late = std::min(missing, hidden->second);
    causes[static_cast<std::size_t>(LossCause::NotRunning)] += late;
    hidden->second -= late;
    missing -= late;
  }
  causes[static_cast<std::size_t>(cause_of(balance))] += missing;
}

void Books::declare(std::span<const RuleBalance> balances, const LossEvidence& evidence) {
  ++readings_;
  if (evidence.lost_messages > last_.lost_messages) lost_messages_at_ = readings_;
  if (evidence.overflow > last_.overflow) overflow_at_ = readings_;
  if (evidence.stateless > last_.stateless) stateless_at_ = readings_;
  last_ = evidence;
  take_frames(balances);
  take_given_up(balances);
  std::unordered_map<RuleId, std::uint64_t> now;
  for (const RuleBalance& balance : balances) {
    const std::uint64_t missing = remainder(balance);
    if (missing == 0) continue;
    const auto before = before_.find(balance.rule);
    const std::uint64_t stable = before == before_.end() ? 0 : std::min(missing, before->second);
    if (stable > 0) add(balance, stable);
    if (missing > stable) now[balance.rule] = missing - stable;
  }
  before_ = std::move(now);
}

std::vector<store::LossCount> Books::losses() const {
  std::vector<store::LossCount> all;
  for (const auto& [rule, causes] : declared_)
    for (std::size_t i = 0; i < kLossCauses; ++i)
      if (causes[i] > 0) all.push_back({std::string(kNames[i]), rule, causes[i]});
  return all;
}

}  // namespace tierlog::logger
