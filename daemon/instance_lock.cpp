#include "daemon/instance_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <utility>

namespace tierlog::daemon {

namespace {

// The lock that others would find under this name.
bool has_name(const Fd& file, const std::string& path) {
  struct stat locked {}, named {};
  return ::fstat(file.get(), &locked) == 0 && ::stat(path.c_str(), &named) == 0 && locked.st_ino == named.st_ino &&
         locked.st_dev == named.st_dev;
}

Result<Fd> lock(const std::string& path) {
  while (true) {
    Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0640));
    if (!file) return fail(Error::from_errno(errno, "open", path));
    if (::flock(file.get(), LOCK_EX | LOCK_NB) < 0) {
      std::array<char, 32> text{};
      const ssize_t got = ::pread(file.get(), text.data(), text.size() - 1, 0);
      const std::string pid(text.data(), got > 0 ? static_cast<std::size_t>(got) : 0);
      return fail(ErrorCode::Unavailable, "another tierlogd runs on this node (pid " +
                                              pid.substr(0, pid.find('\n')) + ", lock " + path + ")");
    }
    if (has_name(file, path)) return file;
  }
}

}  // namespace

InstanceLock::~InstanceLock() {
  for (const Held& held : held_)
    if (held.at_end == AtEnd::Remove) ::unlink(held.path.c_str());
}

Result<void> InstanceLock::take(const std::string& path, AtEnd at_end) {
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), ignored);
  TL_ASSIGN(Fd file, lock(path));
  const std::string pid = std::to_string(::getpid()) + "\n";
  if (::ftruncate(file.get(), 0) < 0 || ::pwrite(file.get(), pid.data(), pid.size(), 0) < 0)
    return fail(Error::from_errno(errno, "write", path));
  held_.push_back({std::move(file), path, at_end});
  return {};
}

Result<std::string> node_lock_path() {
  struct stat space {};
  if (::stat("/proc/self/ns/net", &space) < 0)
    return fail(Error::from_errno(errno, "stat", "/proc/self/ns/net"));
  return "/run/tierlog/netns-" + std::to_string(space.st_ino) + ".lock";
}

}  // namespace tierlog::daemon
