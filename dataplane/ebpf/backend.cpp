#include "dataplane/ebpf/backend.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <net/if.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "dataplane/ebpf/connections.h"
#include "dataplane/ebpf/dump.h"
#include "dataplane/ebpf/events.h"
#include "dataplane/ebpf/remove.h"
#include "dataplane/ebpf/stations.h"

namespace tierlog::dataplane::ebpf {
namespace {

using policy::Program;
using Steady = std::chrono::steady_clock;

// No packet is on its way through a program that long.
constexpr std::chrono::milliseconds kGrace{100};
constexpr std::chrono::seconds kExpireEvery{5};
// For so long after a first start, packets in mid-stream may be of connections that are older (nanoseconds).
constexpr std::uint64_t kOlder = 300'000'000'000;
// As MISSED_FOR in flow.bpf.h; and how long filters may take to be replaced, with the connections that began meanwhile.
constexpr std::uint64_t kMissedFor = 300'000'000'000, kReplacing = 10'000'000'000;
// Senders that were silent for so long give their place back (nanoseconds).
constexpr std::uint64_t kOriginKept = 600'000'000'000;

// Connections without packets are forgotten, by protocol and what was seen of them.
constexpr std::chrono::seconds kTcpOpen{432'000}, kTcpUnanswered{120}, kTcpHalfOpen{60}, kTcpClosing{120}, kTcpReset{10};
constexpr std::chrono::seconds kAnswered{120}, kUnanswered{30};

std::uint64_t monotonic_now() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(time.tv_nsec);
}

std::chrono::seconds lifetime_of(const tl_flow_key& key, const tl_flow& flow) {
  if (key.protocol != protocol::kTcp) return is_answered(flow) ? kAnswered : kUnanswered;
  switch (tcp_state_of(flow)) {
    case TCP_CONNTRACK_CLOSE: return kTcpReset;
    case TCP_CONNTRACK_FIN_WAIT:
    case TCP_CONNTRACK_TIME_WAIT: return kTcpClosing;
    case TCP_CONNTRACK_SYN_SENT: return kTcpUnanswered;
    case TCP_CONNTRACK_SYN_RECV: return kTcpHalfOpen;
    default: return kTcpOpen;
  }
}

void add_changed_hands(const Program& from, const Program& to, std::unordered_set<IpAddr>& into) {
  const auto endpoint_in = [](const Program& program, std::uint32_t index) -> const policy::Endpoint& {
    return program.cluster->endpoints[program.endpoints[index].endpoint];
  };
  for (const auto& [address, index] : from.enforced_by_address) {
    const policy::Endpoint& before = endpoint_in(from, index);
    const auto found = to.enforced_by_address.find(address);
    const policy::Endpoint* now = found == to.enforced_by_address.end() ? nullptr : &endpoint_in(to, found->second);
    if (now == nullptr || now->name != before.name || now->endpoint_namespace != before.endpoint_namespace ||
        now->interface != before.interface)
      into.insert(address);
  }
}

// Addresses whose endpoint here is another one, or none, or was none.
std::unordered_set<IpAddr> changed_hands(const Program& before, const Program& now) {
  std::unordered_set<IpAddr> addresses;
  add_changed_hands(before, now, addresses);
  add_changed_hands(now, before, addresses);
  return addresses;
}

// A closed interface has only the filter of what comes out of it, and one that only notes senders that of what comes in.
bool stands_at(Station station, Hook hook) {
  return hook == Hook::Out || station == Station::Pod || station == Station::Host;
}
bool is_of_node(Station station) {
  return station == Station::Host || station == Station::Plain;
}

std::string display(const Program& program, const Attached& end) {
  if (end.station == Station::Pod)
    return program.cluster->endpoints[program.endpoints[end.endpoint].endpoint].display();
  if (end.station == Station::Host) return program.cluster->host_endpoints[program.hosts[end.endpoint].endpoint].display();
  return end.station == Station::Closed ? "closed interface" : "interface of the node";
}

}  // namespace

Whose EbpfBackend::whose(const Standing& standing) {
  if (!is_of_node(standing.station)) return Whose::Pod;
  return standing.is_raw ? Whose::NodeRaw : Whose::Node;
}

EbpfBackend::EbpfBackend(EbpfOptions options) : options_(std::move(options)) {}
EbpfBackend::~EbpfBackend() = default;

Result<std::unique_ptr<EbpfBackend>> EbpfBackend::open(const EbpfOptions& options) {
  std::unique_ptr<EbpfBackend> backend(new EbpfBackend(options));
  if (!options.pins.empty()) {
    TL_ASSIGN(backend->older_, OlderMaps::find(options.pins, options.limits));
  }
  TL_ASSIGN(backend->programs_, Programs::load(options.pins, options.limits));
  backend->adopted_ = backend->programs_->adopted();
  TL_TRY(backend->take_older_maps());
  tl_config& config = backend->programs_->config();
  config.deny_interval = static_cast<std::uint64_t>(Nanoseconds(options.deny_interval).count());
  config.log_interval = static_cast<std::uint64_t>(Nanoseconds(options.log_interval).count());
  // What living connections remember of generations is of processes before this one: begin far from there.
  if (options.spares_midstream && !backend->adopted()) config.older_until = monotonic_now() + kOlder;
  config.flags = (options.host_to_pod_by_policy ? TL_HOST_BY_POLICY : 0) | (options.audits ? TL_AUDITS : 0);
  const auto first = static_cast<std::uint32_t>(::time(nullptr)) << 8 | 1;
  backend->installed_ = std::make_unique<Installed>(backend->programs_->segments(), first, options.audits, options.limits);
  backend->interfaces_ = std::make_unique<Interfaces>();
  backend->services_ = std::make_unique<Services>(backend->programs_->services(), options.limits.services);
  TL_TRY(backend->adopt_slots());
  TL_ASSIGN(const auto filters, filters_of_ours());
  for (const OurFilter& filter : filters)
    if (!filter.of_node) backend->found_interfaces_.insert(filter.interface);
  return backend;
}

Result<void> EbpfBackend::adopt_slots() {
  before_.clear();
  for (std::uint32_t slot = 0;; ++slot) {
    tl_slot entry{};
    if (::bpf_map_lookup_elem(programs_->slots(), &slot, &entry) != 0) break;
    const auto& before = entry.before;
    if (before.packets + before.messages + before.frames > 0) before_[slot] = before;
    if (slot < TL_FIRST_SLOT) continue;
    if (entry.rule == 0) break;
    slots_[RuleId{entry.rule}] = slot;
    next_slot_ = slot + 1;
    highest_found_ = std::max(highest_found_, RuleId{entry.rule});
  }
  return {};
}

// Until each filter has been replaced, programs of before note what begins in their own maps: for so long, and a
// little longer, packets of connections that are not known here are judged both ways.
Result<void> EbpfBackend::take_older_maps() {
  if (!older_) return {};
  TL_TRY(older_->copy(*programs_, options_.limits));
  taken_over_ = older_->told();
  adopted_ = adopted_ || older_->has_flows();
  // Before the machine's sixth minute that is below zero; the programs' difference to it is right all the same.
  programs_->config().flows_missed_at = monotonic_now() - kMissedFor + kReplacing;
  return {};
}

Result<void> EbpfBackend::finish_older_maps(Steady::time_point now) {
  if (!older_ || !applied_ || now < *applied_ + kGrace) return {};
  // Once: what was added must not be added again.
  const std::unique_ptr<OlderMaps> older = std::move(older_);
  TL_TRY(older->finish(*programs_, options_.limits));
  return adopt_slots();
}

Result<std::uint32_t> EbpfBackend::slot_of(RuleId id) {
  if (number(id) < kFirstPolicyRuleId) return number(id);
  if (const auto known = slots_.find(id); known != slots_.end()) return known->second;
  const tl_slot entry{number(id), 0, {}};
  std::uint32_t slot = next_slot_;
  if (next_slot_ == options_.limits.slots()) {
    TL_ASSIGN(slot, free_slot());
  }
  before_.erase(slot);
  if (::bpf_map_update_elem(programs_->slots(), &slot, &entry, BPF_ANY) != 0)
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
    return fail(ErrorCode::InvalidArgument, "the rules that are in force and those that come have together no place to count in" +
                                                limit_text(&Limits::rules, options_.limits));
  const auto [rule, slot] = free_slots_->back();
  free_slots_->pop_back();
  const std::vector<tl_counter> zeros(static_cast<std::size_t>(::libbpf_num_possible_cpus()));
  if (::bpf_map_update_elem(programs_->counters(), &slot, zeros.data(), BPF_ANY) != 0)
    return fail(Error::from_errno(errno, "write BPF map", "counters"));
  slots_.erase(rule);
  if (limited_.erase(slot) != 0) static_cast<void>(::bpf_map_delete_elem(programs_->log_limits(), &slot));
  return slot;
}

Result<void> EbpfBackend::attach(const std::vector<Attached>& ends, const Program& program) {
  const auto is_new = [&](const Attached& end) {
    const auto known = attached_.find(end.ifindex);
    return known == attached_.end() || known->second != Standing{end.station, end.is_raw};
  };
  // What leaves pods first: a packet that meets only the program at its destination is nobody's, and denied.
  for (const Hook hook : {Hook::Out, Hook::In})
    for (const Attached& end : ends) {
      if (!is_new(end) || !stands_at(end.station, hook)) continue;
      auto attached = programs_->attach(static_cast<int>(end.ifindex), hook, whose({end.station, end.is_raw}));
      if (attached || attached.error().code == ErrorCode::NotFound) continue;
      return fail(attached.error().in(display(program, end)));
    }
  for (const Attached& end : ends) {
    if (!is_new(end)) continue;
    // A pod's interface was the node's until the pod was known, perhaps to an earlier daemon: what such a filter
    // notes, and in which maps, is nothing for those behind it.
    for (const Hook hook : {Hook::In, Hook::Out})
      for (const bool of_node : {false, true})
        if (of_node != is_of_node(end.station) || !stands_at(end.station, hook))
          static_cast<void>(Programs::detach(static_cast<int>(end.ifindex), hook, of_node));
    attached_[end.ifindex] = {end.station, end.is_raw};
  }
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
  installed_->forget_older(Steady::now() - kGrace);
  auto stations = stations_of(*program, carries_, *interfaces_);
  if (!stations) return fail(stations.error().in("apply eBPF"));
  const std::vector<Attached>& ends = *stations;
  coming_ = program.get();
  free_slots_.reset();
  auto root = installed_->prepare(*program, ends, [this](RuleId id) { return slot_of(id); });
  coming_ = nullptr;
  if (!root) return fail(root.error().in("apply eBPF"));
  if (auto limited = limit_logs(*program); !limited) {
    installed_->abandon();
    return fail(limited.error().in("apply eBPF"));
  }
  // Connections through an interface that was nobody's are older than its policies.
  for (const Attached& end : ends)
    if (end.station == Station::Host && !attached_.contains(end.ifindex) && options_.spares_midstream)
      programs_->config().older_until = monotonic_now() + kOlder;
  // The first time, nothing reads this root but what is attached now; afterwards a new interface is closed until
  // its Program is in force.
  const std::uint32_t before = programs_->config().root;
  if (before == 0) {
    TL_TRY(take_older(*program));
    installed_->flip(programs_->config().root);
  }
  if (auto attached = attach(ends, *program); !attached) {
    if (before != 0) installed_->abandon();
    return fail(attached.error().in("apply eBPF"));
  }
  installed_->flip(programs_->config().root);
  installed_->commit(Steady::now());
  if (!applied_) applied_ = Steady::now();
  const auto replaced = std::exchange(program_, std::move(program));
  detach_others(ends);
  if (replaced) end_flows_of(changed_hands(*replaced, *program_));
  return {};
}

// Nobody speaks with such an address now: its pod is gone, or has not begun. What its peers still send is judged as the
// beginning of something new.
void EbpfBackend::end_flows_of(const std::unordered_set<IpAddr>& addresses) {
  if (addresses.empty()) return;
  const auto known = read_flows();
  if (!known) return;
  for (const KnownFlow& entry : *known) {
    const auto& [key, flow] = entry;
    for (const auto* address : {&key.low, &key.high, &flow.real_source, &flow.backend})
      if (addresses.contains(address_of(*address, key.family))) {
        end_flow(key);
        break;
      }
  }
}

void EbpfBackend::end_flow(const tl_flow_key& key) {
  KnownFlow last{key, {}};
  if (::bpf_map_lookup_elem(programs_->flows(), &last.key, &last.flow) != 0) return;
  if (::bpf_map_delete_elem(programs_->flows(), &last.key) == 0 && last.flow.told != 0) ended_.push_back(last);
}

// As many at once as the rate has in its time, then one after the other.
Result<void> EbpfBackend::limit_logs(const Program& program) {
  for (const policy::ProgramRule& rule : program.rules) {
    const auto slot = slots_.find(rule.id);
    if (rule.action != policy::Action::Log || slot == slots_.end()) continue;
    const policy::LogRate rate = rule.log_rate.value_or(options_.log_rate);
    const auto known = limited_.find(slot->second);
    if (known != limited_.end() && known->second == rate) continue;
    const std::uint64_t messages = std::max<std::uint32_t>(rate.messages, 1);
    tl_log_limit limit{};
    limit.cost = rate.seconds * 1'000'000'000ull / messages;
    limit.depth = limit.cost * (messages - 1);
    if (::bpf_map_update_elem(programs_->log_limits(), &slot->second, &limit, BPF_ANY) != 0)
      return fail(Error::from_errno(errno, "write BPF map", "log_limits"));
    limited_[slot->second] = rate;
  }
  return {};
}

Result<void> EbpfBackend::set_services(const std::vector<ServiceTarget>& targets) {
  TL_TRY(services_->set(targets));
  const bool carries =
      std::any_of(targets.begin(), targets.end(), [](const ServiceTarget& one) { return !one.backends.empty(); });
  if (std::exchange(carries_, carries) == carries || !program_) return {};
  return apply(program_);
}

// A first start: those that policies are about go on, judged by the rules at their next packet.
Result<void> EbpfBackend::take_older(const Program& program) {
  if (!options_.older || adopted()) return {};
  TL_ASSIGN(const auto connections, options_.older());
  const auto is_here = [&](const IpAddr& address) { return program.enforced(address) != nullptr; };
  for (const Connection& connection : connections)
    for (const KnownFlow& entry : flows_of(connection, is_here, monotonic_now()))
      static_cast<void>(::bpf_map_update_elem(programs_->flows(), &entry.key, &entry.flow, BPF_NOEXIST));
  return {};
}

Result<void> EbpfBackend::sweep_when_due() {
  const auto now = Steady::now();
  installed_->forget_older(now - kGrace);
  TL_TRY(finish_older_maps(now));
  if (now < expire_at_) return {};
  expire_at_ = now + kExpireEvery;
  return expire();
}

Result<std::vector<RuleCounter>> EbpfBackend::read_counters() {
  std::vector<RuleCounter> counters;
  const auto add = [&](RuleId id, std::uint32_t slot) -> Result<void> {
    TL_ASSIGN(const auto sums, sum_of_cpus(programs_->counters(), slot, sizeof(tl_counter) / 8));
    const auto known = before_.find(slot);
    const tl_counter before = known == before_.end() ? tl_counter{} : known->second;
    counters.push_back({id, sums[0] + before.packets, sums[1] + before.bytes, sums[2] + before.messages,
                        sums[3] + before.frames});
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
  TL_TRY((dump_map<tl_denied_key, tl_denied>(
      programs_->denied(), "denied", [&](const tl_denied_key& key, const tl_denied& value) {
        if (key.kind != TL_ENTRY_DENIED) return;
        counts.push_back(
            {RuleId{key.rule}, address_of(key.source, key.family), address_of(key.destination, key.family),
             key.protocol, key.port, value.packets, value.bytes,
             Nanoseconds(static_cast<std::int64_t>(now - std::min(now, std::uint64_t{value.last}))), key.alone != 0});
      })));
  return counts;
}

Nanoseconds EbpfBackend::denied_lifetime() const {
  // An entry must outlive several readings, or counts would vanish unread.
  return std::max(std::chrono::seconds(60), 6 * std::max(options_.deny_interval, options_.log_interval));
}

Result<std::uint64_t> EbpfBackend::read_overflow() {
  return lost(programs_->losses(), TL_LOSS_DENIED_FULL);
}

Result<std::vector<KnownFlow>> EbpfBackend::read_flows() const {
  std::vector<KnownFlow> found;
  TL_TRY((dump_map<tl_flow_key, tl_flow>(programs_->flows(), "flows",
                                     [&](const tl_flow_key& key, const tl_flow& flow) {
                                       found.push_back({key, flow});
                                     })));
  return found;
}

Result<std::uint64_t> EbpfBackend::read_flows_refused() const {
  return lost(programs_->losses(), TL_LOSS_FLOW_FULL);
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
  TL_TRY((dump_map<tl_denied_key, tl_denied>(programs_->denied(), "denied",
                                         [&](const tl_denied_key& key, const tl_denied& value) {
                                           if (is_over(value.last, denied_lifetime())) silent.push_back(key);
                                         })));
  expire_origins(now);
  for (const tl_denied_key& key : silent) static_cast<void>(::bpf_map_delete_elem(programs_->denied(), &key));
  TL_ASSIGN(const auto known, read_flows());
  for (const KnownFlow& entry : known) {
    if (!is_over(entry.flow.last, lifetime_of(entry.key, entry.flow))) continue;
    // It may have woken up since the map was read.
    KnownFlow last = entry;
    if (::bpf_map_lookup_elem(programs_->flows(), &last.key, &last.flow) != 0 || last.flow.last != entry.flow.last)
      continue;
    end_flow(entry.key);
  }
  return {};
}

void EbpfBackend::expire_origins(std::uint64_t now) {
  std::vector<std::uint32_t> silent;
  const auto read = dump_map<std::uint32_t, tl_origin_of>(
      programs_->origins(), "origins", [&](const std::uint32_t& slot, const tl_origin_of& origin) {
        if (now > origin.last && now - origin.last > kOriginKept) silent.push_back(slot);
      });
  if (!read) return;
  for (const std::uint32_t slot : silent) static_cast<void>(::bpf_map_delete_elem(programs_->origins(), &slot));
}

Result<Repair> EbpfBackend::verify() {
  Repair repair;
  if (program_ && (carries_ || !program_->hosts.empty())) {
    // Interfaces of the node come and go without a word.
    TL_ASSIGN(const auto ends, stations_of(*program_, carries_, *interfaces_));
    const bool same = std::all_of(ends.begin(), ends.end(), [&](const Attached& end) {
      const auto known = attached_.find(end.ifindex);
      return known != attached_.end() && known->second == Standing{end.station, end.is_raw};
    });
    if (!same) TL_TRY(apply(program_));
  }
  for (const auto& [ifindex, standing] : attached_)
    for (const Hook hook : {Hook::In, Hook::Out}) {
      const int index = static_cast<int>(ifindex);
      if (!stands_at(standing.station, hook) || programs_->is_attached(index, hook, whose(standing))) continue;
      auto attached = programs_->attach(index, hook, whose(standing));
      if (attached)
        ++repair.objects;
      else if (attached.error().code != ErrorCode::NotFound)
        return fail(attached.error());
    }
  return repair;
}

std::vector<std::string> EbpfBackend::warnings() const {
  std::vector<std::string> found;
  for (const auto& [ifindex, station] : attached_)
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
    for (const auto& [ifindex, station] : attached_)
      static_cast<void>(Programs::detach(static_cast<int>(ifindex), hook));
  attached_.clear();
  if (options_.pins.empty()) return {};
  for (const PinnedMap& pinned : pinned_maps(options_.limits)) ::unlink((options_.pins + "/" + pinned.name).c_str());
  ::rmdir(options_.pins.c_str());
  return {};
}

}  // namespace tierlog::dataplane::ebpf
