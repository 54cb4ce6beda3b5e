#include "exporters/prometheus/node/events.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <set>
#include <unordered_map>

#include "base/handle.h"
#include "exporters/prometheus/node/kernel.h"
// after the types that it holds
#include "events.skel.h"

namespace tierlog::prometheus {
namespace {

using Skeleton = Owned<events_bpf, events_bpf__destroy>;
using Words = std::array<tl_u64, 2>;

// What the program writes while this reads: whole words, as they are.
tl_u64 read(const tl_u64& word) {
  return __atomic_load_n(&word, __ATOMIC_RELAXED);
}

Words words_of(const IpAddr& address) {
  std::array<tl_u8, 16> bytes{};
  if (address.family == Family::V6) {
    bytes = address.bytes;
  } else {
    bytes[10] = bytes[11] = 0xff;
    std::memcpy(bytes.data() + 12, address.bytes.data(), 4);
  }
  Words words;
  std::memcpy(words.data(), bytes.data(), 16);
  return words;
}

std::vector<std::string> reason_names() {
  std::vector<std::string> names;
  const Owned<btf, btf__free> kernel(btf__load_vmlinux_btf());
  if (!kernel) return names;
  const int id = btf__find_by_name_kind(kernel.get(), "skb_drop_reason", BTF_KIND_ENUM);
  if (id < 0) return names;
  const btf_type* type = btf__type_by_id(kernel.get(), static_cast<unsigned>(id));
  const struct btf_enum* values = btf_enum(type);
  for (unsigned i = 0; i < btf_vlen(type); ++i) {
    std::string name = btf__name_by_offset(kernel.get(), values[i].name_off);
    const auto value = static_cast<std::size_t>(values[i].val);
    if (value >= TL_REASONS) continue;
    for (const char* prefix : {"SKB_DROP_REASON_", "SKB_"})
      if (name.starts_with(prefix)) {
        name.erase(0, std::strlen(prefix));
        break;
      }
    if (names.size() <= value) names.resize(value + 1);
    names[value] = name;
  }
  return names;
}

int silent(libbpf_print_level, const char*, va_list) {
  return 0;
}

std::uint32_t own_netns() {
  struct stat status {};
  return ::stat("/proc/self/ns/net", &status) == 0 ? static_cast<std::uint32_t>(status.st_ino) : 0;
}

}  // namespace

struct KernelEvents::Impl {
  Skeleton skeleton;
  std::vector<std::string> reasons;
  bool drops = false;
  std::set<int> uplinks;
  std::vector<IpAddr> watched;

  tl_address* row(const IpAddr& address, bool make);
};

tl_address* KernelEvents::Impl::row(const IpAddr& address, bool make) {
  const Words words = words_of(address);
  const tl_u32 slot = tl_slot(reinterpret_cast<const tl_u8*>(words.data()));
  for (tl_u32 i = 0; i < TL_PROBES; ++i) {
    tl_address& one = skeleton->bss->addresses[(slot + i) % TL_ADDRESSES];
    if (one.used == 0) {
      if (!make) return nullptr;
      one.words[0] = words[0];
      one.words[1] = words[1];
      __atomic_store_n(&one.used, 1, __ATOMIC_RELEASE);
      return &one;
    }
    if (one.words[0] == words[0] && one.words[1] == words[1]) return &one;
  }
  return nullptr;
}

KernelEvents::KernelEvents(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
KernelEvents::~KernelEvents() = default;

Result<std::unique_ptr<KernelEvents>> KernelEvents::open() {
  const libbpf_print_fn_t before = libbpf_set_print(silent);
  auto impl = std::make_unique<Impl>();
  impl->reasons = reason_names();
  int code = 0;
  // A kernel that gives no reasons may have the rest.
  for (const bool with_drops : {true, false}) {
    if (with_drops && impl->reasons.empty()) continue;
    impl->skeleton.reset(events_bpf__open());
    if (!impl->skeleton) break;
    impl->skeleton->rodata->own_netns = own_netns();
    bpf_program__set_autoload(impl->skeleton->progs.on_drop, with_drops);
    code = events_bpf__load(impl->skeleton.get());
    if (code == 0) code = events_bpf__attach(impl->skeleton.get());
    impl->drops = with_drops;
    if (code == 0) break;
    impl->skeleton.reset();
  }
  libbpf_set_print(before);
  if (!impl->skeleton)
    return fail(Error::from_errno(code == 0 ? errno : -code, "load", "the BPF program of metrics"));
  return std::unique_ptr<KernelEvents>(new KernelEvents(std::move(impl)));
}

bool KernelEvents::has_drops() const {
  return impl_->drops;
}

std::vector<Drop> KernelEvents::drops() const {
  std::vector<Drop> found;
  for (std::size_t reason = 0; reason < TL_REASONS; ++reason) {
    std::string name = reason < impl_->reasons.size() ? impl_->reasons[reason] : "";
    if (reason == 0) name = "OF_SUBSYSTEM";
    if (name == "CONSUMED") continue;  // used up, not dropped
    const bool known = !name.empty();
    if (!known) name = "REASON_" + std::to_string(reason);
    for (std::size_t direction = 0; direction < TL_DIRECTIONS; ++direction) {
      const tl_amount& amount = impl_->skeleton->bss->drops[reason][direction];
      if (const tl_u64 packets = read(amount.packets); known || packets > 0)
        found.push_back({name, direction == 1, packets, read(amount.bytes)});
    }
  }
  return found;
}

std::array<std::uint64_t, 8> KernelEvents::flags() const {
  std::array<std::uint64_t, 8> counts{};
  for (std::size_t i = 0; i < counts.size(); ++i)
    counts[i] = __atomic_load_n(&impl_->skeleton->bss->flags[i], __ATOMIC_RELAXED);
  return counts;
}

void KernelEvents::set_uplinks(const std::vector<int>& indexes) {
  const std::set<int> wanted(indexes.begin(), indexes.end());
  for (const int gone : impl_->uplinks)
    if (!wanted.contains(gone)) impl_->skeleton->bss->uplink[gone] = 0;
  impl_->uplinks.clear();
  for (const int index : wanted) {
    if (index <= 0 || index >= TL_INTERFACES) continue;
    impl_->skeleton->bss->uplink[index] = 1;
    impl_->uplinks.insert(index);
  }
}

void KernelEvents::watch(const std::vector<IpAddr>& addresses) {
  if (addresses == impl_->watched) return;
  // The table has no way to take one out: it is filled anew, with the sums of those that stay.
  std::unordered_map<IpAddr, TcpOfAddress> sums;
  for (const IpAddr& address : addresses) sums[address] = of(address);
  for (tl_address& row : impl_->skeleton->bss->addresses) {
    __atomic_store_n(&row.used, 0, __ATOMIC_RELEASE);
    row = {};
  }
  for (const auto& [address, sum] : sums) {
    tl_address* row = impl_->row(address, true);
    if (row == nullptr) continue;
    __atomic_fetch_add(&row->retransmissions, sum.retransmissions, __ATOMIC_RELAXED);
    __atomic_fetch_add(&row->rtt_us, sum.rtt_us, __ATOMIC_RELAXED);
    __atomic_fetch_add(&row->rtt_samples, sum.rtt_samples, __ATOMIC_RELAXED);
  }
  impl_->watched = addresses;
}

TcpOfAddress KernelEvents::of(const IpAddr& address) const {
  const tl_address* row = impl_->row(address, false);
  if (row == nullptr) return {};
  return {read(row->retransmissions), read(row->rtt_us), read(row->rtt_samples)};
}

}  // namespace tierlog::prometheus
