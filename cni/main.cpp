// tierlog-cni: see cni/plugin.h.
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "cni/plugin.h"

namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

std::string read_all(int file) {
  std::string text;
  std::array<char, 65536> buffer{};
  for (ssize_t size = 0; (size = ::read(file, buffer.data(), buffer.size())) > 0;) {
    text.append(buffer.data(), static_cast<std::size_t>(size));
  }
  return text;
}

}  // namespace

int main() {
  const tierlog::cni::Environment environment{variable("CNI_COMMAND"), variable("CNI_CONTAINERID"),
                                              variable("CNI_NETNS"), variable("CNI_IFNAME"),
                                              variable("CNI_ARGS")};
  // Started by a person, who will not type a configuration.
  const bool by_runtime = !environment.command.empty();
  if (!by_runtime) {
    std::fputs("tierlog-cni " TIERLOG_VERSION
               " is a CNI plugin: a container runtime runs it, with CNI_COMMAND set (specification 1.0.0)\n",
               stderr);
  }
  const std::string input = by_runtime ? read_all(STDIN_FILENO) : "";
  const auto output = tierlog::cni::run(environment, input, tierlog::cni::KernelLinks());
  std::fwrite(output.text.data(), 1, output.text.size(), stdout);
  return std::fflush(stdout) == 0 ? output.exit_code : 1;
}
