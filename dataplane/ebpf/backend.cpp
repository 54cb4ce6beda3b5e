#include "dataplane/ebpf/backend.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <net/if.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "dataplane/ebpf/events.h"
#include "dataplane/ebpf/remove.h"

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
  if (options.spares_midstream && !backend->adopted()) config.flows_missed_at = monotonic_now();
  config.flags = options.host_to_pod_by_policy ? TL_HOST_BY_POLICY : 0;
  const auto first = static_cast<std::uint32_t>(::time(nullptr)) << 8 | 1;
  backend->installed_ = std::make_unique<Installed>(backend->programs_->segments(), first);
  backend->services_ = std::make_unique<Services>(backend->programs_->services());
  TL_TRY(backend->adopt_slots());
  TL_ASSIGN(const auto filters, filters_of_ours());
  for (const OurFilter& filter : filters) backend->found_interfaces_.insert(filter.interface);
  return backend;
}

Result<void> EbpfBackend::adopt_slots() {
  if (!adopted()) return {};
  for (std::uint32_t slot = TL_FIRST_SLOT;; ++slot) {
    std::uint32_t rule = 0;
    if (::bpf_map_lookup_elem(programs_->slots(), &slot, &rule) != 0 || rule == 0) break;
    slots_[RuleId{rule}] = slot;
    next_slot_ = slot + 1;
    highest_found_ = std::max(highest_found_, RuleId{rule});
  }
  return {};
}

Result<std::uint32_t> EbpfBackend::slot_of(RuleId id) {
  if (number(id) < kFirstPolicyRuleId) return number(id);
  if (const auto known = slots_.find(id); known != slots_.end()) return known->second;
  const std::uint32_t rule = number(id);
  std::uint32_t slot = next_slot_;
  if (next_slot_ == TL_SLOTS) {
    TL_ASSIGN(slot, free_slot());
  }
  if (::bpf_map_update_elem(programs_->slots(), &slot, &rule, BPF_ANY) != 0)
    return fail(Error::from_errno(errno, "write BPF map", "slots"));
  next_slot_ = std::max(next_slot_, slot + 1);
  slots_[id] = slot;
  return slot;
}

// The slot of a rule that neither the Program in force nor the coming one has. What it counted was read by then.
Result<std::uint32_t> EbpfBackend::free_slot() {
  if (!free_slots_) {
    free_slots_.emplace();
    for (const auto& known : slots_)
      if (!coming_->by_id.contains(known.first) && (!program_ || !program_->by_id.contains(known.first)))
        free_slots_->push_back(known);
  }
  if (free_slots_->empty())
    return fail(ErrorCode::InvalidArgument, "the policies have more than " + std::to_string(TL_SLOTS - TL_FIRST_SLOT) +
                                                " rules, the limit of one node");
  const auto [rule, slot] = free_slots_->back();
  free_slots_->pop_back();
  const std::vector<tl_counter> zeros(static_cast<std::size_t>(::libbpf_num_possible_cpus()));
  if (::bpf_map_update_elem(programs_->counters(), &slot, zeros.data(), BPF_ANY) != 0)
    return fail(Error::from_errno(errno, "write BPF map", "counters"));
  slots_.erase(rule);
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

Result<void> EbpfBackend::attach(const std::vector<Attached>& ends, const Program& program) {
  const auto is_new = [&](const Attached& end) {
    const auto known = attached_.find(end.ifindex);
    return known == attached_.end() || known->second != (end.endpoint != policy::kNone);
  };
  // What leaves pods first: a packet that meets only the program at its destination is nobody's, and denied.
  for (const Hook hook : {Hook::Out, Hook::In})
    for (const Attached& end : ends) {
      const bool both = end.endpoint != policy::kNone;
      if (!is_new(end) || (hook == Hook::In && !both)) continue;
      auto attached = programs_->attach(static_cast<int>(end.ifindex), hook);
      if (attached || attached.error().code == ErrorCode::NotFound) continue;
      const auto* enforced = both ? &program.endpoints[end.endpoint] : nullptr;
      return fail(attached.error().in(enforced == nullptr
                                          ? "closed interface"
                                          : program.cluster->endpoints[enforced->endpoint].display()));
    }
  for (const Attached& end : ends) attached_[end.ifindex] = end.endpoint != policy::kNone;
  return {};
}

// Of interfaces that are no endpoint's any more.
void EbpfBackend::detach_others(const std::vector<Attached>& ends) {
  std::set<std::uint32_t> wanted;
  for (const Attached& end : ends) wanted.insert(end.ifindex);
  for (auto known = attached_.begin(); known != attached_.end();) {
    if (wanted.contains(known->first)) {
      ++known;
      continue;
    }
    for (const Hook hook : {Hook::In, Hook::Out})
      static_cast<void>(Programs::detach(static_cast<int>(known->first), hook));
    known = attached_.erase(known);
  }
}

Result<void> EbpfBackend::apply(std::shared_ptr<const Program> program) {
  if (!program->hosts.empty())
    return fail(ErrorCode::InvalidArgument,
                "apply eBPF: " + program->cluster->host_endpoints[program->hosts.front().endpoint].display() +
                    ": host endpoints are enforced by the nftables data plane only");
  installed_->forget_older(Steady::now() - kGrace);
  TL_ASSIGN(const auto ends, interfaces_of(*program));
  coming_ = program.get();
  free_slots_.reset();
  auto root = installed_->prepare(*program, ends, [this](RuleId id) { return slot_of(id); });
  coming_ = nullptr;
  if (!root) return fail(root.error().in("apply eBPF"));
  const auto flip = [&] { __atomic_store_n(&programs_->config().root, *root, __ATOMIC_RELEASE); };
  // The first time, nothing reads this root but what is attached now; afterwards a new interface is closed until
  // its Program is in force.
  const std::uint32_t before = programs_->config().root;
  if (before == 0) flip();
  if (auto attached = attach(ends, *program); !attached) {
    if (before != 0) installed_->abandon();
    return fail(attached.error().in("apply eBPF"));
  }
  flip();
  installed_->commit(Steady::now());
  program_ = std::move(program);
  detach_others(ends);
  return {};
}

Result<void> EbpfBackend::sweep_when_due() {
  const auto now = Steady::now();
  installed_->forget_older(now - kGrace);
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
  for (const KnownFlow& entry : known) {
    if (!is_over(entry.flow.last, lifetime_of(entry.key, entry.flow))) continue;
    // It may have woken up since the map was read.
    KnownFlow last = entry;
    if (::bpf_map_lookup_elem(programs_->flows(), &last.key, &last.flow) != 0 || last.flow.last != entry.flow.last)
      continue;
    if (::bpf_map_delete_elem(programs_->flows(), &last.key) == 0 && last.flow.told != 0) ended_.push_back(last);
  }
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

std::vector<std::string> EbpfBackend::warnings() const {
  std::vector<std::string> found;
  for (const auto& [ifindex, both] : attached_)
    for (const Hook hook : {Hook::Out, Hook::In}) {
      const std::uint32_t others = Programs::in_front(static_cast<int>(ifindex), hook);
      char name[IF_NAMESIZE] = "";
      if (others == 0 || ::if_indextoname(ifindex, name) == nullptr) continue;
      found.push_back(std::string(name) + (hook == Hook::Out ? " ingress" : " egress") + ": " +
                      std::to_string(others) +
                      " tcx programs of others run before ours; what they let pass by TCX_PASS is not judged");
    }
  return found;
}

Result<void> EbpfBackend::remove_all() {
  // As they came, backwards (attach()).
  for (const Hook hook : {Hook::In, Hook::Out})
    for (const auto& [ifindex, both] : attached_)
      static_cast<void>(Programs::detach(static_cast<int>(ifindex), hook));
  attached_.clear();
  if (options_.pins.empty()) return {};
  for (const char* name : {"flows", "denied", "counters", "slots", "losses", "events"})
    ::unlink((options_.pins + "/" + name).c_str());
  ::rmdir(options_.pins.c_str());
  return {};
}

}  // namespace tierlog::dataplane::ebpf
