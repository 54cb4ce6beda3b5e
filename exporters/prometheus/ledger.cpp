#include "exporters/prometheus/ledger.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "exporters/prometheus/whole_file.h"

namespace tierlog::prometheus {
namespace {

using Json = nlohmann::json;

constexpr int kVersion = 1;
constexpr std::int64_t kForgottenAfter = 24 * 60 * 60;

std::int64_t seconds_of(WallTime time) {
  return std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count();
}

}  // namespace

Ledger::Ledger(std::string file, std::string boot) : file_(std::move(file)), boot_(std::move(boot)) {
  if (!file_.empty()) load();
}

void Ledger::load() {
  std::ifstream stream(file_);
  const Json json = Json::parse(stream, nullptr, false);
  try {
    if (!json.is_object() || json.value("version", 0) != kVersion) return;
    const bool closed = json.value("closed", false);
    if (!closed && json.value("boot", "") != boot_) return;
    for (const auto& [name, value] : json.at("counters").items())
      series_[name] = {.told = value.at(0), .asked_s = value.at(1)};
    // After a power failure in this life it must not be there again as it was closed.
    if (closed &&
        !write_whole(
            file_,
            Json{{"version", kVersion}, {"boot", boot_}, {"closed", false}, {"counters", json.at("counters")}}
                .dump(),
            Durability::Power))
      ::unlink(file_.c_str());
  } catch (const Json::exception&) {
    series_.clear();
  }
}

Ledger::Series& Ledger::series(std::string_view name) {
  auto found = series_.find(name);
  if (found == series_.end()) found = series_.emplace(std::string(name), Series{}).first;
  found->second.asked = true;
  return found->second;
}

std::uint64_t Ledger::since_start(std::string_view series, std::uint64_t count) {
  Series& one = this->series(series);
  const std::uint64_t more = count >= one.count ? count - one.count : count;
  one.count = count;
  one.told += more;
  changed_ = changed_ || more > 0;
  return one.told;
}

std::uint64_t Ledger::at_least(std::string_view series, std::uint64_t count) {
  Series& one = this->series(series);
  changed_ = changed_ || count > one.told;
  one.told = std::max(one.told, count);
  return one.told;
}

Result<void> Ledger::put(WallTime now, bool closed) {
  Json counters = Json::object();
  for (auto& [name, one] : series_)
    if (std::exchange(one.asked, false)) one.asked_s = seconds_of(now);
  std::erase_if(series_,
                [&](const auto& one) { return seconds_of(now) - one.second.asked_s > kForgottenAfter; });
  for (const auto& [name, one] : series_)
    if (one.told > 0) counters[name] = {one.told, one.asked_s};
  const Json json{
      {"version", kVersion}, {"boot", boot_}, {"closed", closed}, {"counters", std::move(counters)}};
  const auto written = write_whole(file_, json.dump(-1, ' ', false, Json::error_handler_t::replace),
                                   closed ? Durability::Power : Durability::Process);
  if (!written) ::unlink(file_.c_str());
  changed_ = !written;
  return written;
}

Result<void> Ledger::write(WallTime now) {
  return changed_ && !file_.empty() ? put(now, false) : Result<void>();
}

Result<void> Ledger::close(WallTime now) {
  return file_.empty() ? Result<void>() : put(now, true);
}

}  // namespace tierlog::prometheus
