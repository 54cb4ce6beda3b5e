#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>

#include "daemon/config.h"
#include "daemon/daemon.h"

namespace {

int exit_code(tierlog::ErrorCode code) {
  return code == tierlog::ErrorCode::InvalidArgument ? 2 : 3;
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
  std::signal(SIGPIPE, SIG_IGN);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "tierlogd - enforces tiered network policies on this node and records every verdict.\n"
      "It ends on SIGTERM and SIGINT; its rules stay in the kernel. SIGHUP reads the policies again."};
  std::string path = "/etc/tierlog/tierlogd.yaml";
  bool remove = false;
  app.add_option("--config", path, "settings (YAML); every key is explained in the shipped file")
      ->capture_default_str();
  app.add_flag("--remove", remove, "take all of ours out of the kernel and end");
  app.set_version_flag("--version", "tierlogd " TIERLOG_VERSION);
  app.footer(
      "Exit codes: 0 ended as asked, 2 bad settings or usage, 3 the kernel or another tierlogd refused.\n\n"
      "Examples:\n"
      "  tierlogd --config /etc/tierlog/tierlogd.yaml\n"
      "  systemctl reload tierlogd      # SIGHUP\n"
      "  tierlogd --remove              # before the package is removed");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : 2;
  }

  const auto loaded = tierlog::daemon::load_config(path);
  if (!loaded.findings.all().empty()) std::fputs(loaded.findings.to_string().c_str(), stderr);
  if (loaded.findings.has_errors()) return 2;
  block_signals();
  set_up_log(loaded.config.log_level);

  if (remove) {
    const auto removed = tierlog::daemon::Daemon::remove(loaded.config);
    if (removed) return 0;
    spdlog::error("{}", removed.error().message);
    return exit_code(removed.error().code);
  }
  auto daemon = tierlog::daemon::Daemon::start(loaded.config);
  if (!daemon) {
    spdlog::error("{}", daemon.error().message);
    return exit_code(daemon.error().code);
  }
  const auto ended = (*daemon)->run();
  if (ended) return 0;
  spdlog::error("{}", ended.error().message);
  return exit_code(ended.error().code);
}
