#include "base/time.h"

#include <charconv>
#include <ctime>
#include <utility>

namespace tierlog {
namespace {

Nanoseconds read_clock(clockid_t id) {
  timespec now{};
  ::clock_gettime(id, &now);
  return std::chrono::seconds(now.tv_sec) + Nanoseconds(now.tv_nsec);
}

std::tm utc(WallTime t) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(t).time_since_epoch().count();
  const std::time_t when = seconds;
  std::tm parts{};
  ::gmtime_r(&when, &parts);
  return parts;
}

// Reads exactly `digits` digits at `text`'s front and drops them.
std::optional<int> take_digits(std::string_view& text, std::size_t digits) {
  int value = 0;
  if (text.size() < digits) return std::nullopt;
  const auto [end, error] = std::from_chars(text.data(), text.data() + digits, value);
  if (error != std::errc() || end != text.data() + digits || value < 0) return std::nullopt;
  text.remove_prefix(digits);
  return value;
}

bool take(std::string_view& text, char c) {
  if (text.empty() || text.front() != c) return false;
  text.remove_prefix(1);
  return true;
}

constexpr std::pair<std::string_view, std::int64_t> kUnits[] = {
    {"ns", 1}, {"us", 1'000}, {"ms", 1'000'000}, {"s", 1'000'000'000},
    {"m", 60'000'000'000}, {"h", 3'600'000'000'000}, {"d", 86'400'000'000'000}, {"w", 604'800'000'000'000}};

constexpr std::size_t kMostDecimals = 9;

std::optional<std::int64_t> unit_ns(std::string_view unit) {
  for (const auto& [name, ns] : kUnits)
    if (name == unit) return ns;
  return std::nullopt;
}

}  // namespace

WallTime SystemClock::wall() const { return WallTime(read_clock(CLOCK_REALTIME)); }
Nanoseconds SystemClock::boottime() const { return read_clock(CLOCK_BOOTTIME); }

std::string format_rfc3339(WallTime t) {
  // Each record has two of them: digit by digit, a tenth of what snprintf takes.
  const auto day = std::chrono::floor<std::chrono::days>(t);
  const std::chrono::year_month_day date(day);
  const std::int64_t in_day = std::chrono::duration_cast<Nanoseconds>(t - day).count();
  constexpr std::int64_t kPerSecond = 1'000'000'000;
  const std::int64_t seconds = in_day / kPerSecond;
  std::string text = "0000-00-00T00:00:00.000000000Z";
  const auto put = [&text](std::size_t end, std::int64_t value, int digits) {
    for (; digits > 0; --digits, value /= 10) text[--end] = static_cast<char>('0' + value % 10);
  };
  put(4, static_cast<int>(date.year()), 4);
  put(7, static_cast<unsigned>(date.month()), 2);
  put(10, static_cast<unsigned>(date.day()), 2);
  put(13, seconds / 3600, 2);
  put(16, seconds / 60 % 60, 2);
  put(19, seconds % 60, 2);
  put(29, in_day % kPerSecond, 9);
  return text;
}

std::string format_for_people(WallTime t) {
  const std::tm parts = utc(t);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts);
  return text;
}

std::optional<WallTime> parse_rfc3339(std::string_view text) {
  std::tm parts{};
  const auto year = take_digits(text, 4);
  if (!year || !take(text, '-')) return std::nullopt;
  const auto month = take_digits(text, 2);
  if (!month || !take(text, '-')) return std::nullopt;
  const auto day = take_digits(text, 2);
  if (!day || !(take(text, 'T') || take(text, 't') || take(text, ' '))) return std::nullopt;
  const auto hour = take_digits(text, 2);
  if (!hour || !take(text, ':')) return std::nullopt;
  const auto minute = take_digits(text, 2);
  if (!minute || !take(text, ':')) return std::nullopt;
  const auto second = take_digits(text, 2);
  if (!second) return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(*year), std::chrono::month(static_cast<unsigned>(*month)),
                                         std::chrono::day(static_cast<unsigned>(*day))};
  if (!date.ok() || *hour > 23 || *minute > 59 || *second > 60) return std::nullopt;
  parts.tm_year = *year - 1900;
  parts.tm_mon = *month - 1;
  parts.tm_mday = *day;
  parts.tm_hour = *hour;
  parts.tm_min = *minute;
  parts.tm_sec = *second;

  std::int64_t fraction = 0;
  if (take(text, '.')) {
    std::int64_t scale = 100'000'000;
    bool any = false;
    while (!text.empty() && text.front() >= '0' && text.front() <= '9') {
      fraction += (text.front() - '0') * scale;
      scale /= 10;
      text.remove_prefix(1);
      any = true;
    }
    if (!any) return std::nullopt;
  }
  std::int64_t offset_seconds = 0;
  if (take(text, 'Z') || take(text, 'z')) {
  } else if (!text.empty() && (text.front() == '+' || text.front() == '-')) {
    const int sign = text.front() == '+' ? 1 : -1;
    text.remove_prefix(1);
    const auto oh = take_digits(text, 2);
    if (!oh || !take(text, ':')) return std::nullopt;
    const auto om = take_digits(text, 2);
    if (!om || *oh > 23 || *om > 59) return std::nullopt;
    offset_seconds = sign * (*oh * 3600 + *om * 60);
  } else {
    return std::nullopt;
  }
  if (!text.empty()) return std::nullopt;
  const std::int64_t seconds = ::timegm(&parts) - offset_seconds;
  return WallTime(std::chrono::seconds(seconds) + Nanoseconds(fraction));
}

std::optional<Nanoseconds> parse_duration(std::string_view text) {
  if (text.empty()) return std::nullopt;
  std::int64_t total = 0;
  while (!text.empty()) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || value < 0 || text.front() == '-') return std::nullopt;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    std::string_view fraction;
    if (take(text, '.')) {
      fraction = text.substr(0, text.find_first_not_of("0123456789"));
      if (fraction.empty() || fraction.size() > kMostDecimals) return std::nullopt;
      text.remove_prefix(fraction.size());
    }
    const auto unit_end = text.find_first_of("0123456789");
    const auto ns = unit_ns(text.substr(0, unit_end));
    if (!ns) return std::nullopt;
    std::int64_t part = 0;
    if (__builtin_mul_overflow(value, *ns, &part) || __builtin_add_overflow(total, part, &total))
      return std::nullopt;
    std::int64_t place = *ns;
    for (const char digit : fraction) {
      // What is left of a unit may be no whole nanosecond any more.
      const std::int64_t tenths = place * (digit - '0') / 10;
      if (__builtin_add_overflow(total, tenths, &total)) return std::nullopt;
      place /= 10;
    }
    text.remove_prefix(unit_end == std::string_view::npos ? text.size() : unit_end);
  }
  return Nanoseconds(total);
}

std::string format_duration(Nanoseconds d) {
  using namespace std::chrono;
  const auto text = [](std::int64_t value, const char* unit) { return std::to_string(value) + " " + unit; };
  if (d < 1ms) return text(duration_cast<microseconds>(d).count(), "us");
  if (d < 1s) return text(duration_cast<milliseconds>(d).count(), "ms");
  if (d < 1min) return text(duration_cast<seconds>(d).count(), "s");
  const auto two = [&](std::int64_t big, const char* bu, std::int64_t small, const char* su) {
    return small == 0 ? text(big, bu) : text(big, bu) + " " + text(small, su);
  };
  const std::int64_t s = duration_cast<seconds>(d).count();
  if (d < 1h) return two(s / 60, "min", s % 60, "s");
  if (d < hours(24)) return two(s / 3600, "h", s % 3600 / 60, "min");
  return two(s / 86400, "d", s % 86400 / 3600, "h");
}

std::optional<WallTime> parse_when(std::string_view text, WallTime now) {
  if (const auto ago = parse_duration(text)) return now - *ago;
  if (const auto whole = parse_rfc3339(text)) return whole;
  // A day, a minute, or a time as it is printed for people: UTC.
  std::string filled(text);
  if (filled.size() > 10 && filled[10] == ' ') filled[10] = 'T';
  if (filled.ends_with('Z')) filled.pop_back();
  if (filled.size() == std::string_view("2026-11-21").size()) filled += "T00:00";
  if (filled.size() == std::string_view("2026-11-21T20:14").size()) filled += ":00";
  return parse_rfc3339(filled + "Z");
}

}  // namespace tierlog
