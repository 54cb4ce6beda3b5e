#include "dataplane/ebpf/remove.h"

#include <bpf/libbpf.h>
#include <linux/magic.h>
#include <net/if.h>
#include <sys/mount.h>
#include <sys/vfs.h>

#include <cerrno>
#include <filesystem>
#include <memory>


namespace tierlog::dataplane::ebpf {
namespace {

namespace fs = std::filesystem;
constexpr const char* kBpfFolder = "/sys/fs/bpf";
constexpr const char* kOurFolder = "/sys/fs/bpf/tierlog";

bool is_bpf_file_system() {
  struct statfs found {};
  return ::statfs(kBpfFolder, &found) == 0 && found.f_type == BPF_FS_MAGIC;
}

struct FreeNames {
  void operator()(struct if_nameindex* names) const { ::if_freenameindex(names); }
};

}  // namespace

Result<std::string> make_pin_folder() {
  if (!is_bpf_file_system() && ::mount("bpf", kBpfFolder, "bpf", 0, "mode=0700") != 0)
    return fail(Error::from_errno(errno, "mount a BPF file system at", kBpfFolder));
  std::string folder = std::string(kOurFolder) + "/v" + std::to_string(TL_LAYOUT);
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return fail(Error::from_errno(error.value(), "make folder", folder));
  return folder;
}

Result<std::vector<OurFilter>> filters_of_ours() {
  std::vector<OurFilter> found;
  const std::unique_ptr<struct if_nameindex, FreeNames> names(::if_nameindex());
  if (!names) return fail(Error::from_errno(errno, "list", "interfaces"));
  // In the order in which they may be taken away: what comes from a pod without its program is denied.
  for (const Hook hook : {Hook::In, Hook::Out})
    for (const struct if_nameindex* link = names.get(); link->if_index != 0; ++link)
      for (const bool of_node : {false, true})
        if (Programs::has_filter(static_cast<int>(link->if_index), hook, of_node))
          found.push_back({link->if_name, static_cast<int>(link->if_index), hook, of_node});
  return found;
}

Result<std::vector<std::string>> remove_programs() {
  std::vector<std::string> removed;
  TL_ASSIGN(const auto filters, filters_of_ours());
  for (const OurFilter& filter : filters)
    if (Programs::detach(filter.ifindex, filter.hook))
      removed.push_back("filter of " + filter.interface + (filter.hook == Hook::In ? " egress" : " ingress"));
  if (!is_bpf_file_system()) return removed;
  std::error_code error;
  if (fs::remove_all(kOurFolder, error) > 0 && !error) removed.push_back(kOurFolder);
  return removed;
}

}  // namespace tierlog::dataplane::ebpf
