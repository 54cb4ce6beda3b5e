#include "daemon/policy_watch.h"

#include <sys/inotify.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <set>

namespace tierlog::daemon {
namespace {

// Files that are written one after another are one change.
constexpr std::chrono::milliseconds kSettle{100};

}  // namespace

Result<PolicyWatch> PolicyWatch::open(const std::vector<std::string>& paths) {
  Fd inotify(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (!inotify) return fail(Error::from_errno(errno, "inotify_init1"));
  std::set<std::string> folders;
  for (const std::string& path : paths) {
    std::error_code ignored;
    if (std::filesystem::is_directory(path, ignored))
      folders.insert(path);
    else if (const auto parent = std::filesystem::path(path).parent_path().string(); !parent.empty())
      folders.insert(parent);
    else
      folders.insert(".");
  }
  constexpr std::uint32_t kChanges = IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE;
  for (const std::string& folder : folders)
    if (::inotify_add_watch(inotify.get(), folder.c_str(), kChanges) < 0 && errno != ENOENT)
      return fail(Error::from_errno(errno, "watch", folder));
  return PolicyWatch(std::move(inotify));
}

void PolicyWatch::on_readable(Nanoseconds now) {
  std::array<char, 16384> events{};
  while (::read(inotify_.get(), events.data(), events.size()) > 0) due_ = now + kSettle;
}

}  // namespace tierlog::daemon
