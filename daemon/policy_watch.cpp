#include "daemon/policy_watch.h"

#include <sys/inotify.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

namespace tierlog::daemon {
namespace {

namespace fs = std::filesystem;

// Files that are written one after another are one change.
constexpr std::chrono::milliseconds kSettle{100};
constexpr std::uint32_t kChanges = IN_CREATE | IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE |
                                   IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;

// Kubernetes replaces all files of a mounted ConfigMap or Secret at once by exchanging this link, where
// the files' names lead through.
constexpr const char* kMountedData = "..data";

struct Watched {
  std::string folder;
  std::string name;  // what in it leads to the path; empty: all of it
};

Watched to_watch(const std::string& path) {
  std::error_code ignored;
  fs::path folder = fs::path(path);
  if (folder.filename().empty()) folder = folder.parent_path();  // "policies/"
  std::string name;
  while (!folder.empty() && !fs::is_directory(folder, ignored) && folder != folder.parent_path()) {
    name = folder.filename().string();
    folder = folder.parent_path();
  }
  return {folder.empty() ? "." : folder.string(), name};
}

}  // namespace

Result<PolicyWatch> PolicyWatch::open(const std::vector<std::string>& paths) {
  Fd inotify(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (!inotify) return fail(Error::from_errno(errno, "inotify_init1"));
  PolicyWatch watch(std::move(inotify), paths);
  TL_TRY(watch.watch_all());
  return watch;
}

// Again after each change: folders come, go, and are replaced by others of the same name.
Result<void> PolicyWatch::watch_all() {
  const auto before = std::exchange(folders_, {});
  for (const std::string& path : paths_) {
    const Watched wanted = to_watch(path);
    const int watch = ::inotify_add_watch(inotify_.get(), wanted.folder.c_str(), kChanges);
    if (watch >= 0) {
      Folder& folder = folders_[watch];
      folder.path = wanted.folder;
      folder.whole = folder.whole || wanted.name.empty();
      folder.names.insert({wanted.name, kMountedData});
    } else if (errno != ENOENT && errno != ENOTDIR) {
      return fail(Error::from_errno(errno, "watch", wanted.folder));
    }
  }
  for (const auto& [watch, folder] : before)
    if (!folders_.contains(watch)) ::inotify_rm_watch(inotify_.get(), watch);
  return {};
}

// A new file is a change when it is whole: a folder or a link at once, other files when they are closed.
bool PolicyWatch::matters(int watch, std::uint32_t what, const std::string& name) const {
  if ((what & IN_IGNORED) != 0) return false;
  const auto folder = folders_.find(watch);
  if (folder == folders_.end()) return true;  // of before the last change
  if (!name.empty() && !folder->second.whole && !folder->second.names.contains(name)) return false;
  if ((what & IN_CREATE) == 0 || (what & IN_ISDIR) != 0) return true;
  struct stat status {};
  return ::lstat((folder->second.path + "/" + name).c_str(), &status) != 0 ||
         S_ISLNK(status.st_mode) || status.st_nlink > 1;
}

void PolicyWatch::on_readable(Nanoseconds now) {
  alignas(inotify_event) std::array<char, 16384> buffer{};
  bool changed = false;
  for (ssize_t got = 0; (got = ::read(inotify_.get(), buffer.data(), buffer.size())) > 0;) {
    for (std::size_t at = 0; at < static_cast<std::size_t>(got);) {
      inotify_event event{};
      std::memcpy(&event, buffer.data() + at, sizeof event);
      const char* name = event.len > 0 ? buffer.data() + at + sizeof event : "";
      changed = matters(event.wd, event.mask, name) || changed;
      at += sizeof event + event.len;
    }
  }
  if (!changed) return;
  due_ = now + kSettle;
  // A folder that cannot be watched is read at the next change of another one, and at SIGHUP.
  static_cast<void>(watch_all());
}

}  // namespace tierlog::daemon
