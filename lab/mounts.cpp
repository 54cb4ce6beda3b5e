#include "lab/mounts.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <utility>

#include "base/handle.h"

namespace tierlog::lab {
namespace {

constexpr unsigned long kPlain = MS_NOSUID | MS_NODEV | MS_NOEXEC;

Result<void> mount_at(const char* type, const std::string& target, unsigned long flags,
                      const char* data = nullptr) {
  if (::mount(type, target.c_str(), type, flags, data) == 0) return {};
  return fail(Error::from_errno(errno, std::string("mount ") + type + " on", target));
}

Result<void> bind_mount(const std::string& source, const std::string& target) {
  if (::mount(source.c_str(), target.c_str(), nullptr, MS_BIND | MS_REC, nullptr) == 0) return {};
  return fail(Error::from_errno(errno, "bind " + source + " to", target));
}

std::string by_number(const Fd& file) {
  return "/proc/self/fd/" + std::to_string(file.get());
}

bool is_below(const std::string& path, const std::string& folder) {
  return path.starts_with(folder + "/");
}

// A thing that the new /run would hide, held open until it can be bound there again.
struct Kept {
  std::string path;
  Fd file;
};

Result<std::vector<Kept>> keep(const std::vector<std::string>& paths) {
  std::vector<Kept> kept;
  for (const auto& path : paths) {
    if (!is_below(path, "/run")) continue;
    Fd file(::open(path.c_str(), O_PATH | O_CLOEXEC));
    if (!file) return fail(Error::from_errno(errno, "open", path));
    kept.push_back({path, std::move(file)});
  }
  return kept;
}

Result<void> bring_back(const Kept& kept) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (fs::exists(kept.path, error)) return {};  // inside a folder that came back already
  if (fs::is_directory(by_number(kept.file), error)) {
    fs::create_directories(kept.path, error);
  } else {
    fs::create_directories(fs::path(kept.path).parent_path(), error);
    std::ofstream(kept.path).flush();
  }
  return bind_mount(by_number(kept.file), kept.path);
}

Result<void> mount_run(const MountPlan& plan) {
  std::vector<std::string> wanted{plan.folder};
  wanted.insert(wanted.end(), plan.visible.begin(), plan.visible.end());
  TL_ASSIGN(const auto kept, keep(wanted));
  TL_TRY(mount_at("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755"));
  for (const auto& one : kept) TL_TRY(bring_back(one));
  std::error_code error;
  for (const char* folder : {"/run/netns", "/run/tierlog", "/run/lock"}) {
    std::filesystem::create_directories(folder, error);
  }
  std::filesystem::create_symlink(plan.socket, "/run/tierlog/tierlogd.sock", error);
  return {};
}

Result<void> mount_sys() {
  const Fd cgroups(::open("/sys/fs/cgroup", O_PATH | O_CLOEXEC));
  TL_TRY(mount_at("sysfs", "/sys", kPlain));
  // A machine without control groups or BPF has no such folders; nothing below needs them then.
  if (cgroups) static_cast<void>(bind_mount(by_number(cgroups), "/sys/fs/cgroup"));
  std::error_code absent;
  if (!std::filesystem::exists("/sys/fs/bpf", absent)) return {};
  return mount_at("bpf", "/sys/fs/bpf", kPlain, "mode=700");
}

}  // namespace

Result<void> mount_lab(const MountPlan& plan) {
  if (::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return fail(Error::from_errno(errno, "make all mounts private"));
  }
  TL_TRY(mount_at("proc", "/proc", kPlain));
  TL_TRY(mount_run(plan));
  TL_TRY(mount_sys());
  std::error_code absent;
  if (!std::filesystem::exists("/etc/hosts", absent)) return {};
  return bind_mount(plan.hosts_file, "/etc/hosts");
}

Result<void> mount_node(const std::string& socket) {
  if (::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return fail(Error::from_errno(errno, "make all mounts private"));
  }
  std::error_code error;
  for (const char* folder : {"/run/netns", "/run/tierlog", "/run/lock", "/run/cni"}) {
    std::filesystem::create_directories(folder, error);
    TL_TRY(mount_at("tmpfs", folder, MS_NOSUID | MS_NODEV, "mode=755"));
  }
  std::filesystem::create_symlink(socket, "/run/tierlog/tierlogd.sock", error);
  return mount_sys();
}

}  // namespace tierlog::lab
