#include "dataplane/nftables/backend.h"

#include <net/if.h>

#include <algorithm>
#include <cerrno>
#include <thread>
#include <utility>

#include "dataplane/nftables/build_host.h"
#include "dataplane/nftables/build_skeleton.h"
#include "dataplane/nftables/constants.h"
#include "dataplane/nftables/encode.h"
#include "dataplane/nftables/label_watch.h"
#include "dataplane/nftables/read_back.h"

namespace tierlog::dataplane::nftables {
namespace {

// Longer than an RCU grace period under load; 10 ms were enough in every trial.
constexpr std::chrono::milliseconds kGrace{50};
constexpr std::size_t kInet = 0;
constexpr std::size_t kNetdev = 1;
constexpr std::array<std::uint8_t, 2> kFamilies{NFPROTO_INET, NFPROTO_NETDEV};

std::set<RuleId> allow_ids(const policy::Program& program, const policy::EndpointClass& endpoint_class) {
  std::set<RuleId> ids;
  if (endpoint_class.fallback_action == policy::Action::Allow) ids.insert(endpoint_class.fallback);
  for (const policy::ClassTier& tier : endpoint_class.tiers)
    for (const std::uint32_t policy : tier.policies)
      for (const std::uint32_t rule : program.policies[policy].rules(endpoint_class.direction))
        if (program.rules[rule].action == policy::Action::Allow) ids.insert(program.rules[rule].id);
  return ids;
}

std::uint32_t id_of(const Bytes& label_word) {
  std::uint32_t value = 0;
  std::copy_n(label_word.begin(), std::min(label_word.size(), sizeof value),
              reinterpret_cast<std::uint8_t*>(&value));
  return value;
}

}  // namespace

Result<std::unique_ptr<NftablesBackend>> NftablesBackend::open(const TableOptions& options,
                                                               const Features& features) {
  TL_ASSIGN(auto socket, NetfilterSocket::open());
  std::unique_ptr<NftablesBackend> backend(new NftablesBackend(std::move(socket), options, features));
  auto made = backend->make_or_adopt();
  if (!made) return fail(made.error().in("nftables"));
  return backend;
}

Result<void> NftablesBackend::make_or_adopt() {
  TL_ASSIGN(const auto writers, read_foreign_label_writers(socket_));
  if (!writers.empty()) {
    std::string where;
    for (const std::string& writer : writers) where += (where.empty() ? "" : ", ") + writer;
    return fail(ErrorCode::Refused, "connection labels are written by others too (" + where +
                                        "); Tierlog keeps rule ids in them and cannot share them");
  }
  std::array<std::optional<std::string>, 2> layouts;
  for (const std::size_t table : {kInet, kNetdev}) {
    TL_ASSIGN(layouts[table], read_table_layout(socket_, kFamilies[table]));
    state_[table].family = kFamilies[table];
  }
  adopted_ = layouts[kInet].has_value();
  for (const auto& layout : layouts)
    if (layout && *layout != kLayout) older_layout_ = layout->empty() ? "unknown" : *layout;
  first_start_ = !adopted_;
  // One that died while it replaced an older layout: what it held back is let go by the first apply.
  TL_ASSIGN(const auto held, read_counter_objects(socket_, NFPROTO_INET, kHoldTable));
  holding_ = !held.empty();
  TL_TRY(take_tables());
  if (adopted_) TL_TRY(note_what_was_enforced());
  if (!older_layout_.empty()) return {};
  for (const std::size_t table : {kInet, kNetdev}) {
    TL_ASSIGN(state_[table], read_table(socket_, kFamilies[table]));
  }
  for (const auto& [name, elements] : state_[kInet].sets)
    if (const auto read = versioned_name(name)) {
      std::uint32_t& version = versions_[read->base];
      version = std::max(version, read->version);
    }
  found_audited_ = state_[kInet].chains.count("audit_forward") != 0;
  if (adopted_) adopt_living();
  return {};
}

// In every layout so far.
Result<void> NftablesBackend::note_what_was_enforced() {
  TL_ASSIGN(const auto counters, read_counter_objects(socket_, NFPROTO_INET, kTable));
  for (const NamedCounter& counter : counters)
    if (const auto id = counted_rule(counter.name)) highest_found_ = std::max(highest_found_, *id);
  // Guards are of the pods' own interfaces, never of a bridge that many share.
  TL_ASSIGN(const auto guards, read_chains(socket_, NFPROTO_NETDEV));
  struct if_nameindex* links = ::if_nameindex();
  if (links == nullptr) return fail(Error::from_errno(errno, "list", "interfaces"));
  for (const struct if_nameindex* link = links; link->if_index != 0; ++link)
    if (guards.count(guard_chain_name(link->if_name)) != 0) found_interfaces_.insert(link->if_name);
  ::if_freenameindex(links);
  return {};
}

// A daemon that died between a change and the judgement of living connections leaves both in the kernel:
// which are in doubt, and that some are cut. To drop either would open them.
void NftablesBackend::adopt_living() {
  for (const Element& element : state_[kInet].sets["revoked"]) revoked_.insert(RuleId{id_of(element.key)});
  for (const Chain& chain : build_skeleton(options_, {}).chains) {
    const auto known = state_[kInet].chains.find(chain.name);
    if (chain.hook && known != state_[kInet].chains.end() && known->second.content != content_of(chain)) cut_ = true;
  }
}

Result<void> NftablesBackend::take_tables() {
  const auto attempt = [&](std::uint32_t flags) {
    Batch batch;
    for (const std::uint8_t family : kFamilies) {
      batch.set_table(family);
      add_table(batch, flags);
    }
    return socket_.commit(batch);
  };
  if (features_.owner) {
    auto taken = attempt(kTableOwner | kTablePersist);
    if (taken) return {};
    // One that a living process owns is refused; one made without the flags cannot get them later; before
    // 6.9 an owned table would vanish with its owner and open the node, so it is not asked for alone.
    if (taken.error().errno_value == EPERM)
      return fail(taken.error().in("another process owns the table (a second daemon?)"));
  }
  owned_ = false;
  return attempt(0);
}

Switches NftablesBackend::switches() const {
  return {.spared = spared_,
          .judge_living = cut_ || !revoked_.empty(),
          .revoked = {revoked_.begin(), revoked_.end()}};
}

std::array<TableObjects, 2> NftablesBackend::objects_for(const policy::Program& program) {
  std::array<TableObjects, 2> objects{build_program(program, versions_, options_, switches(), &built_),
                                      build_guard(program, options_)};
  drop_vanished(objects[kNetdev]);
  return objects;
}

// A pod whose interface is gone (or was never on this host) has nothing to guard.
void NftablesBackend::drop_vanished(TableObjects& guard) const {
  std::erase_if(guard.chains, [&](const Chain& chain) {
    if (!chain.hook) return false;
    if (!features_.egress_hook && chain.hook->hook == NF_NETDEV_EGRESS) return true;
    return ::if_nametoindex(chain.hook->device.c_str()) == 0;
  });
}

// The kernel takes a guard chain away with its interface.
Result<void> NftablesBackend::sync_devices() {
  TL_ASSIGN(const auto chains, read_chains(socket_, NFPROTO_NETDEV));
  std::erase_if(state_[kNetdev].chains, [&](const auto& chain) { return chains.count(chain.first) == 0; });
  return {};
}

// Members change one by one only where no packet can tell: an endpoint that has just come, with all of
// its sets, or one that is gone from all. Anything else gets new sets, and with them new chains and a
// flip: docs/decisions/0010-content-addressed-chains.md.
bool NftablesBackend::choose_versions(const policy::Program& program, const TableObjects& objects) {
  const TableState& state = state_[kInet];
  const auto address_of = [](const std::string& set, const Bytes& key) {
    IpAddr address;
    address.family = set[1] == '4' ? Family::V4 : Family::V6;
    std::copy_n(key.begin(), address.size(), address.bytes.begin());
    return address;
  };
  const auto only_now = [&](const IpAddr& address) {
    return program_ && program.known(address) != nullptr && program_->known(address) == nullptr;
  };
  const auto only_before = [&](const IpAddr& address) {
    return program_ && program.known(address) == nullptr && program_->known(address) != nullptr;
  };
  bool any = false;
  for (const Set& set : objects.sets) {
    const auto name = versioned_name(set.name);
    const auto known = state.sets.find(set.name);
    if (!name || known == state.sets.end()) continue;
    if (known->second.shares(set.elements)) continue;
    const SetChange change = change_of(set.name, known->second, sorted(set.elements));
    if (change.gone.empty() && change.added.empty()) continue;
    // Nobody is in a group that has no cell yet, and nobody in one that needs none any more: plan() keeps
    // those cells until the sweep.
    const bool cells = set.name[0] == 'k';
    const auto stays = [](const std::vector<Element>& others, const Element& element) {
      return std::binary_search(others.begin(), others.end(), element, by_key);
    };
    const bool safe =
        !set.interval &&
        std::all_of(change.added.begin(), change.added.end(), [&](const Element& element) {
          return !stays(change.gone, element) && (cells || only_now(address_of(set.name, element.key)));
        }) &&
        std::all_of(change.gone.begin(), change.gone.end(), [&](const Element& element) {
          return !stays(change.added, element) && (cells || only_before(address_of(set.name, element.key)));
        });
    if (safe) continue;
    versions_[name->base] = name->version + 1;
    any = true;
  }
  return any;
}

Result<void> NftablesBackend::apply(std::shared_ptr<const policy::Program> program) {
  if (!older_layout_.empty()) TL_TRY(replace_layout(*program));
  if (leftover_) {
    // What waits to be swept waits for its own grace time, not for the end of all changes.
    std::this_thread::sleep_until(std::min(sweep_at_, std::chrono::steady_clock::now() + kGrace));
    TL_TRY(sweep());
  }
  TL_TRY(sync_devices());
  const SetVersions before = versions_;
  if (first_start_)
    for (const policy::ProgramEndpoint& endpoint : program->endpoints)
      spared_.insert(program->cluster->endpoints[endpoint.endpoint].display());
  auto objects = objects_for(*program);
  // A set's next version is another word for what looks it up, which may stand in sets itself.
  while (choose_versions(*program, objects[kInet])) objects = objects_for(*program);
  auto done = carry_out(std::move(objects), *program);
  if (!done && (done.error().errno_value == ENOENT || done.error().errno_value == ENODEV)) {
    // A pod's interface may go while its guard is made.
    TL_TRY(sync_devices());
    done = carry_out(objects_for(*program), *program);
  }
  if (!done) {
    versions_ = before;
    return done;
  }
  program_ = std::move(program);
  first_start_ = false;
  return holding_ ? release_hold() : Result<void>{};
}

Result<void> NftablesBackend::carry_out(std::array<TableObjects, 2> objects, const policy::Program& program) {
  const auto planned = [&] {
    return Change{plan(state_[kInet], objects[kInet]), plan(state_[kNetdev], objects[kNetdev])};
  };
  Change change = planned();
  changed_ = 0;
  for (const TableChange& table : change)
    changed_ += table.new_chains.size() + table.new_base_chains.size() + table.new_sets.size() +
                table.rewritten.size() + table.set_changes.size() + table.gone_chains.size() +
                table.gone_sets.size() + table.gone_base_chains.size();

  const auto revoked_before = revoked_;
  const auto allowed_by_before = allowed_by_;
  revoke(change, program);
  if (revoked_ != revoked_before) {
    // What is in doubt is known only now; it is part of the same flip.
    objects = objects_for(program);
    change = planned();
  }
  const auto as_before = [&] {
    revoked_ = revoked_before;
    allowed_by_ = allowed_by_before;
  };
  if (auto prepared = prepare(change); !prepared) {
    as_before();
    return fail(explain(prepared.error().in("nftables: prepare"), program));
  }

  Batch flip;
  for (const std::size_t table : {kInet, kNetdev}) put_flip(flip, state_[table], change[table]);
  if (auto flipped = socket_.commit(flip); !flipped) {
    // What was prepared is not reachable: take it out again, the old rules stay.
    as_before();
    Batch undo;
    for (const std::size_t table : {kInet, kNetdev}) put_undo(undo, state_[table], change[table]);
    if (socket_.commit(undo))
      for (const std::size_t table : {kInet, kNetdev}) did_undo(state_[table], change[table]);
    return fail(explain(flipped.error().in("nftables: flip"), program));
  }
  for (const std::size_t table : {kInet, kNetdev}) did_flip(state_[table], change[table]);
  needed_counters_ = {objects[kInet].counters.begin(), objects[kInet].counters.end()};
  if (changed_ == 0) return {};
  leftover_ = {leftover_of(std::move(change[kInet])), leftover_of(std::move(change[kNetdev]))};
  sweep_at_ = std::chrono::steady_clock::now() + kGrace;
  return {};
}

Result<void> NftablesBackend::prepare(const Change& change) {
  Batch batch;
  for (const std::size_t table : {kInet, kNetdev}) put_prepare(batch, state_[table], change[table], retired_);
  TL_TRY(socket_.commit(batch));
  for (const std::size_t table : {kInet, kNetdev}) did_prepare(state_[table], change[table]);
  return {};
}

// Ids by which a connection may have been allowed that might not be allowed, or not by that id, now: those
// of every class whose endpoint's chain changes. Too many cost a look-up, one too few a bypass.
void NftablesBackend::revoke(const Change& change, const policy::Program& program) {
  std::vector<AllowIds> by_class(program.classes.size());
  std::map<std::string, AllowIds> now;
  for (const policy::ProgramEndpoint& endpoint : program.endpoints) {
    const policy::Endpoint& known = program.cluster->endpoints[endpoint.endpoint];
    for (const Direction direction : {Direction::Ingress, Direction::Egress}) {
      AllowIds& ids = by_class[endpoint.class_of(direction)];
      if (!ids)
        ids = std::make_shared<const std::set<RuleId>>(
            allow_ids(program, program.classes[endpoint.class_of(direction)]));
      now[endpoint_chain_name(direction, known.display())] = ids;
    }
  }
  for (const policy::ProgramHost& host : program.hosts)
    for (const Direction direction : {Direction::Ingress, Direction::Egress}) {
      const std::string& shown = program.cluster->host_endpoints[host.endpoint].display();
      std::set<RuleId> ids = allow_ids(program, program.classes[host.class_of(direction, policy::Stage::Local)]);
      ids.insert(direction == Direction::Ingress ? reserved::kFailsafeIngress : reserved::kFailsafeEgress);
      now[host_chain_name(direction, shown)] = std::make_shared<const std::set<RuleId>>(std::move(ids));
    }
  if (!options_.audits())
    for (const Chain* chain : change[kInet].rewritten) {
      if (chain->name.rfind("ep", 0) != 0 && chain->name.rfind("hi_", 0) != 0 && chain->name.rfind("ho_", 0) != 0)
        continue;
      if (const auto before = allowed_by_.find(chain->name); before != allowed_by_.end()) {
        revoked_.insert(before->second->begin(), before->second->end());
      } else {
        // After a restart nobody knows what the class was: all that this table ever judged by.
        for (const std::string& counter : state_[kInet].counters)
          if (const auto id = counter_id(counter)) revoked_.insert(*id);
      }
    }
  allowed_by_ = std::move(now);
}

Result<void> NftablesBackend::reapply() {
  if (!program_) return {};
  if (leftover_) {
    std::this_thread::sleep_until(sweep_at_);
    TL_TRY(sweep());
  }
  TL_TRY(sync_devices());
  return carry_out(objects_for(*program_), *program_);
}

Result<void> NftablesBackend::settle(bool cut) {
  if (revoked_.empty() && cut == cut_) return {};
  const auto revoked = std::exchange(revoked_, {});
  const bool was_cut = std::exchange(cut_, cut);
  auto done = reapply();
  if (!done) {
    revoked_ = revoked;
    cut_ = was_cut;
  }
  return done;
}

Result<void> NftablesBackend::end_sparing() {
  if (spared_.empty()) return {};
  const auto spared = std::exchange(spared_, {});
  auto done = reapply();
  if (!done) spared_ = spared;
  return done;
}

Result<Repair> NftablesBackend::verify() {
  Repair repair;
  TL_TRY(sweep_when_due());
  if (!program_ || leftover_) return repair;
  for (const std::size_t table : {kInet, kNetdev}) {
    TL_ASSIGN(const auto layout, read_table_layout(socket_, kFamilies[table]));
    if (!layout) repair.rebuilt = true;
  }
  if (repair.rebuilt) TL_TRY(take_tables());
  for (const std::size_t table : {kInet, kNetdev}) {
    TL_ASSIGN(state_[table], read_table(socket_, kFamilies[table]));
  }
  TL_TRY(reapply());
  repair.objects = changed_;
  return repair;
}

Result<void> NftablesBackend::sweep_when_due() {
  if (!leftover_ || std::chrono::steady_clock::now() < sweep_at_) return {};
  return sweep();
}

// A failure leaves unreachable objects behind; they are tried again at the next sweep.
Result<void> NftablesBackend::sweep() {
  auto leftover = std::exchange(leftover_, std::nullopt);
  if (!leftover) return {};
  TL_TRY(sync_devices());
  Batch batch;
  const Change change{plan_sweep(state_[kInet], std::move((*leftover)[kInet])),
                      plan_sweep(state_[kNetdev], std::move((*leftover)[kNetdev]))};
  for (const std::size_t table : {kInet, kNetdev}) put_sweep(batch, state_[table], change[table]);
  batch.set_table(NFPROTO_INET);
  sweep_counters(batch);
  if (auto swept = socket_.commit(batch); !swept) return fail(swept.error().in("nftables: sweep"));
  for (const std::size_t table : {kInet, kNetdev}) did_sweep(state_[table], change[table]);
  std::erase_if(dead_counters_, [this](const auto& dead) {
    if (!dead.second) return false;
    state_[kInet].counters.erase(dead.first);
    retired_[dead.first] = *dead.second;
    return true;
  });
  return {};
}

// The counter of a rule that is gone goes one replacement later, after somebody read its last value.
void NftablesBackend::sweep_counters(Batch& batch) {
  for (const std::string& name : needed_counters_) dead_counters_.erase(name);
  for (const auto& [name, value] : dead_counters_)
    if (value) delete_counter(batch, name);
  for (const std::string& name : state_[kInet].counters) {
    const auto id = counted_rule(name);
    if (id && find_reserved(*id) == nullptr && needed_counters_.count(name) == 0)
      dead_counters_.try_emplace(name, std::nullopt);
  }
}

// Tables of another layout cannot be changed into ours object by object, and replacing them in one
// transaction lets packets in flight through. So what opens a connection waits behind a table of its own.
Result<void> NftablesBackend::replace_layout(const policy::Program& program) {
  TL_ASSIGN(const auto counters, read_counter_objects(socket_));
  Batch hold;
  hold.set_table(NFPROTO_INET, kHoldTable);
  add_table(hold, 0);
  const TableObjects held = build_hold(program);
  for (const std::string& counter : held.counters) add_counter(hold, counter);
  for (const Set& set : held.sets) {
    add_set(hold, set);
    add_elements(hold, set.name, set.elements);
  }
  for (const Chain& chain : held.chains) {
    add_chain(hold, chain);
    add_rules(hold, chain);
  }
  TL_TRY(socket_.commit(hold));
  holding_ = true;
  std::this_thread::sleep_for(kGrace);
  Batch anew;
  for (const std::uint8_t family : kFamilies) {
    anew.set_table(family);
    delete_table(anew);
    add_table(anew, owned_ ? kTableOwner | kTablePersist : 0);
  }
  anew.set_table(NFPROTO_INET);
  for (const NamedCounter& counter : counters)
    add_counter(anew, counter.name, counter.packets, counter.bytes);
  TL_TRY(socket_.commit(anew));
  older_layout_.clear();
  for (const std::size_t table : {kInet, kNetdev}) {
    TL_ASSIGN(state_[table], read_table(socket_, kFamilies[table]));
  }
  return {};
}

Result<void> NftablesBackend::release_hold() {
  std::this_thread::sleep_for(kGrace);
  TL_ASSIGN(const auto counters, read_counter_objects(socket_, NFPROTO_INET, kHoldTable));
  for (const NamedCounter& counter : counters) held_packets_ += counter.packets;
  Batch release;
  release.set_table(NFPROTO_INET, kHoldTable);
  delete_table(release);
  TL_TRY(socket_.commit(release));
  holding_ = false;
  return {};
}

Error NftablesBackend::explain(Error error, const policy::Program& program) const {
  if (error.errno_value != EMLINK) return error;
  const auto deepest =
      std::max_element(program.classes.begin(), program.classes.end(),
                       [](const auto& a, const auto& b) { return a.tiers.size() < b.tiers.size(); });
  if (deepest == program.classes.end()) return error;
  std::string tiers;
  for (const policy::ClassTier& tier : deepest->tiers)
    tiers += (tiers.empty() ? "" : ", ") + program.tiers[tier.tier].name;
  error.message += "; an endpoint is asked by " + std::to_string(deepest->tiers.size()) +
                   " tiers one after another (" + tiers + "), more than the kernel follows";
  return error;
}

Result<std::vector<RuleCounter>> NftablesBackend::read_counters() {
  std::map<RuleId, RuleCounter> sums;
  for (const std::uint8_t family : kFamilies) {
    TL_ASSIGN(const auto objects, read_counter_objects(socket_, family));
    for (const NamedCounter& object : objects) {
      if (const auto id = counter_id(object.name)) {
        RuleCounter& sum = sums[*id];
        sum.id = *id;
        sum.packets += object.packets;
        sum.bytes += object.bytes;
      } else if (const auto messages = message_counter_id(object.name)) {
        sums[*messages].id = *messages;
        sums[*messages].messages += object.packets;
      } else if (const auto frames = frame_counter_id(object.name)) {
        sums[*frames].id = *frames;
        sums[*frames].frames += object.packets;
      }
    }
  }
  std::vector<RuleCounter> counters;
  counters.reserve(sums.size());
  for (const auto& [id, sum] : sums) counters.push_back(sum);
  for (auto& [name, value] : dead_counters_)
    if (const auto found = sums.find(counted_rule(name).value_or(RuleId::None)); found != sums.end())
      value = message_counter_id(name) ? CounterValue{found->second.messages, 0}
                                       : CounterValue{found->second.packets, found->second.bytes};
  return counters;
}

Result<std::vector<DeniedCount>> NftablesBackend::read_denied() {
  std::vector<DeniedCount> counts;
  for (const std::size_t table : {kInet, kNetdev})
    for (const char* set : {"deny4", "deny6", "stateless4", "stateless6"})
      if (state_[table].sets.count(set) != 0)
        TL_TRY(read_denied_set(socket_, set, kFamilies[table], denied_lifetime(), counts));
  return counts;
}

Result<std::uint64_t> NftablesBackend::read_overflow() {
  std::uint64_t packets = 0;
  for (const std::uint8_t family : kFamilies) {
    TL_ASSIGN(const auto objects, read_counter_objects(socket_, family));
    for (const NamedCounter& object : objects)
      if (object.name == kOverflowCounter) packets += object.packets;
  }
  return packets;
}

Result<void> NftablesBackend::remove_all() {
  Batch batch;
  for (const std::uint8_t family : kFamilies) {
    batch.set_table(family);
    delete_table(batch);
  }
  TL_TRY(socket_.commit(batch));
  for (TableState& state : state_) {
    state.chains.clear();
    state.sets.clear();
    state.counters.clear();
  }
  leftover_.reset();
  program_.reset();
  return {};
}

}  // namespace tierlog::dataplane::nftables
