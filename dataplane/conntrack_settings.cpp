#include "dataplane/conntrack_settings.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <optional>

#include "base/handle.h"
#include "base/result.h"

namespace tierlog::dataplane {
namespace {

struct Switch {
  const char* name;
  const char* path;
  const char* wanted;
  bool required;
};

constexpr Switch kSwitches[] = {
    {"net.netfilter.nf_conntrack_acct", "/proc/sys/net/netfilter/nf_conntrack_acct", "1", true},
    {"net.netfilter.nf_conntrack_events", "/proc/sys/net/netfilter/nf_conntrack_events", "1", true},
    {"net.netfilter.nf_conntrack_timestamp", "/proc/sys/net/netfilter/nf_conntrack_timestamp", "1", false},
};

Result<std::string> read_switch(const char* path) {
  const Fd file(::open(path, O_RDONLY | O_CLOEXEC));
  if (!file) return fail(Error::from_errno(errno, "open", path));
  std::array<char, 32> text{};
  const ssize_t got = ::read(file.get(), text.data(), text.size());
  if (got < 0) return fail(Error::from_errno(errno, "read", path));
  std::string value(text.data(), static_cast<std::size_t>(got));
  value.erase(value.find_last_not_of(" \n\t") + 1);
  return value;
}

Result<void> write_switch(const char* path, const std::string& value) {
  const Fd file(::open(path, O_WRONLY | O_CLOEXEC));
  if (!file) return fail(Error::from_errno(errno, "open", path));
  if (::write(file.get(), value.data(), value.size()) < 0)
    return fail(Error::from_errno(errno, "write " + value + " to", path));
  return {};
}

std::optional<SettingChange> set_switch(const Switch& wanted) {
  SettingChange change{wanted.name, {}, wanted.wanted, {}, wanted.required};
  const auto was = read_switch(wanted.path);
  if (was) {
    if (*was == wanted.wanted) return std::nullopt;
    change.was = *was;
    if (const auto written = write_switch(wanted.path, wanted.wanted); !written)
      change.problem = written.error().message;
  } else {
    change.problem = was.error().message;
  }
  return change;
}

}  // namespace

std::vector<SettingChange> set_conntrack_switches() {
  std::vector<SettingChange> changes;
  for (const Switch& wanted : kSwitches)
    if (auto change = set_switch(wanted)) changes.push_back(std::move(*change));
  return changes;
}

}  // namespace tierlog::dataplane
