#include "dataplane/nftables/backend.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <thread>

#include "dataplane/nftables/constants.h"
#include "dataplane/nftables/encode.h"
#include "dataplane/nftables/read_back.h"

namespace tierlog::dataplane::nftables {
namespace {

// Longer than an RCU grace period under load; 10 ms were enough in every trial.
constexpr std::chrono::milliseconds kGrace{50};
constexpr std::array kDispatch{"eg4", "eg6", "in4", "in6", "pods4", "pods6"};

std::string target_of(const Element& element) {
  return element.verdict ? element.verdict->chain : "";
}

bool is_rule_chain(const std::string& name) {
  return name.size() > 1 && std::string_view("rgl").find(name[0]) != std::string_view::npos &&
         name.find_first_not_of("0123456789abcdef", 1) == std::string::npos;
}

bool is_reserved_chain(const std::string& name) {
  if (name[0] != 'r') return false;
  const auto id = static_cast<std::uint32_t>(std::stoul(name.substr(1), nullptr, 16));
  return find_reserved(RuleId{id}) != nullptr;
}

bool is_endpoint_chain(const std::string& name) {
  return name.rfind("epe_", 0) == 0 || name.rfind("epi_", 0) == 0;
}

std::set<std::string> names_of(const ProgramObjects& objects) {
  std::set<std::string> names;
  for (const Chain& chain : objects.rule_chains) names.insert(chain.name);
  for (const Chain& chain : objects.class_chains) names.insert(chain.name);
  for (const EndpointChain& endpoint : objects.endpoint_chains) names.insert(endpoint.chain.name);
  return names;
}

}  // namespace

Result<std::unique_ptr<NftablesBackend>> NftablesBackend::open(const TableOptions& options) {
  TL_ASSIGN(auto socket, NetfilterSocket::open());
  std::unique_ptr<NftablesBackend> backend(new NftablesBackend(std::move(socket), options));
  auto made = backend->make_or_adopt();
  if (!made) return fail(made.error().in("nftables"));
  return backend;
}

Result<void> NftablesBackend::make_or_adopt() {
  TL_ASSIGN(const auto layout, read_table_layout(socket_));
  if (!layout) return make_table();
  if (*layout != kLayout)
    return fail(ErrorCode::Refused, "the kernel has a table inet tierlog of another layout (\"" + *layout +
                                        "\", this is \"" + kLayout +
                                        "\"); remove it with `tierlogd --remove` and start again");
  adopted_ = true;
  Batch batch;
  add_table(batch, kTableOwner | kTablePersist);
  if (auto taken = socket_.commit(batch); !taken) {
    // A table made without the flags cannot get them later; one owned by a living process is refused.
    if (taken.error().errno_value == EPERM)
      return fail(taken.error().in("another process owns the table (a second daemon?)"));
    owned_ = false;
  }
  return read_existing();
}

Result<void> NftablesBackend::make_table() {
  const Skeleton skeleton = build_skeleton(options_);
  const auto attempt = [&](std::uint32_t flags) {
    Batch batch;
    add_table(batch, flags);
    for (const RuleId id : skeleton.counters) add_counter(batch, counter_name(id));
    for (const std::string& name : skeleton.plain_counters) add_counter(batch, name);
    for (const Set& set : skeleton.sets) {
      add_set(batch, set);
      add_elements(batch, set.name, set.elements);
    }
    for (const Chain& chain : skeleton.chains) add_chain(batch, chain);
    for (const Chain& chain : skeleton.chains) add_rules(batch, chain);
    return socket_.commit(batch);
  };
  auto made = attempt(kTableOwner | kTablePersist);
  if (!made && (made.error().errno_value == EOPNOTSUPP || made.error().errno_value == EINVAL)) {
    owned_ = false;  // before 6.9: an owned table would vanish with its owner and open the node
    made = attempt(0);
  }
  if (!made) return made;
  return read_existing();
}

Result<void> NftablesBackend::read_existing() {
  TL_ASSIGN(chains_, read_chains(socket_));
  TL_ASSIGN(sets_, read_sets(socket_));
  TL_ASSIGN(const auto counters, read_counter_objects(socket_));
  for (const NamedCounter& counter : counters) counters_.insert(counter.name);
  for (const char* name : kDispatch) {
    TL_ASSIGN(const auto elements, read_elements(socket_, name));
    for (const Element& element : elements) dispatch_[name][element.key] = target_of(element);
  }
  TL_ASSIGN(const auto first_packets, read_elements(socket_, "rlog"));
  for (const Element& element : first_packets) first_packet_log_[element.key] = target_of(element);
  for (const std::set<std::string>* names : {&chains_, &sets_})
    for (const std::string& name : *names)
      if (std::uint64_t generation = 0; is_generation_object(name, &generation))
        generation_ = std::max(generation_, generation);
  return {};
}

Result<void> NftablesBackend::apply(std::shared_ptr<const policy::Program> program) {
  const ProgramObjects objects = build_program(*program, ++generation_, options_);
  const std::set<std::string> before = chains_;
  if (auto prepared = prepare(objects); !prepared)
    return fail(explain(prepared.error().in("nftables: prepare"), *program));
  if (auto flipped = flip(objects, before); !flipped) {
    // What was prepared is not reachable: take it out again, the old generation stays.
    Batch undo;
    for (const std::string& name : chains_)
      if (before.count(name) == 0) flush_chain(undo, name);
    std::vector<Element> dead;
    for (const Element& element : objects.first_packet_log)
      if (before.count(target_of(element)) == 0) dead.push_back(element);
    delete_elements(undo, "rlog", dead);
    for (const Element& element : dead) first_packet_log_.erase(element.key);
    std::erase_if(chains_, [&](const std::string& name) {
      if (before.count(name) != 0) return false;
      delete_chain(undo, name);
      return true;
    });
    for (const Set& set : objects.sets) {
      delete_set(undo, set.name);
      sets_.erase(set.name);
    }
    static_cast<void>(socket_.commit(undo));
    return fail(explain(flipped.error().in("nftables: flip"), *program));
  }
  std::this_thread::sleep_for(kGrace);
  sweep(objects);
  return {};
}

Result<void> NftablesBackend::prepare(const ProgramObjects& objects) {
  Batch batch;
  std::vector<std::string> new_counters;
  for (const RuleId id : objects.counters) {
    const std::string name = counter_name(id);
    if (counters_.count(name) != 0) continue;
    add_counter(batch, name);
    new_counters.push_back(name);
  }
  for (const Set& set : objects.sets) {
    add_set(batch, set);
    add_elements(batch, set.name, set.elements);
  }
  std::vector<const Chain*> fresh;
  const auto want = [&](const Chain& chain) {
    if (chains_.count(chain.name) == 0) fresh.push_back(&chain);
  };
  for (const Chain& chain : objects.rule_chains) want(chain);
  for (const Chain& chain : objects.class_chains) want(chain);
  for (const EndpointChain& endpoint : objects.endpoint_chains) want(endpoint.chain);
  for (const Chain* chain : fresh) add_chain(batch, *chain);
  for (const Chain* chain : fresh) add_rules(batch, *chain);
  std::vector<Element> first_packets;
  for (const Element& element : objects.first_packet_log)
    if (first_packet_log_.count(element.key) == 0) first_packets.push_back(element);
  add_elements(batch, "rlog", first_packets);

  TL_TRY(socket_.commit(batch));
  for (const std::string& name : new_counters) counters_.insert(name);
  for (const Set& set : objects.sets) sets_.insert(set.name);
  for (const Chain* chain : fresh) chains_.insert(chain->name);
  for (const Element& element : first_packets) first_packet_log_[element.key] = target_of(element);
  return {};
}

Result<void> NftablesBackend::flip(const ProgramObjects& objects, const std::set<std::string>& before) {
  Batch batch;
  for (const EndpointChain& endpoint : objects.endpoint_chains) {
    if (before.count(endpoint.chain.name) == 0) continue;
    flush_chain(batch, endpoint.chain.name);
    add_rules(batch, endpoint.chain);
  }
  std::map<std::string, std::map<Bytes, std::string>> wanted;
  for (const char* name : kDispatch) {
    std::vector<Element> gone, added;
    auto& target = wanted[name];
    if (const auto found = objects.dispatch.find(name); found != objects.dispatch.end())
      for (const Element& element : found->second) {
        if (!target.emplace(element.key, target_of(element)).second) continue;
        const auto old = dispatch_[name].find(element.key);
        if (old != dispatch_[name].end() && old->second == target_of(element)) continue;
        added.push_back(element);
      }
    for (const auto& [key, chain] : dispatch_[name]) {
      const auto now = target.find(key);
      if (now != target.end() && now->second == chain) continue;
      Element element{key, std::nullopt, false};
      if (!chain.empty()) element.verdict = Verdict{VerdictKind::Jump, chain};
      gone.push_back(std::move(element));
    }
    delete_elements(batch, name, gone);
    add_elements(batch, name, added);
  }
  TL_TRY(socket_.commit(batch));
  dispatch_ = std::move(wanted);
  return {};
}

// A failure here leaves unreachable objects behind; they are tried again at the next sweep.
void NftablesBackend::sweep(const ProgramObjects& objects) {
  const std::set<std::string> needed = names_of(objects);
  std::set<std::string> needed_sets;
  for (const Set& set : objects.sets) needed_sets.insert(set.name);

  std::vector<std::string> chains, sets;
  for (const std::string& name : chains_) {
    std::uint64_t generation = 0;
    const bool replaceable = is_endpoint_chain(name) || is_generation_object(name, &generation) ||
                             (is_rule_chain(name) && !is_reserved_chain(name));
    if (replaceable && needed.count(name) == 0) chains.push_back(name);
  }
  for (const std::string& name : sets_)
    if (std::uint64_t generation = 0; is_generation_object(name, &generation) && needed_sets.count(name) == 0)
      sets.push_back(name);

  Batch batch;
  std::vector<Element> silent;
  for (const auto& [key, chain] : first_packet_log_)
    if (std::find(chains.begin(), chains.end(), chain) != chains.end())
      silent.push_back({key, Verdict{VerdictKind::Jump, chain}, false});
  delete_elements(batch, "rlog", silent);
  for (const std::string& name : chains) flush_chain(batch, name);
  for (const std::string& name : chains) delete_chain(batch, name);
  for (const std::string& name : sets) delete_set(batch, name);
  sweep_counters(batch, objects);
  if (!socket_.commit(batch)) return;
  for (const std::string& name : chains) chains_.erase(name);
  for (const std::string& name : sets) sets_.erase(name);
  for (const Element& element : silent) first_packet_log_.erase(element.key);
  std::erase_if(dead_counters_, [this](const auto& dead) {
    if (!dead.second) return false;
    counters_.erase(dead.first);
    return true;
  });
}

// The counter of a rule that is gone goes one replacement later, after somebody read its last value.
void NftablesBackend::sweep_counters(Batch& batch, const ProgramObjects& objects) {
  std::set<std::string> needed;
  for (const RuleId id : objects.counters) needed.insert(counter_name(id));
  for (const std::string& name : needed) dead_counters_.erase(name);
  for (const auto& [name, read] : dead_counters_)
    if (read) delete_counter(batch, name);
  for (const std::string& name : counters_) {
    const auto id = counter_id(name);
    if (id && find_reserved(*id) == nullptr && needed.count(name) == 0)
      dead_counters_.try_emplace(name, false);
  }
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
  TL_ASSIGN(const auto objects, read_counter_objects(socket_));
  std::vector<RuleCounter> counters;
  counters.reserve(objects.size());
  for (const NamedCounter& object : objects)
    if (const auto id = counter_id(object.name)) counters.push_back({*id, object.packets, object.bytes});
  for (auto& [name, read] : dead_counters_) read = true;
  return counters;
}

Result<std::vector<DeniedCount>> NftablesBackend::read_denied() {
  std::vector<DeniedCount> counts;
  TL_TRY(read_denied_set(socket_, "deny4", denied_lifetime(), counts));
  TL_TRY(read_denied_set(socket_, "deny6", denied_lifetime(), counts));
  return counts;
}

Result<std::uint64_t> NftablesBackend::read_overflow() {
  TL_ASSIGN(const auto objects, read_counter_objects(socket_));
  for (const NamedCounter& object : objects)
    if (object.name == kOverflowCounter) return object.packets;
  return std::uint64_t{0};
}

Result<void> NftablesBackend::remove_all() {
  Batch batch;
  delete_table(batch);
  TL_TRY(socket_.commit(batch));
  chains_.clear();
  sets_.clear();
  counters_.clear();
  dispatch_.clear();
  first_packet_log_.clear();
  return {};
}

}  // namespace tierlog::dataplane::nftables
