// logger/books.h - what the kernel counted and no record tells: declared, by rule and cause.
//
//   kernel counter = sum of verdict_packets + declared, for every rule that decides
//
// A remainder is declared once it is certain: the counters it is made of were read before the log messages
// and the denied flows that could still tell of it, and it stood in two readings. So it never has to be
// taken back: each declared number only grows. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "store/catalog.h"

namespace tierlog::logger {

enum class LossCause : std::uint8_t {
  NotRunning,   // counted while no daemon ran, and its trace in the kernel was gone when one came
  NflogLoss,    // the message of an allowed first packet did not reach us
  DenySetFull,  // a denied packet found no room in the set that tells its flow
  Stateless,    // allowed packets of no connection (an answer nobody asked for): counted one by one
  NotIp,        // frames that no flow record can describe
  StoreFull,    // the store did not take records for so long that they found no room
  Unknown,      // none of these: a defect, or an event that nobody can see
};
inline constexpr std::size_t kLossCauses = 7;
std::string_view name(LossCause cause);  // "not-running", …

struct RuleBalance {
  RuleId rule{};
  bool allows = false;
  std::uint64_t kernel = 0;    // read first
  std::uint64_t recorded = 0;  // in committed records, read last
  std::uint64_t waiting = 0;   // what the next reading of denied flows will make records of
  std::uint64_t recent = 0;    // part of the two that may be younger than `kernel`
  std::uint64_t frames = 0;    // of `kernel`: no IP
  std::uint64_t given_up = 0;  // verdicts whose records found no room, cumulative of this process
};

// What was seen going wrong, cumulative of this process.
struct LossEvidence {
  std::uint64_t lost_messages = 0;
  std::uint64_t overflow = 0;
  std::uint64_t stateless = 0;  // messages of allowed packets without a connection
};

class Books {
 public:
  // Goes on from what earlier daemons declared; other causes than ours are left out.
  void resume(std::span<const store::LossCount> declared);
  // At the daemon's start, after it took over what the kernel still knows. Recent records may hide as much:
  // what turns up of it later is declared under the same cause.
  void declare_not_running(std::span<const RuleBalance> balances);
  void declare(std::span<const RuleBalance> balances, const LossEvidence& evidence);

  std::uint64_t declared(RuleId rule) const;
  std::uint64_t declared(LossCause cause) const;
  std::vector<store::LossCount> losses() const;  // one a rule and cause

 private:
  void take_frames(std::span<const RuleBalance> balances);
  void take_given_up(std::span<const RuleBalance> balances);
  LossCause cause_of(const RuleBalance& balance) const;
  void add(const RuleBalance& balance, std::uint64_t missing);
  std::uint64_t remainder(const RuleBalance& balance) const;

  using Causes = std::array<std::uint64_t, kLossCauses>;
  std::unordered_map<RuleId, Causes> declared_;
  std::unordered_map<RuleId, std::uint64_t> before_;  // remainders of the reading before
  std::unordered_map<RuleId, std::uint64_t> hidden_at_start_;
  std::unordered_map<RuleId, std::uint64_t> frames_;  // as read last
  std::unordered_map<RuleId, std::uint64_t> given_up_;
  LossEvidence last_;
  std::uint32_t readings_ = 0;
  // The reading that last saw them; 0 = none.
  std::uint32_t lost_messages_at_ = 0, overflow_at_ = 0, stateless_at_ = 0;
};

}  // namespace tierlog::logger
