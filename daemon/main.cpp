#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>

#include "daemon/config.h"
#include "daemon/daemon.h"
#include "daemon/inputs.h"

// jemalloc reads it before main, other allocators never: few threads work at once, and what a change of
// policies needed for a moment is given back within seconds.
extern "C" {
extern const char* malloc_conf;
const char* malloc_conf = "narenas:4,dirty_decay_ms:1000,muzzy_decay_ms:0";
}

namespace {

using namespace tierlog;
using namespace tierlog::daemon;

constexpr const char* kDescription =
    "tierlogd - enforces tiered network policies on this node and records every verdict\n"
    "\n"
    "Reads policies and pods, keeps the kernel's rules like them, and writes who was allowed and denied by\n"
    "which rule into a SQLite file. It is asked by `tierlog` and by the CNI plugin tierlog-cni through its\n"
    "socket. Its rules stay in the kernel when it ends, however it ends, and its successor goes on with "
    "them.";

constexpr const char* kFooter =
    "Signals:\n"
    "  SIGTERM, SIGINT  commit what was counted and end; the rules stay in the kernel\n"
    "  SIGHUP           read the policy files and the topology again (they are also watched)\n"
    "\n"
    "Policies:\n"
    "  All files together are one set. When any has an error, the last good set stays in force, also over\n"
    "  restarts, and `tierlog status` says FILE:LINE:COL and why. At a start without any good set, all\n"
    "  traffic of endpoints is denied (reason not-ready) until there is one.\n"
    "\n"
    "Files:\n"
    "  /etc/tierlog/tierlogd.yaml   settings; the shipped file explains every key\n"
    "  /etc/tierlog/policies/       policies\n"
    "  /var/lib/tierlog/flows.db    records, readable for group tierlog, also by plain sqlite3\n"
    "  /var/lib/tierlog/state.db    rule ids, registered pods, the last good policies: keep it\n"
    "  /run/tierlog/tierlogd.sock   where it answers root and group tierlog\n"
    "  /run/tierlog/cni-spool/      what tierlog-cni left while no tierlogd ran\n"
    "\n"
    "Privileges: starts as root, then keeps CAP_NET_ADMIN and CAP_DAC_READ_SEARCH only, and the system calls of\n"
    "its work: it can start no program and look into no other process.\n"
    "\n"
    "Exit codes: 0 ended as asked; 2 bad settings, policies (--check) or usage; 3 the kernel or another\n"
    "tierlogd refused.\n"
    "\n"
    "Examples:\n"
    "  tierlogd --config /etc/tierlog/tierlogd.yaml\n"
    "  tierlogd --check                            # before `systemctl reload tierlogd`\n"
    "  tierlogd --check --policies ./new-policies  # other policies than the settings name\n"
    "  tierlogd --remove                           # stop enforcing: take all rules out of the kernel";

struct Options {
  std::string config = "/etc/tierlog/tierlogd.yaml";
  bool check = false;
  bool remove = false;
  std::vector<Override> overrides;
};

int exit_code(ErrorCode code) {
  return code == ErrorCode::InvalidArgument ? 2 : 3;
}

void set_up_log(const std::string& level) {
  auto log = spdlog::stderr_logger_st("tierlogd");
  log->set_pattern("time=%Y-%m-%dT%H:%M:%S.%eZ level=%l %v", spdlog::pattern_time_type::utc);
  log->set_level(spdlog::level::from_str(level));
  spdlog::set_default_logger(log);
}

// Before any thread: everybody inherits the mask, so that only the loop sees these signals.
void block_signals() {
  sigset_t wanted;
  sigemptyset(&wanted);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&wanted, signal);
  sigprocmask(SIG_BLOCK, &wanted, nullptr);
  // What other programs reopen logs or print statistics by must not end this one.
  for (const int signal : {SIGPIPE, SIGUSR1, SIGUSR2}) std::signal(signal, SIG_IGN);
}

void declare(CLI::App& app, Options& options) {
  app.add_option("--config", options.config, "settings (YAML)")->capture_default_str();
  auto* check = app.add_flag("--check", options.check,
                             "print all findings on settings, policies and topology, and end");
  app.add_flag("--remove", options.remove, "take all of ours out of the kernel, say what, and end; also with settings that have errors")
      ->excludes(check);
  app.set_version_flag("--version", "tierlogd " TIERLOG_VERSION);
  for (const std::string& key : config_keys())
    app.add_option_function<std::vector<std::string>>(
           "--" + key,
           [&options, key](const std::vector<std::string>& values) {
             for (const std::string& value : values) options.overrides.push_back({key, value});
           },
           key == "policies" ? "files and folders" : "")
        ->group("Settings, in the place of those in the file")
        ->type_name(key == "policies" ? "PATH" : "VALUE")
        ->expected(1, key == "policies" ? -1 : 1);
  app.footer(kFooter);
}

int check(const Config& config) {
  const auto inputs = read_inputs(config);
  if (!inputs) {
    std::fprintf(stderr, "%s\n", inputs.error().message.c_str());
    return exit_code(inputs.error().code);
  }
  std::fputs(inputs->warnings.to_string().c_str(), stderr);
  std::printf("settings, %zu policies in %zu files and %zu pods of the topology are fine\n",
              inputs->policies.policies.size(), inputs->texts.policies.size(),
              inputs->topology.cluster.endpoints.size());
  return 0;
}

int failed(const Error& error) {
  spdlog::error("{}", error.message);
  return exit_code(error.code);
}

// What it takes to stop enforcing is in the kernel: settings that are broken must not stand in the way.
int remove(bool with_bad_settings) {
  if (with_bad_settings) std::fputs("tierlogd: the settings have errors; --remove goes on without them\n", stderr);
  const auto removed = Daemon::remove();
  if (!removed) return failed(removed.error());
  for (const std::string& table : *removed) std::printf("removed table %s\n", table.c_str());
  if (removed->empty()) std::puts("nothing of ours is in the kernel");
  return 0;
}

int serve(const Config& config) {
  auto daemon = Daemon::start(config);
  if (!daemon) return failed(daemon.error());
  const auto ended = (*daemon)->run();
  return ended ? 0 : failed(ended.error());
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{kDescription, "tierlogd"};
  Options options;
  declare(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const auto loaded = load_config(options.config, options.overrides);
  std::fputs(loaded.findings.to_string().c_str(), stderr);
  const bool is_bad = loaded.findings.has_errors();
  if (is_bad && !options.remove) return 2;
  if (options.check) return check(loaded.config);
  block_signals();
  set_up_log(loaded.config.log_level);
  return options.remove ? remove(is_bad) : serve(loaded.config);
}
