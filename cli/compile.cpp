// `tierlog compile`: what would be loaded into the kernel for these policies, before anybody does it.
//
//   -f … --topology … --> Program --dataplane/nftables/build.h--> tables as text or JSON
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "base/diagnostics.h"
#include "cli/commands.h"
#include "cli/compile_ebpf.h"
#include "cli/console.h"
#include "cli/exit_code.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/policy_input.h"
#include "dataplane/nftables/build.h"
#include "dataplane/nftables/build_rules.h"
#include "policy/compile.h"

namespace tierlog::cli {
namespace {

namespace nft = dataplane::nftables;
using Json = nlohmann::ordered_json;
using policy::Program;
using policy::RuleRef;

struct CompileArguments {
  std::vector<std::string> files;
  std::string topology, node, via = "nftables", limits, output = "table";
};

struct KernelTable {
  std::string family, name;
  nft::TableObjects objects;
};

// What is made for one node: the program and the tables that enforce it.
struct Compiled {
  std::string node;  // empty: all of the topology
  Program program;
  std::vector<KernelTable> tables;
};

// What an id stands for, in the words of policies.
struct RuleName {
  std::string tier, policy, kind, rule, action, text, source;
  int index = -1;
};

std::vector<RuleId> ids_of(const Program& program) {
  std::vector<RuleId> ids;
  for (const policy::ProgramRule& rule : program.rules) ids.push_back(rule.id);
  for (const policy::EndOfTier& end : program.ends) ids.push_back(end.id);
  return ids;
}

RuleName name_of(const Program& program, RuleId id) {
  const auto found = program.by_id.find(id);
  if (found == program.by_id.end() || found->second.kind == RuleRef::Kind::Reserved) {
    const ReservedRule* rule = find_reserved(id);
    return {"", "", "", rule == nullptr ? "" : std::string(name(rule->reason)), "", "", "", -1};
  }
  if (found->second.kind == RuleRef::Kind::Rule) {
    const policy::ProgramRule& rule = program.rules[found->second.index];
    const policy::ProgramPolicy& owner = program.policies[rule.policy];
    return {program.tiers[owner.tier].name,
            owner.display,
            std::string(short_name(owner.key.kind)),
            rule_text(rule.direction, rule.index, ""),
            std::string(policy::name(rule.action)),
            rule.text,
            rule.source.to_string(),
            rule.index};
  }
  const policy::EndOfTier& end = program.ends[found->second.index];
  const policy::ProgramPolicy& last = program.policies[end.policies.back()];
  std::string asked;
  for (const std::uint32_t index : end.policies)
    asked += (asked.empty() ? "after " : ", ") + program.policies[index].display;
  return {program.tiers[end.tier].name,
          last.display,
          std::string(short_name(last.key.kind)),
          std::string(tierlog::name(end.direction)) + " " + rule_text(end.direction, -1, ""),
          std::string(policy::name(end.action)),
          asked,
          "",
          -1};
}

// The chains that belong to one id alone, by name.
std::map<std::string, RuleId> chains_of_ids(const Program& program) {
  std::map<std::string, RuleId> chains;
  for (const auto& [id, ref] : program.by_id)
    for (const std::string& chain : {nft::rule_chain_name(id), nft::log_chain_name(id)})
      chains.emplace(chain, id);
  return chains;
}

// Finds whose rule one line of the kernel's is: by what it counts, or by the chain that it leads to.
class Owner {
 public:
  explicit Owner(const Program& program) : chains_(chains_of_ids(program)) {}

  RuleId of(const nft::Chain& chain, const nft::NftRule& rule) const {
    if (const auto found = chains_.find(chain.name); found != chains_.end()) return found->second;
    for (const nft::Expression& expression : rule.expressions) {
      if (const auto* count = std::get_if<nft::Count>(&expression)) return count->id;
      const auto* verdict = std::get_if<nft::Verdict>(&expression);
      if (verdict == nullptr) continue;
      if (const auto found = chains_.find(verdict->chain); found != chains_.end()) return found->second;
    }
    return RuleId::None;
  }

 private:
  std::map<std::string, RuleId> chains_;
};

Result<void> choose_node(policy::Cluster& cluster, const std::string& node) {
  std::set<std::string> known;
  for (const policy::NodeObject& object : cluster.nodes) known.insert(object.name);
  for (policy::Endpoint& endpoint : cluster.endpoints) {
    if (!endpoint.node.empty()) known.insert(endpoint.node);
    endpoint.local = endpoint.node == node;
  }
  if (known.contains(node)) return {};
  const std::string near = nearest(node, {known.begin(), known.end()});
  return fail(ErrorCode::NotFound, "no node \"" + node + "\" in the topology" +
                                       (near.empty() ? "" : "; did you mean " + near + "?"));
}

void sort_by_name(nft::TableObjects& objects) {
  const auto by_name = [](const auto& a, const auto& b) { return a.name < b.name; };
  std::sort(objects.counters.begin(), objects.counters.end());
  std::stable_sort(objects.sets.begin(), objects.sets.end(), by_name);
  std::stable_sort(objects.chains.begin(), objects.chains.end(), by_name);
}

Result<Compiled> compile_files(const CompileArguments& arguments) {
  if (arguments.files.empty())
    return fail(ErrorCode::InvalidArgument, "-f PATH is missing: which policy files or folders");
  TL_ASSIGN(PolicyInput input, load_input(arguments.files, arguments.topology));
  policy::CompileOptions options;
  if (!arguments.node.empty()) {
    TL_TRY(choose_node(input.cluster, arguments.node));
    options.scope = policy::CompileOptions::Scope::Local;
  }
  policy::MemoryRuleIds ids;
  const auto cluster = std::make_shared<const policy::Cluster>(std::move(input.cluster));
  Compiled compiled{arguments.node, {}, {}};
  TL_ASSIGN(compiled.program, policy::compile(input.policies, cluster, ids, options));
  const nft::TableOptions table;
  if (arguments.via == "ebpf") return compiled;
  compiled.tables = {{"inet", "tierlog", nft::build_program(compiled.program, {}, table, {})},
                     {"netdev", "tierlog", nft::build_guard(compiled.program, table)}};
  for (KernelTable& kernel_table : compiled.tables) sort_by_name(kernel_table.objects);
  return compiled;
}

std::string headline(const Compiled& compiled) {
  const Program& program = compiled.program;
  std::size_t chains = 0, rules = 0;
  for (const KernelTable& table : compiled.tables)
    for (const nft::Chain& chain : table.objects.chains) {
      ++chains;
      rules += chain.rules.size();
    }
  return (compiled.node.empty() ? "all nodes" : "node " + compiled.node) + ": " +
         counted(program.endpoints.size(), "endpoint") + " in " + with_commas(program.classes.size()) +
         " classes, " + counted(program.rules.size(), "rule") + ", " + counted(program.ends.size(), "end") +
         " of tiers; in the kernel " + counted(chains, "chain") + " with " + counted(rules, "rule");
}

std::string listing_of_rules(const Program& program) {
  Table table({{.title = "ID", .align = Align::Right},
               {.title = "TIER"},
               {.title = "POLICY"},
               {.title = "KIND"},
               {.title = "RULE"},
               {.title = "ACTION"},
               {.title = "WHAT"},
               {.title = "WHERE"}});
  for (const RuleId id : ids_of(program)) {
    const RuleName rule = name_of(program, id);
    table.add({id_text(id), rule.tier, under_tier(rule.policy), rule.kind, rule.rule, rule.action, rule.text,
               rule.source});
  }
  return table.render(stdout_view(true));
}

std::string line_of(const Program& program, const Owner& owner, const nft::Chain& chain,
                    const nft::NftRule& rule) {
  nft::NftRule bare = rule;
  bare.comment.clear();
  std::string line = "    " + nft::to_text(bare);
  const RuleId id = owner.of(chain, rule);
  const RuleName named = name_of(program, id);
  if (id == RuleId::None) return line + (rule.comment.empty() ? "" : "  # " + rule.comment) + "\n";
  line += "  # id " + id_text(id);
  if (!named.tier.empty()) line += " tier " + named.tier + " policy " + named.policy;
  return line + " " + named.rule + "\n";
}

std::string text_of(const Program& program, const Owner& owner, const KernelTable& table) {
  std::string text = "table " + table.family + " " + table.name + " {\n";
  for (const nft::Set& set : table.objects.sets) text += "  " + nft::to_text(set);
  for (const nft::Chain& chain : table.objects.chains) {
    nft::Chain head = chain;
    head.rules = {};
    std::string opening = nft::to_text(head);
    opening.erase(opening.size() - 2);  // the closing brace and its newline
    text += "  " + opening;
    for (const nft::NftRule& rule : chain.rules) text += line_of(program, owner, chain, rule);
    text += "  }\n";
  }
  for (const std::string& counter : table.objects.counters) {
    text += "  counter " + counter;
    if (const auto id = nft::counter_id(counter)) text += "  # id " + id_text(*id);
    text += "\n";
  }
  return text + "}\n";
}

Json or_null(const std::string& text) {
  return text.empty() ? Json() : Json(text);
}

Json json_of_rules(const Program& program) {
  Json rules = Json::array();
  for (const RuleId id : ids_of(program)) {
    const RuleName rule = name_of(program, id);
    rules.push_back({{"rule_id", number(id)},
                     {"tier", rule.tier},
                     {"policy", rule.policy},
                     {"kind", rule.kind},
                     {"rule", rule.rule},
                     {"rule_index", rule.index},
                     {"action", rule.action},
                     {"text", rule.text},
                     {"source", or_null(rule.source)}});
  }
  return rules;
}

Json json_of_endpoints(const Program& program) {
  Json endpoints = Json::array();
  for (const policy::ProgramEndpoint& enforced : program.endpoints) {
    const policy::Endpoint& endpoint = program.cluster->endpoints[enforced.endpoint];
    Json addresses = Json::array();
    for (const IpAddr& address : endpoint.addresses) addresses.push_back(address.to_string());
    endpoints.push_back(
        {{"endpoint", endpoint.display()},
         {"addresses", std::move(addresses)},
         {"egress_chain", nft::endpoint_chain_name(Direction::Egress, endpoint.display())},
         {"ingress_chain", nft::endpoint_chain_name(Direction::Ingress, endpoint.display())}});
  }
  return endpoints;
}

Json json_of_chain(const Program& program, const Owner& owner, const nft::Chain& chain) {
  Json rules = Json::array();
  for (const nft::NftRule& rule : chain.rules) {
    nft::NftRule bare = rule;
    bare.comment.clear();
    const RuleId id = owner.of(chain, rule);
    const RuleName named = name_of(program, id);
    rules.push_back({{"text", nft::to_text(bare)},
                     {"rule_id", id == RuleId::None ? Json() : Json(number(id))},
                     {"tier", or_null(named.tier)},
                     {"policy", or_null(named.policy)},
                     {"rule", or_null(named.rule)},
                     {"comment", or_null(rule.comment)}});
  }
  Json json{{"name", chain.name}, {"rules", std::move(rules)}};
  if (chain.hook) {
    json["hook"] = chain.hook->hook;
    json["priority"] = chain.hook->priority;
    if (!chain.hook->device.empty()) json["device"] = chain.hook->device;
  }
  return json;
}

Json json_of_tables(const Compiled& compiled, const Owner& owner) {
  Json tables = Json::array();
  for (const KernelTable& table : compiled.tables) {
    Json chains = Json::array(), sets = Json::array();
    for (const nft::Chain& chain : table.objects.chains)
      chains.push_back(json_of_chain(compiled.program, owner, chain));
    for (const nft::Set& set : table.objects.sets)
      sets.push_back({{"name", set.name}, {"elements", set.elements.size()}, {"text", nft::to_text(set)}});
    tables.push_back({{"family", table.family},
                      {"name", table.name},
                      {"chains", std::move(chains)},
                      {"sets", std::move(sets)},
                      {"counters", table.objects.counters}});
  }
  return tables;
}

void print(const Compiled& compiled, Format format) {
  const Owner owner(compiled.program);
  if (format == Format::Json) {
    out(Json{{"via", "nftables"},
             {"node", or_null(compiled.node)},
             {"rules", json_of_rules(compiled.program)},
             {"endpoints", json_of_endpoints(compiled.program)},
             {"tables", json_of_tables(compiled, owner)}}
            .dump(2, ' ', false, Json::error_handler_t::replace) +
        "\n");
    return;
  }
  out(headline(compiled) + "\n\n" + listing_of_rules(compiled.program) + "\n");
  for (const KernelTable& table : compiled.tables) out(text_of(compiled.program, owner, table) + "\n");
}

Json json_of_ebpf(const EbpfObjects& objects) {
  Json classes = Json::array();
  for (const EbpfClass& one : objects.classes) {
    Json tiers = Json::array();
    for (const EbpfTier& tier : one.tiers) {
      Json positions = Json::array();
      for (const RuleId id : tier.positions) positions.push_back(number(id));
      tiers.push_back({{"tier", tier.tier},
                       {"first_word", tier.first_word},
                       {"words", tier.words},
                       {"log_words", tier.log_words},
                       {"positions", std::move(positions)},
                       {"end", tier.end == RuleId::None ? Json() : Json(number(tier.end))}});
    }
    classes.push_back({{"class", one.index},
                       {"direction", one.direction},
                       {"endpoints", one.endpoints},
                       {"bytes", one.bytes},
                       {"tiers", std::move(tiers)},
                       {"fallback", number(one.fallback)}});
  }
  return classes;
}

Result<void> print_ebpf(const Compiled& compiled, const dataplane::ebpf::Limits& limits, Format format) {
  TL_ASSIGN(const EbpfObjects objects, ebpf_objects(compiled.program, limits));
  if (format == Format::Json) {
    out(Json{{"via", "ebpf"},
             {"node", or_null(compiled.node)},
             {"rules", json_of_rules(compiled.program)},
             {"classes", json_of_ebpf(objects)},
             {"address_bytes", objects.address_bytes}}
            .dump(2, ' ', false, Json::error_handler_t::replace) +
        "\n");
    return {};
  }
  out((compiled.node.empty() ? "all nodes" : "node " + compiled.node) + ": " +
      counted(compiled.program.endpoints.size(), "endpoint") + " in " + with_commas(objects.classes.size()) +
      " classes, " + counted(compiled.program.rules.size(), "rule") + "\n\n" + listing_of_rules(compiled.program) +
      "\n" + text_of(objects));
  return {};
}

Result<int> run(const CompileArguments& arguments) {
  TL_ASSIGN(const Format format, parse_format(arguments.output, kTextOrJson));
  if (arguments.via != "nftables" && arguments.via != "ebpf")
    return fail(ErrorCode::InvalidArgument, "--via \"" + arguments.via + "\" is unknown; expected nftables or ebpf");
  if (!arguments.limits.empty() && arguments.via != "ebpf")
    return fail(ErrorCode::InvalidArgument, "--limits needs --via ebpf: nftables has none to be set");
  TL_ASSIGN(const auto limits, dataplane::ebpf::parse_limits(arguments.limits));
  TL_ASSIGN(const Compiled compiled, compile_files(arguments));
  if (arguments.via == "ebpf") {
    TL_TRY(print_ebpf(compiled, limits, format));
  } else {
    print(compiled, format);
  }
  say("rule ids are numbered here from the beginning; a daemon keeps its own in state.db");
  return kDone;
}

}  // namespace

Command compile_command() {
  const auto arguments = std::make_shared<CompileArguments>();
  Command command;
  command.name = "compile";
  command.summary = "what would be loaded into the kernel: each rule with id, policy and tier";
  command.description =
      "Compiles policy files for the pods of a topology and prints the result from the program's own "
      "objects: "
      "first "
      "each rule and each end of a tier with its id, then the tables, chains and sets that enforce them. nft "
      "cannot print these rules (it has no syntax for connection labels as they are used). Nothing is loaded "
      "and "
      "no privilege is needed. The same files give the same output.\n\n"
      "With --node only that node's own pods are enforced, as on the node; every other pod is known by its "
      "addresses. "
      "Chains: epe_ and epi_ are a pod's egress and ingress, c… the tiers of a class, r… what an id does, g… "
      "what a Log rule does, l… the message about a first packet. --via ebpf: the matches of each class and tier as "
      "bit positions, 64 a word.";
  command.options = {{"-f,--file", "PATH", "policy files and folders", &arguments->files, "Options", true},
                     {"--topology", "FILE", "who there is", &arguments->topology},
                     {"--node", "NAME", "only what this node enforces", &arguments->node},
                     {"--via", "HOW", "nftables (default) or ebpf", &arguments->via},
                     {"--limits", "NAME=N,…", "of --via ebpf, as in tierlogd.yaml: max_rules=1000", &arguments->limits},
                     output_option(arguments->output, kTextOrJson)};
  command.examples = {
      {"tierlog compile -f policies/ --topology topology.yaml", "Everything"},
      {"tierlog compile -f policies/ --topology topology.yaml --node node-1 -o json | jq '.rules'",
       "The rules of one node with their ids"},
      {"diff <(tierlog compile -f old/ --topology t.yaml) <(tierlog compile -f new/ --topology t.yaml)",
       "What a change of policy changes in the kernel"}};
  command.exit_codes = "0  printed\n1  no such node\n2  bad usage or bad files (all findings on stderr)";
  command.run = [arguments] {
    const auto code = run(*arguments);
    return code ? *code : complain(code.error());
  };
  return command;
}

}  // namespace tierlog::cli
