// A Program's rule chains, classes, sets and dispatch elements.
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <set>
#include <string_view>
#include <unordered_set>

#include "dataplane/nftables/build.h"
#include "dataplane/nftables/build_audit.h"
#include "dataplane/nftables/build_cache.h"
#include "dataplane/nftables/build_classes.h"
#include "dataplane/nftables/build_host.h"
#include "dataplane/nftables/build_match.h"
#include "dataplane/nftables/build_rules.h"
#include "dataplane/nftables/build_skeleton.h"
#include "dataplane/nftables/constants.h"
#include "dataplane/nftables/content.h"
#include "dataplane/nftables/elements.h"
#include "dataplane/nftables/expr.h"

namespace tierlog::dataplane::nftables {
namespace {

using policy::Program;

class ProgramBuilder {
 public:
  ProgramBuilder(const Program& program, const SetVersions& versions, const TableOptions& options,
                 const Switches& switches, BuildCache& cache)
      : program_(program),
        options_(options),
        switches_(switches),
        cache_(cache),
        matches_(program, versions, &cache),
        contents_(program.rules.size()) {}

  void add_to(TableObjects& objects) {
    objects_ = &objects;
    for (const policy::EndpointClass& endpoint_class : program_.classes)
      first_chain_.push_back(endpoint_class.stage == policy::Stage::Local ? add_class(endpoint_class) : "");
    add_host_endpoints();
    for (const char* name : {"eg4", "eg6", "in4", "in6", "pods4", "pods6", "self4", "self6", "guarded4",
                             "guarded6", "podif"})
      dispatch_[name];
    for (const auto& endpoint : program_.endpoints) add_endpoint(endpoint);
    for (const ReservedRule& rule : reserved_rules()) counters_.insert(rule.id);
    for (const RuleId id : counters_) objects.counters.push_back(counter_name(id));
    for (Set& set : matches_.take_sets()) objects.sets.push_back(std::move(set));
    for (Set& set : objects.sets)
      if (const auto found = dispatch_.find(set.name); found != dispatch_.end())
        set.elements = sorted(std::move(found->second));
  }

 private:
  // Each name once: classes and host endpoints share chains.
  void add_objects(const TableObjects& objects) {
    for (const Chain& chain : objects.chains)
      if (named_.insert(chain.name).second) objects_->chains.push_back(chain);
    for (const Set& set : objects.sets)
      if (named_.insert(set.name).second) objects_->sets.push_back(set);
    for (const std::string& counter : objects.counters)
      if (named_.insert(counter).second) objects_->counters.push_back(counter);
  }

  void add_host_endpoints() {
    TableObjects objects;
    RuleChains chains(objects, options_);
    static_cast<void>(matches_.take_ranges());
    add_hosts(program_, first_chain_, matches_, options_, chains, objects);
    for (Set& set : matches_.take_ranges()) objects.sets.push_back(std::move(set));
    add_objects(objects);
    counters_.insert(chains.counters().begin(), chains.counters().end());
  }

  std::string add_class(const policy::EndpointClass& endpoint_class) {
    BuiltClass& built = cache_.classes[content_of_class(endpoint_class)];
    if (!is_good(built)) built = build(endpoint_class);
    built.used = true;
    add_objects(built.objects);
    counters_.insert(built.counters.begin(), built.counters.end());
    for (const LookedUp& set : built.looked_up) matches_.look_up(set);
    return built.first;
  }

  // Its maps may be of members, and of versions, that were.
  bool is_good(const BuiltClass& built) {
    if (built.first.empty() || members_of(built.grouped) != built.grouped_members) return false;
    return std::all_of(built.objects.sets.begin(), built.objects.sets.end(), [this](const Set& set) {
      const auto name = versioned_name(set.name);
      return !name || matches_.versioned(name->base) == set.name;
    });
  }

  BuiltClass build(const policy::EndpointClass& endpoint_class) {
    BuiltClass built;
    RuleChains chains(built.objects, options_);
    ClassBuilder classes(program_, matches_, chains, options_.classes);
    static_cast<void>(matches_.take_looked_up());
    static_cast<void>(matches_.take_ranges());
    built.first = classes.add(endpoint_class);
    built.looked_up = matches_.take_looked_up();
    built.objects.sets = classes.take_sets();
    for (Set& set : matches_.take_ranges()) built.objects.sets.push_back(std::move(set));
    built.counters = {chains.counters().begin(), chains.counters().end()};
    for (const std::uint32_t set : classes.grouped()) built.grouped.push_back(program_.sets[set].key);
    built.grouped_members = members_of(built.grouped);
    return built;
  }

  Content members_of(const std::vector<std::string>& keys) {
    std::vector<Content> contents;
    for (const std::string& key : keys) {
      const auto set = matches_.set_with_key(key);
      contents.push_back(set ? matches_.members_of_set(*set) : 0);
    }
    return joined(contents);
  }

  static Content joined(const std::vector<Content>& contents) {
    return content_of(std::string_view(reinterpret_cast<const char*>(contents.data()), contents.size() * sizeof(Content)));
  }

  // Ids stand for what rules say; what they look up depends on the cluster too.
  Content content_of_rule(std::uint32_t index) {
    Content& content = contents_[index];
    if (content != 0) return content;
    const policy::ProgramRule& rule = program_.rules[index];
    std::vector<Content> parts{number(rule.id), static_cast<Content>(rule.action)};
    if (rule.log_rate) parts.insert(parts.end(), {rule.log_rate->messages, rule.log_rate->seconds});
    for (const policy::Match& match : rule.any_of) {
      parts.push_back(match.never ? 1u : 2u);
      parts.push_back(match.family ? static_cast<Content>(*match.family) : 0);
      for (const policy::PeerMatch* peer : {&match.source, &match.destination}) {
        for (const auto* sets : {&peer->in_sets, &peer->not_in_sets}) {
          parts.push_back(sets->size());
          for (const std::uint32_t set : *sets) {
            parts.push_back(matches_.face_of_set(set));
            parts.push_back(program_.sets[set].members.size() > options_.classes.largest_set ? 1u : 0u);
          }
        }
        for (const auto& set : {peer->port_set, peer->not_port_set, peer->service_ports})
          parts.push_back(set ? matches_.face_of_port_set(*set) : 0);
      }
    }
    return content = joined(parts);
  }

  Content content_of_class(const policy::EndpointClass& endpoint_class) {
    std::vector<Content> parts{static_cast<Content>(endpoint_class.direction), number(endpoint_class.fallback),
                               static_cast<Content>(endpoint_class.fallback_action)};
    for (const policy::ClassTier& tier : endpoint_class.tiers) {
      if (tier.end == policy::kNone) continue;
      const policy::EndOfTier& end = program_.ends[tier.end];
      parts.insert(parts.end(), {number(end.id), static_cast<Content>(end.action)});
      for (const std::uint32_t policy : tier.policies)
        if (!program_.policies[policy].staged)
          for (const std::uint32_t rule : program_.policies[policy].rules(endpoint_class.direction))
            parts.push_back(content_of_rule(rule));
    }
    return joined(parts);
  }

  // `apart`: of an audited endpoint, to the map that the enforced ones do not see.
  void dispatch(bool apart, const char* v4, const char* v6, const IpAddr& address, Element element) {
    const std::string set = address.family == Family::V4 ? v4 : v6;
    dispatch_[apart ? audited_name(set) : set].push_back(std::move(element));
  }

  void add_endpoint(const policy::ProgramEndpoint& endpoint) {
    const policy::Endpoint& known = program_.cluster->endpoints[endpoint.endpoint];
    const std::string shown = known.display();
    const bool apart = endpoint.audited && switches_.audits_some;
    for (const Direction direction : {Direction::Egress, Direction::Ingress}) {
      const bool egress = direction == Direction::Egress;
      const std::string chain_name = endpoint_chain_name(direction, shown);
      objects_->chains.push_back(
          endpoint_chain(chain_name, direction, first_chain_[endpoint.class_of(direction)], shown, apart));
      for (const IpAddr& address : known.addresses)
        dispatch(apart, egress ? "eg4" : "in4", egress ? "eg6" : "in6", address,
                 {address_bytes(address), Verdict{VerdictKind::Jump, chain_name}, false});
    }
    for (const IpAddr& address : known.addresses) {
      dispatch(false, "pods4", "pods6", address, {address_bytes(address), std::nullopt, false});
      for (const IpAddr& other : known.addresses) {
        if (other.family != address.family) continue;
        Bytes pair = address_bytes(address);
        const Bytes second = address_bytes(other);
        pair.insert(pair.end(), second.begin(), second.end());
        dispatch(apart, "self4", "self6", address, {std::move(pair), std::nullopt, false});
      }
      if (!known.interface.empty())
        dispatch(false, "guarded4", "guarded6", address, {address_bytes(address), std::nullopt, false});
    }
    for (const std::string& interface : {known.interface, known.bridge})
      if (!interface.empty() && interfaces_.insert(interface).second)
        dispatch_["podif"].push_back({interface_bytes(interface), std::nullopt, false});
  }

  Chain endpoint_chain(const std::string& chain_name, Direction direction, const std::string& class_chain,
                       const std::string& shown, bool audited) {
    const bool egress = direction == Direction::Egress;
    const RuleId no_verdict = egress ? reserved::kNoVerdictEgress : reserved::kNoVerdictIngress;
    Chain chain{.name = chain_name};
    chain.rules.push_back(
        {(not_opening_tcp() +
          go_to(midstream_chain_name(direction, audited || switches_.spared.count(shown) != 0)))
             .expressions,
         "mid-stream"});
    chain.rules.push_back({jump(class_chain).expressions, shown});
    if (!options_.audits() && !audited)
      chain.rules.push_back(
          {(ct_word_is_zero(label_word(direction)) + go_to(rule_chain_name(no_verdict))).expressions,
           "no-verdict"});
    return chain;
  }

  // New or impossible, and not the packet that opens a connection.
  static Phrase not_opening_tcp() {
    constexpr std::uint8_t kFinSynRstAck = 0x17;
    return protocol_is(protocol::kTcp) + ct_state_in(kCtNew | kCtInvalid) +
           just(PayloadLoad{NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1, 0}) + just(Mask{0, {kFinSynRstAck}}) +
           just(Compare{0, NFT_CMP_NEQ, {2}});
  }

  const Program& program_;
  const TableOptions& options_;
  const Switches& switches_;
  BuildCache& cache_;
  MatchBuilder matches_;
  std::vector<Content> contents_;  // of rules, once asked for
  TableObjects* objects_ = nullptr;
  std::vector<std::string> first_chain_;  // of each class
  std::map<std::string, std::vector<Element>> dispatch_;
  std::set<std::string> interfaces_;
  std::unordered_set<std::string> named_;
  std::set<RuleId> counters_;
};

std::optional<RuleId> id_behind(const char* start, const std::string& name) {
  std::uint32_t value = 0;
  if (name.size() != 10 || name.rfind(start, 0) != 0) return std::nullopt;
  const auto [end, error] = std::from_chars(name.data() + 2, name.data() + 10, value, 16);
  if (error != std::errc() || end != name.data() + 10) return std::nullopt;
  return RuleId{value};
}

std::string with_id(const char* start, RuleId id) {
  char text[32];
  std::snprintf(text, sizeof text, "%s%08x", start, number(id));
  return text;
}

}  // namespace

TableObjects build_program(const Program& program, const SetVersions& versions, const TableOptions& options,
                           const Switches& switches, BuildCache* cache) {
  Switches all = switches;
  all.audits_some = audits_some(program, options);
  TableObjects objects = build_skeleton(options, all, host_hooks(program, options));
  BuildCache none;
  BuildCache& kept = cache == nullptr ? none : *cache;
  ProgramBuilder(program, versions, options, all, kept).add_to(objects);
  add_audit(objects, program, options);
  kept.end_build();
  return objects;
}

// Stable for the life of an endpoint and free of user text.
std::string endpoint_chain_name(Direction direction, const std::string& endpoint) {
  return (direction == Direction::Egress ? "epe_" : "epi_") + hex(content_of(endpoint));
}

std::string counter_name(RuleId id) {
  return with_id("c_", id);
}
std::optional<RuleId> counter_id(const std::string& name) {
  return id_behind("c_", name);
}
std::string message_counter_name(RuleId id) {
  return with_id("m_", id);
}
std::optional<RuleId> message_counter_id(const std::string& name) {
  return id_behind("m_", name);
}
std::optional<RuleId> counted_rule(const std::string& name) {
  for (const char* start : {"c_", "m_", "h_"})
    if (const auto id = id_behind(start, name)) return id;
  return std::nullopt;
}
std::string frame_counter_name(RuleId id) {
  return with_id("f_", id);
}
std::optional<RuleId> frame_counter_id(const std::string& name) {
  return id_behind("f_", name);
}

std::optional<VersionedName> versioned_name(const std::string& name) {
  constexpr std::size_t kBase = 3 + 16;  // "s4_" and the meaning
  if (name.size() < kBase + 2 || std::string_view("swnmik").find(name[0]) == std::string_view::npos ||
      name[kBase] != '_')
    return std::nullopt;
  VersionedName read{name.substr(0, kBase), 0};
  const auto [end, error] = std::from_chars(name.data() + kBase + 1, name.data() + name.size(), read.version);
  if (error != std::errc() || end != name.data() + name.size()) return std::nullopt;
  return read;
}

}  // namespace tierlog::dataplane::nftables
