#include "lab/daemon.h"

#include <fcntl.h>
#include <signal.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "endpoints/control.h"

namespace tierlog::lab {
namespace {

// Sanitized and on an emulated processor a start takes half a minute.
constexpr auto kStartTimeout = std::chrono::seconds(120);

struct Branch {
  std::string value;
  std::map<std::string, std::unique_ptr<Branch>> below;
};

void plant(Branch& root, const std::string& dotted, const std::string& value) {
  Branch* at = &root;
  std::istringstream parts(dotted);
  for (std::string part; std::getline(parts, part, '.');) {
    auto& next = at->below[part];
    if (!next) next = std::make_unique<Branch>();
    at = next.get();
  }
  at->value = value;
}

std::string scalar(const std::string& text) {
  const auto digit = [](unsigned char c) { return std::isdigit(c) != 0; };
  const bool flow = !text.empty() && (text.front() == '[' || text.front() == '{');
  const bool bare =
      flow || text == "true" || text == "false" || (!text.empty() && std::ranges::all_of(text, digit));
  return bare ? text : nlohmann::json(text).dump();
}

void print(const Branch& branch, const std::string& indent, std::ostringstream& out) {
  for (const auto& [key, next] : branch.below) {
    out << indent << key << ":";
    if (next->below.empty()) {
      out << " " << scalar(next->value) << "\n";
    } else {
      out << "\n";
      print(*next, indent + "  ", out);
    }
  }
}

std::string end_of(const std::string& path) {
  std::ifstream file(path);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  constexpr std::size_t kEnough = 2000;
  return text.size() <= kEnough ? text : "…" + text.substr(text.size() - kEnough);
}

int become_tierlogd(const DaemonFiles& files, Reporter& reporter) {
  const int log = ::open(files.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
  if (log < 0) {
    reporter.error(Error::from_errno(errno, "open", files.log));
    return 1;
  }
  ::dup2(log, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  const int code = run_command({{files.program, "--config", files.config}, {}});
  reporter.error({code == 127 ? ErrorCode::NotFound : ErrorCode::Refused, "cannot run " + files.program, 0});
  return code;
}

Result<void> wait_until_it_answers(const ProcessId& daemon, const DaemonFiles& files) {
  const auto end = std::chrono::steady_clock::now() + kStartTimeout;
  std::string last;
  while (std::chrono::steady_clock::now() < end) {
    const auto status = endpoints::call(files.socket, {{"op", "status"}}, std::chrono::seconds(5));
    if (status) return {};
    last = status.error().message;
    if (!alive(daemon)) {
      return fail(ErrorCode::Refused,
                  "tierlogd ended at its start; the end of its log:\n" + end_of(files.log));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return fail(ErrorCode::Unavailable,
              "tierlogd does not answer (" + last + "); the end of its log:\n" + end_of(files.log));
}

}  // namespace

std::string to_yaml(const DaemonConfig& config) {
  Branch root;
  for (const auto& [key, value] : config.values) plant(root, key, value);
  std::ostringstream out;
  print(root, "", out);
  out << "policies:";
  if (config.policies.empty()) out << " []";
  out << "\n";
  for (const auto& path : config.policies) out << "  - " << nlohmann::json(path).dump() << "\n";
  return out.str();
}

Result<ProcessId> start_tierlogd(const Place& node, const DaemonFiles& files) {
  TL_ASSIGN(const ProcessId daemon,
            start_detached(node, [&](Reporter& reporter) { return become_tierlogd(files, reporter); }));
  const auto answers = wait_until_it_answers(daemon, files);
  if (answers) return daemon;
  static_cast<void>(end_process(daemon, SIGKILL, std::chrono::seconds(5)));
  return fail(answers.error());
}

}  // namespace tierlog::lab
