#include "daemon/instance_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <filesystem>

namespace tierlog::daemon {

Result<void> InstanceLock::take(const std::string& path) {
  std::error_code ignored;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), ignored);
  Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0640));
  if (!file) return fail(Error::from_errno(errno, "open", path));
  if (::flock(file.get(), LOCK_EX | LOCK_NB) < 0) {
    std::array<char, 32> text{};
    const ssize_t got = ::pread(file.get(), text.data(), text.size() - 1, 0);
    const std::string pid(text.data(), got > 0 ? static_cast<std::size_t>(got) : 0);
    return fail(ErrorCode::Unavailable, "another tierlogd runs on this node (pid " +
                                            pid.substr(0, pid.find('\n')) + ", lock " + path + ")");
  }
  const std::string pid = std::to_string(::getpid()) + "\n";
  if (::ftruncate(file.get(), 0) < 0 || ::pwrite(file.get(), pid.data(), pid.size(), 0) < 0)
    return fail(Error::from_errno(errno, "write", path));
  held_.push_back(std::move(file));
  return {};
}

Result<std::string> node_lock_path() {
  struct stat space {};
  if (::stat("/proc/self/ns/net", &space) < 0)
    return fail(Error::from_errno(errno, "stat", "/proc/self/ns/net"));
  return "/run/tierlog/netns-" + std::to_string(space.st_ino) + ".lock";
}

}  // namespace tierlog::daemon
