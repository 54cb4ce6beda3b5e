#include "dataplane/ebpf/backend.h"

#include <bpf/bpf.h>
#include <net/if.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <thread>
#include <utility>

#include "dataplane/ebpf/events.h"

namespace tierlog::dataplane::ebpf {
namespace {

using policy::Program;
using Steady = std::chrono::steady_clock;

// No packet is on its way through a program that long.
constexpr std::chrono::milliseconds kGrace{100};
constexpr std::chrono::seconds kExpireEvery{5};
constexpr std::uint32_t kBatch = 4096;

// Connections without packets are forgotten, by protocol and what was seen of them.
constexpr std::chrono::seconds kTcpOpen{432'000}, kTcpHalf{120}, kTcpClosing{120}, kTcpReset{10};
constexpr std::chrono::seconds kAnswered{120}, kUnanswered{30};

template <typename Key, typename Value, typename Each>
Result<void> dump(int map, const std::string& name, const Each& each) {
  std::vector<Key> keys(kBatch);
  std::vector<Value> values(kBatch);
  std::uint32_t cursor = 0;
  bool first = true, more = true;
  while (more) {
    std::uint32_t count = kBatch;
    LIBBPF_OPTS(bpf_map_batch_opts, options);
    const int failed = ::bpf_map_lookup_batch(map, first ? nullptr : &cursor, &cursor, keys.data(),
                                              values.data(), &count, &options);
    first = false;
    more = failed == 0;
    if (failed != 0 && errno != ENOENT) return fail(Error::from_errno(errno, "read BPF map", name));
    for (std::uint32_t i = 0; i < count; ++i) each(keys[i], values[i]);
  }
  return {};
}

std::uint64_t monotonic_now() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(time.tv_nsec);
}

std::chrono::seconds lifetime_of(const tl_flow_key& key, const tl_flow& flow) {
  constexpr std::uint8_t kFin = 1, kReset = 4;
  const bool answered = flow.packets[1] > 0;
  if (key.protocol != protocol::kTcp) return answered ? kAnswered : kUnanswered;
  if (((flow.tcp[0] | flow.tcp[1]) & kReset) != 0) return kTcpReset;
  if ((flow.tcp[0] & flow.tcp[1] & kFin) != 0) return kTcpClosing;
  return answered ? kTcpOpen : kTcpHalf;
}

}  // namespace

Result<std::unique_ptr<EbpfBackend>> EbpfBackend::open(const EbpfOptions& options) {
  std::unique_ptr<EbpfBackend> backend(new EbpfBackend(options));
  TL_ASSIGN(backend->programs_, Programs::load(options.pins, options.sizes));
  tl_config& config = backend->programs_->config();
  config.deny_interval = static_cast<std::uint64_t>(Nanoseconds(options.deny_interval).count());
  config.log_interval = static_cast<std::uint64_t>(Nanoseconds(options.log_interval).count());
  // What living connections remember of generations is of processes before this one: begin far from there.
  const auto first = static_cast<std::uint32_t>(::time(nullptr)) << 8 | 1;
  backend->installed_ = std::make_unique<Installed>(backend->programs_->segments(), first);
  TL_TRY(backend->adopt_slots());
  return backend;
}

Result<void> EbpfBackend::adopt_slots() {
  if (!adopted()) return {};
  for (std::uint32_t slot = TL_FIRST_SLOT;; ++slot) {
    std::uint32_t rule = 0;
    if (::bpf_map_lookup_elem(programs_->slots(), &slot, &rule) != 0 || rule == 0) break;
    slots_[RuleId{rule}] = slot;
    next_slot_ = slot + 1;
  }
  return {};
}

Result<std::uint32_t> EbpfBackend::slot_of(RuleId id) {
  if (number(id) < kFirstPolicyRuleId) return number(id);
  if (const auto known = slots_.find(id); known != slots_.end()) return known->second;
  const std::uint32_t slot = next_slot_, rule = number(id);
  if (::bpf_map_update_elem(programs_->slots(), &slot, &rule, BPF_ANY) != 0) {
    if (errno == E2BIG)
      return fail(ErrorCode::InvalidArgument, "more than " + std::to_string(slot - TL_FIRST_SLOT) +
                                                  " rules have counted on this node, the limit");
    return fail(Error::from_errno(errno, "write BPF map", "slots"));
  }
  ++next_slot_;
  slots_[id] = slot;
  return slot;
}

Result<std::vector<Attached>> EbpfBackend::interfaces_of(const Program& program) const {
  std::vector<Attached> ends;
  std::set<std::uint32_t> taken;
  const auto add = [&](std::uint32_t endpoint, const std::string& interface) {
    // An interface that is gone takes its filters with it.
    const std::uint32_t index = interface.empty() ? 0 : ::if_nametoindex(interface.c_str());
    if (index != 0 && taken.insert(index).second) ends.push_back({endpoint, index});
  };
  for (std::uint32_t i = 0; i < program.endpoints.size(); ++i)
    add(i, program.cluster->endpoints[program.endpoints[i].endpoint].interface);
  for (const std::string& interface : program.closed_interfaces) add(policy::kNone, interface);
  return ends;
}

Result<void> EbpfBackend::attach(const std::vector<Attached>& ends) {
  std::map<std::uint32_t, bool> wanted;
  for (const Attached& end : ends) {
    const bool both = end.endpoint != policy::kNone;
    wanted[end.ifindex] = both;
    const auto known = attached_.find(end.ifindex);
    if (known != attached_.end() && known->second == both) continue;
    for (const Hook hook : {Hook::In, Hook::Out}) {
      if (hook == Hook::In && !both) continue;
      auto attached = programs_->attach(static_cast<int>(end.ifindex), hook);
      if (attached || attached.error().code == ErrorCode::NotFound) continue;
      const auto* enforced = both ? &program_->endpoints[end.endpoint] : nullptr;
      return fail(attached.error().in(enforced == nullptr
                                          ? "closed interface"
                                          : program_->cluster->endpoints[enforced->endpoint].display()));
    }
    attached_[end.ifindex] = both;
  }
  for (auto known = attached_.begin(); known != attached_.end();) {
    if (wanted.contains(known->first)) {
      ++known;
      continue;
    }
    for (const Hook hook : {Hook::In, Hook::Out})
      static_cast<void>(Programs::detach(static_cast<int>(known->first), hook));
    known = attached_.erase(known);
  }
  return {};
}

Result<void> EbpfBackend::apply(std::shared_ptr<const Program> program) {
  if (!program->hosts.empty())
    return fail(ErrorCode::InvalidArgument,
                "apply eBPF: " + program->cluster->host_endpoints[program->hosts.front().endpoint].display() +
                    ": host endpoints are enforced by the nftables data plane only");
  if (has_older_) {
    std::this_thread::sleep_until(sweep_at_);
    TL_TRY(sweep_when_due());
  }
  TL_ASSIGN(const auto ends, interfaces_of(*program));
  auto root = installed_->prepare(*program, ends, [this](RuleId id) { return slot_of(id); });
  if (!root) return fail(root.error().in("apply eBPF"));
  program_ = std::move(program);
  __atomic_store_n(&programs_->config().root, *root, __ATOMIC_RELEASE);
  has_older_ = true;
  sweep_at_ = Steady::now() + kGrace;
  return attach(ends);
}

Result<void> EbpfBackend::sweep_when_due() {
  const auto now = Steady::now();
  if (has_older_ && now >= sweep_at_) {
    has_older_ = false;
    installed_->forget_older();
  }
  if (now < expire_at_) return {};
  expire_at_ = now + kExpireEvery;
  return expire();
}

Result<std::vector<RuleCounter>> EbpfBackend::read_counters() {
  std::vector<RuleCounter> counters;
  const auto add = [&](RuleId id, std::uint32_t slot) -> Result<void> {
    TL_ASSIGN(const auto sums, sum_of_cpus(programs_->counters(), slot, sizeof(tl_counter) / 8));
    counters.push_back({id, sums[0], sums[1], sums[2], sums[3]});
    return {};
  };
  for (const ReservedRule& reserved_rule : reserved_rules())
    TL_TRY(add(reserved_rule.id, number(reserved_rule.id)));
  for (const auto& [id, slot] : slots_) TL_TRY(add(id, slot));
  return counters;
}

Result<std::vector<DeniedCount>> EbpfBackend::read_denied() {
  std::vector<DeniedCount> counts;
  const std::uint64_t now = monotonic_now();
  TL_TRY((dump<tl_denied_key, tl_denied>(
      programs_->denied(), "denied", [&](const tl_denied_key& key, const tl_denied& value) {
        if (key.kind != TL_ENTRY_DENIED) return;
        counts.push_back(
            {RuleId{key.rule}, address_of(key.source, key.family), address_of(key.destination, key.family),
             key.protocol, key.port, value.packets, value.bytes,
             Nanoseconds(static_cast<std::int64_t>(now - std::min(now, std::uint64_t{value.last})))});
      })));
  return counts;
}

Nanoseconds EbpfBackend::denied_lifetime() const {
  // An entry must outlive several readings, or counts would vanish unread.
  return std::max(std::chrono::seconds(60), 6 * std::max(options_.deny_interval, options_.log_interval));
}

Result<std::uint64_t> EbpfBackend::read_overflow() {
  TL_ASSIGN(const auto lost, sum_of_cpus(programs_->losses(), TL_LOSS_DENIED_FULL, 1));
  return lost.front();
}

Result<std::vector<KnownFlow>> EbpfBackend::read_flows() const {
  std::vector<KnownFlow> found;
  TL_TRY((dump<tl_flow_key, tl_flow>(programs_->flows(), "flows",
                                     [&](const tl_flow_key& key, const tl_flow& flow) {
                                       found.push_back({key, flow});
                                     })));
  return found;
}

Result<std::uint64_t> EbpfBackend::read_flows_refused() const {
  TL_ASSIGN(const auto lost, sum_of_cpus(programs_->losses(), TL_LOSS_FLOW_FULL, 1));
  return lost.front();
}

Result<void> EbpfBackend::forget_flows() {
  TL_ASSIGN(const auto known, read_flows());
  for (const KnownFlow& entry : known)
    static_cast<void>(::bpf_map_delete_elem(programs_->flows(), &entry.key));
  return {};
}

Result<void> EbpfBackend::expire() {
  const std::uint64_t now = monotonic_now();
  const auto is_over = [&](std::uint64_t last, Nanoseconds lifetime) {
    return now > last && now - last > static_cast<std::uint64_t>(lifetime.count());
  };
  std::vector<tl_denied_key> silent;
  TL_TRY((dump<tl_denied_key, tl_denied>(programs_->denied(), "denied",
                                         [&](const tl_denied_key& key, const tl_denied& value) {
                                           if (is_over(value.last, denied_lifetime())) silent.push_back(key);
                                         })));
  for (const tl_denied_key& key : silent) static_cast<void>(::bpf_map_delete_elem(programs_->denied(), &key));
  TL_ASSIGN(const auto known, read_flows());
  for (const KnownFlow& entry : known)
    if (is_over(entry.flow.last, lifetime_of(entry.key, entry.flow)) &&
        ::bpf_map_delete_elem(programs_->flows(), &entry.key) == 0 && entry.flow.told != 0)
      ended_.push_back(entry);
  return {};
}

Result<Repair> EbpfBackend::verify() {
  Repair repair;
  for (const auto& [ifindex, both] : attached_)
    for (const Hook hook : {Hook::In, Hook::Out}) {
      const int index = static_cast<int>(ifindex);
      if ((hook == Hook::In && !both) || programs_->is_attached(index, hook)) continue;
      auto attached = programs_->attach(index, hook);
      if (attached)
        ++repair.objects;
      else if (attached.error().code != ErrorCode::NotFound)
        return fail(attached.error());
    }
  return repair;
}

Result<void> EbpfBackend::remove_all() {
  for (const auto& [ifindex, both] : attached_)
    for (const Hook hook : {Hook::In, Hook::Out})
      static_cast<void>(Programs::detach(static_cast<int>(ifindex), hook));
  attached_.clear();
  if (options_.pins.empty()) return {};
  for (const char* name : {"flows", "denied", "counters", "slots", "losses", "events"})
    ::unlink((options_.pins + "/" + name).c_str());
  ::rmdir(options_.pins.c_str());
  return {};
}

}  // namespace tierlog::dataplane::ebpf
