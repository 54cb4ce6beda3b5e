// `tierlog lab`: a throwaway node to try policies on, with real pods, packets and a running daemon.
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/diagnostics.h"
#include "cli/commands.h"
#include "cli/console.h"
#include "cli/exit_code.h"
#include "cli/format.h"
#include "cli/items.h"
#include "cli/output.h"
#include "cli/target.h"
#include "endpoints/control.h"
#include "lab/lab.h"
#include "policy/load.h"

namespace tierlog::cli {
namespace {

struct UpOptions {
  std::string topology, name = "default", dataplane;
  std::vector<std::string> policies, settings;
};

struct ExecOptions {
  std::string host, lab;
  std::vector<std::string> command;
};

struct DownOptions {
  std::string name, lab;
};

// KEY=VALUE as of tierlogd.yaml; false when one has no "=".
bool take_settings(const std::vector<std::string>& settings, std::map<std::string, std::string>& into) {
  for (const std::string& setting : settings) {
    const std::size_t equals = setting.find('=');
    if (equals == std::string::npos || equals == 0) return false;
    into[setting.substr(0, equals)] = setting.substr(equals + 1);
  }
  return true;
}

// A lab with policies that do not load would come up and deny everything.
bool policies_load(const std::vector<std::string>& paths) {
  if (paths.empty()) return true;
  const policy::Loaded loaded = policy::load_paths(paths);
  for (const Diagnostic& finding : loaded.findings.all()) say(finding.to_string());
  return !loaded.findings.has_errors();
}

// A command to try: one pod knocks at another.
std::string first_try(const lab::Lab& lab) {
  std::vector<lab::LabHost> pods;
  for (const lab::LabHost& host : lab.hosts())
    if (host.name.find('/') != std::string::npos && !host.addresses.empty()) pods.push_back(host);
  if (pods.size() < 2) return "outside -- ip address";
  return printable(pods.front().name) + " -- ping -c 1 " + pods.back().addresses.front().to_string();
}

// Good policies may still be refused, by a limit of the data plane. Empty: they are in force.
std::string refusal(const lab::Lab& lab) {
  const auto answer = endpoints::call(lab.socket(), {{"op", "status"}});
  if (!answer || !answer->contains("status")) return {};
  return (*answer)["status"].value("sync_error", std::string());
}

int run_up(const UpOptions& options) {
  if (!policies_load(options.policies)) return kBadInput;
  lab::LabOptions lab_options;
  if (!take_settings(options.settings, lab_options.daemon_config))
    return misuse("--set takes KEY=VALUE, such as deny_interval=1s");
  lab_options.name = options.name;
  lab_options.policies = options.policies;
  if (!options.dataplane.empty()) lab_options.dataplane = options.dataplane;
  auto lab = lab::Lab::up(options.topology, lab_options, [](const std::string& step) { say(step); });
  if (!lab) return complain(lab.error());
  if (const std::string why = refusal(*lab); !why.empty()) {
    static_cast<void>(lab->down());
    say(why);
    say("the lab would deny everything; it was ended again");
    return kBadInput;
  }
  const std::string lab_argument = options.name == "default" ? "" : " --lab " + options.name;
  out("lab \"" + printable(options.name) + "\" is up: " + counted(lab->hosts().size(), "host") + "\n" +
      "  try      tierlog lab exec" + lab_argument + " " + first_try(*lab) + "\n" +
      "  look     tierlog policies" + lab_argument + ", tierlog denied" + lab_argument +
      ", tierlog endpoints" + lab_argument + "\n" + "  end it   tierlog lab down" + lab_argument + "\n");
  return kDone;
}

int unknown_host(const lab::Lab& lab, const std::string& wanted) {
  std::vector<std::string> names;
  std::string all;
  for (const lab::LabHost& host : lab.hosts()) {
    names.push_back(host.name);
    all += (all.empty() ? "" : ", ") + host.name;
  }
  std::string close = nearest(wanted, names);
  for (const std::string& name : names)
    if (close.empty() && name.ends_with("/" + wanted)) close = name;
  say("no host \"" + wanted + "\" in lab \"" + lab.name() + "\"" +
      (close.empty() ? "" : "; did you mean " + close + "?") + " (there are: " + all + ")");
  return kNo;
}

int run_exec(const ExecOptions& options) {
  if (options.command.empty())
    return misuse("the command is missing: tierlog lab exec NS/POD -- CMD (the -- stands before it)");
  const auto name = choose_lab(options.lab);
  if (!name) return complain(name.error());
  const auto lab = lab::Lab::find(*name);
  if (!lab) return complain(lab.error());
  if (!lab->has_host(options.host)) return unknown_host(*lab, options.host);
  flush_stdout();
  const auto code = lab->exec(options.host, options.command);
  return code ? *code : complain(code.error());
}

int run_down(const DownOptions& options) {
  if (!options.name.empty() && !options.lab.empty() && options.name != options.lab)
    return misuse("NAME and --lab name different labs; give one");
  const auto name = choose_lab(options.name.empty() ? options.lab : options.name);
  if (!name) return complain(name.error());
  auto lab = lab::Lab::find(*name);
  if (!lab) return complain(lab.error());
  const auto ended = lab->down();
  if (!ended) return complain(ended.error());
  out("lab \"" + printable(*name) + "\" has ended; nothing of it is left\n");
  return kDone;
}

int run_list(const std::string& output) {
  const auto format = parse_format(output);
  if (!format) return complain(format.error());
  const auto words = [](const char* title, std::size_t least) {
    return Column{title, Align::Left, least, Cut::Middle, 0, false, 0, 0};
  };
  Listing listing({words("LAB", 0),
                   {"HOSTS", Align::Right, 0, Cut::End, 0, false, 0, 0},
                   words("FOLDER", 16),
                   {"DATABASE", Align::Left, 0, Cut::End, 0, true, 0, 0},
                   {"SOCKET", Align::Left, 0, Cut::End, 0, true, 0, 0}});
  for (const std::string& name : lab::Lab::running()) {
    const auto lab = lab::Lab::find(name);
    if (!lab) continue;  // it has ended in this moment
    listing.table.add(
        {name, std::to_string(lab->hosts().size()), lab->folder(), lab->database(), lab->socket()});
    listing.items.push_back(item_of(*lab));
  }
  listing.empty = "no lab is running; `tierlog lab up TOPOLOGY` starts one";
  print(listing, *format);
  return kDone;
}

Command up_command() {
  const auto options = std::make_shared<UpOptions>();
  Command command;
  command.name = "lab up";
  command.summary = "starts a throwaway node with the pods of a topology and a running tierlogd";
  command.description =
      "Builds a node of network namespaces on this machine: its pods are created by real CNI plugins and "
      "tierlog-cni, an outside host plays all other addresses, tierlogd enforces the policies given with -f. "
      "The "
      "machine's own network is not touched. Needs root. The lab lives until `tierlog lab down`; other "
      "commands look "
      "at it by themselves while it runs.";
  command.positionals = {{"TOPOLOGY", "topology file: namespaces, pods, labels", &options->topology, true}};
  command.options = {
      {"-f,--file", "PATH", "policy files and folders", &options->policies, "Options", true},
      {"--name", "NAME", "name of the lab (default \"default\")", &options->name},
      {"--dataplane", "NAME", "nftables, ebpf or auto (default: TIERLOG_DATAPLANE, else what the topology says)", &options->dataplane},
      {"--set", "KEY=VALUE", "settings of its tierlogd, as in tierlogd.yaml: --set deny_interval=1s",
       &options->settings, "Options", true}};
  command.examples = {
      {"tierlog lab up examples/topologies/tenants.yaml -f examples/policies", "Pods and policies"},
      {"tierlog lab up examples/topologies/tenants.yaml --name second", "A second lab beside it"},
      {"tierlog lab exec tenant-02/web -- nc -zw1 10.244.1.9 5432", "Then: try a connection"}};
  command.exit_codes = "0  up\n1  unknown name\n2  bad files or usage\n3  the kernel or the daemon refused";
  command.run = [options] { return run_up(*options); };
  return command;
}

Command exec_command() {
  const auto options = std::make_shared<ExecOptions>();
  Command command;
  command.name = "lab exec";
  command.summary = "runs a command in a pod, on the node or on the outside host of a lab";
  command.description =
      "Runs CMD with this terminal's input and output inside the network of a host of the lab: ns/pod, node "
      "(the first), a node by its name, or outside. The command sees this machine's files.";
  command.positionals = {{"HOST", "ns/pod, node, a node's name or outside", &options->host, true}};
  command.rest_name = "CMD…";
  command.rest = &options->command;
  command.options = {{"--lab", "NAME", "the lab, when several are running", &options->lab}};
  command.examples = {{"tierlog lab exec tenant-02/web -- nc -zw1 10.244.1.9 5432", "Try a connection"},
                      {"tierlog lab exec node -- nft list table inet tierlog", "What the kernel holds"},
                      {"tierlog lab exec outside -- ping -c 1 10.244.1.9", "Knock from outside"}};
  command.exit_codes =
      "the command's own; 128 + signal if one ended it\n1  no such lab or host\n2  bad usage";
  command.run = [options] { return run_exec(*options); };
  return command;
}

Command down_command() {
  const auto options = std::make_shared<DownOptions>();
  Command command;
  command.name = "lab down";
  command.summary = "ends a lab; nothing of it is left";
  command.description = "Ends the processes of the lab and removes its namespaces, links, rules and folder.";
  command.positionals = {{"NAME", "the lab; may be left out when only one runs", &options->name}};
  command.options = {{"--lab", "NAME", "the same", &options->lab}};
  command.examples = {
      {"tierlog lab down", "The only one, or \"default\""},
      {"tierlog lab down second", "One by name"},
      {"tierlog lab list -o json | jq -r '.items[].name' | xargs -n1 tierlog lab down", "All"}};
  command.exit_codes = "0  ended\n1  no such lab\n2  bad usage\n3  it could not be ended";
  command.run = [options] { return run_down(*options); };
  return command;
}

Command list_command() {
  const auto output = std::make_shared<std::string>("table");
  Command command;
  command.name = "lab list";
  command.summary = "labs that are running";
  command.description = "Lists the labs of this machine with where their database and socket are.";
  command.options = {output_option(*output, kAllFormats)};
  command.examples = {{"tierlog lab list", "Names and folders"},
                      {"tierlog lab list -o wide", "With database and socket"},
                      {"tierlog lab list -o json | jq '.items[].hosts'", "Hosts and addresses"}};
  command.exit_codes = "0  done, also when none is running\n2  bad usage";
  command.run = [output] { return run_list(*output); };
  return command;
}

}  // namespace

std::vector<Command> lab_commands() {
  return {up_command(), exec_command(), down_command(), list_command()};
}

}  // namespace tierlog::cli
