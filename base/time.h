// base/time.h - wall-clock instants of records and their text, durations as people type them.
//
// WallTime is nanoseconds since the Unix epoch, UTC. Durations are measured by CLOCK_BOOTTIME, never by
// differences of WallTime.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tierlog {

using Nanoseconds = std::chrono::nanoseconds;
// Nanoseconds since 1970-01-01T00:00:00Z.
using WallTime = std::chrono::time_point<std::chrono::system_clock, Nanoseconds>;

// The one way to read a clock; tests put ManualClock in its place.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual WallTime wall() const = 0;
  virtual Nanoseconds boottime() const = 0;  // since boot, counts while suspended
};

class SystemClock final : public Clock {
 public:
  WallTime wall() const override;
  Nanoseconds boottime() const override;
};

class ManualClock final : public Clock {
 public:
  WallTime wall() const override { return wall_; }
  Nanoseconds boottime() const override { return boottime_; }
  void advance(Nanoseconds by) { wall_ += by; boottime_ += by; }
  void set_wall(WallTime to) { wall_ = to; }

 private:
  WallTime wall_{std::chrono::seconds(1'700'000'000)};
  Nanoseconds boottime_{std::chrono::hours(1)};
};

inline std::int64_t to_ns(WallTime t) { return t.time_since_epoch().count(); }
inline WallTime from_ns(std::int64_t ns) { return WallTime(Nanoseconds(ns)); }

std::string format_rfc3339(WallTime t);          // "2026-11-21T20:14:07.000000123Z"
std::string format_for_people(WallTime t);       // "2026-11-21 20:14:07", UTC
std::optional<WallTime> parse_rfc3339(std::string_view text);  // Z or ±hh:mm, any fraction

// "90s", "15m", "2h", "7d", "2w", "200ms", also joined ("1h30m") and with a fraction ("1.5h").
std::optional<Nanoseconds> parse_duration(std::string_view text);
std::string format_duration(Nanoseconds d);      // "3 d 4 h", "5 s", "40 ms": at most two units

// "15m" (that long before `now`) or an RFC 3339 instant: what --since and --until take.
std::optional<WallTime> parse_when(std::string_view text, WallTime now);

}  // namespace tierlog
