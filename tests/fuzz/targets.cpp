#include "tests/fuzz/targets.h"

#include <cstdio>
#include <cstdlib>
#include <string>

#include "cni/configuration.h"
#include "exporters/fluentbit/forward_codec.h"
#include "exporters/fluentbit/handshake.h"
#include "lab/cases.h"
#include "policy/cluster.h"
#include "policy/lint.h"
#include "policy/load.h"
#include "policy/selector.h"

namespace tierlog::fuzz {
namespace {

void expect(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

}  // namespace

void policies(std::string_view bytes) {
  const policy::Loaded loaded = policy::load_text(bytes, "input.yaml");
  for (const Diagnostic& finding : loaded.findings.all())
    expect(!finding.to_string().empty(), "a finding without a text");
  if (loaded.findings.has_errors()) return;
  policy::Cluster cluster;
  policy::add_objects(cluster, loaded.set);
  static_cast<void>(policy::lint(loaded.set, &cluster));
}

void selector(std::string_view bytes) {
  const auto parsed = policy::Selector::parse(bytes);
  if (!parsed) {
    expect(parsed.error().offset <= bytes.size(), "an error behind the text's end");
    return;
  }
  const auto again = policy::Selector::parse(parsed->canonical());
  expect(again && again->canonical() == parsed->canonical(), "the canonical form does not read back as itself");
  static_cast<void>(parsed->matches({{"a", "b"}}));
}

void cni(std::string_view bytes) {
  static_cast<void>(tierlog::cni::read_configuration(bytes));
  static_cast<void>(tierlog::cni::configuration_for_del(bytes));
  static_cast<void>(tierlog::cni::read_pod_name(bytes));
}

void cases(std::string_view bytes) {
  static_cast<void>(lab::load_cases_text(bytes, "input.yaml"));
}

void answers(std::string_view bytes) {
  namespace fluentbit = exporters::fluentbit;
  fluentbit::Helo helo;
  fluentbit::Pong pong;
  std::size_t used = 0;
  if (fluentbit::read_helo(bytes, helo, used) == fluentbit::Reading::Done)
    expect(used <= bytes.size(), "a HELO longer than what was read");
  if (fluentbit::read_pong(bytes, pong, used) == fluentbit::Reading::Done)
    expect(used <= bytes.size(), "a PONG longer than what was read");
  // Whatever the pieces, the same acks.
  fluentbit::AckReader whole, pieces;
  std::string first, second;
  bool good = whole.feed(bytes);
  for (auto chunk = whole.take(); chunk; chunk = whole.take()) first += *chunk + "\n";
  bool still = true;
  for (std::size_t at = 0; still && at < bytes.size(); ++at) {
    still = pieces.feed(bytes.substr(at, 1));
    for (auto chunk = pieces.take(); chunk; chunk = pieces.take()) second += *chunk + "\n";
  }
  // One that is too long as a whole may begin with acks that came alone in pieces.
  expect(!good || first == second, "acks depend on how they are cut");
}

}  // namespace tierlog::fuzz
