// cni/protocol.h - the words of the Container Network Interface: what a runtime hands over, what it gets.
//
//   runtime --CNI_* variables, JSON on stdin--> [tierlog-cni] --JSON on stdout, exit code--> runtime
#pragma once

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace tierlog::cni {

// The error codes of the specification, and from 100 on our own.
enum class Code : int {
  IncompatibleVersion = 1,
  InvalidEnvironment = 4,
  IoFailure = 5,
  UndecodableContent = 6,
  InvalidConfiguration = 7,
  TryAgainLater = 11,
  Refused = 100,      // the daemon or the kernel said no
  NotEnforced = 101,  // CHECK: the pod is not enforced as given
};

struct Failure {
  Code code{};
  std::string message;
  std::string details;  // longer, may be empty
};

template <typename T>
using Outcome = tl::expected<T, Failure>;

inline tl::unexpected<Failure> refuse(Code code, std::string message, std::string details = {}) {
  return tl::unexpected<Failure>(Failure{code, std::move(message), std::move(details)});
}

// The CNI_* variables; empty where not set.
struct Environment {
  std::string command;
  std::string container_id;
  std::string netns;
  std::string interface;
  std::string arguments;  // CNI_ARGS
};

// What goes to stdout, and the exit code.
struct Output {
  std::string text;
  int exit_code = 0;
};

}  // namespace tierlog::cni
