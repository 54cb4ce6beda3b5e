// 10,000 policies, 1,000 pods of this node, 100,000 pods in the cluster: what it takes to put that into the
// kernel, and what one pod, one label and one policy more take.
//
//   scale_bench [POLICIES [LOCAL [PODS]]]      (root; makes a network namespace of its own and leaves nothing)
//
// Yardsticks in the same run: each selector asked of each pod one by one (a hundredth of that, times 100), and
// the first compilation and replacement, from nothing.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <set>

#include "bench/programs.h"
#include "bench/support.h"
#include "dataplane/nftables/backend.h"
#include "policy/load.h"

namespace {

using namespace tierlog;
using namespace tierlog::bench;
using dataplane::nftables::NftablesBackend;

struct Size {
  int policies = 10'000, local = 1'000, pods = 100'000;
};
constexpr int kPerNamespace = 100;  // pods
constexpr int kApps = 10;           // in a namespace

std::string ns_of(int number) {
  return "ns-" + std::to_string(number);
}

// Ten policies a namespace: each app from two others of its namespace, some from another namespace, some by net.
std::string policy_text(int number, int namespaces) {
  const int ns = number % namespaces, app = number / namespaces % kApps;
  std::string text = policy_head(ns_of(ns), "p-" + std::to_string(number), "app == 'app-" + std::to_string(app) + "'",
                                 "Ingress");
  const auto from = [&](const std::string& source, int port) {
    text += "  - {action: Allow, protocol: TCP, source: {" + source + "}, destination: {ports: [" + std::to_string(port) +
            "]}}\n";
  };
  from("selector: \"app == 'app-" + std::to_string((app + 1) % kApps) + "'\"", 8000 + app);
  from("selector: \"app == 'app-" + std::to_string((app + 2) % kApps) + "'\"", 8000 + app);
  from("selector: \"app == 'app-" + std::to_string(app) + "'\", namespaceSelector: \"projectcalico.org/name == '" +
           ns_of((ns + 1) % namespaces) + "'\"",
       9000);
  if (number % 4 == 0) from("nets: [10.200." + std::to_string(ns % 250) + ".0/24]", 9100);
  text += "  - {action: Deny, protocol: UDP}\n";
  return text;
}

policy::Endpoint pod(int number, const Size& size) {
  char address[32];
  std::snprintf(address, sizeof address, "10.%d.%d.%d", 1 + number / 62'500, number / 250 % 250, number % 250 + 1);
  const int ns = number / kPerNamespace;
  policy::Endpoint endpoint =
      local_pod(ns_of(ns), "pod-" + std::to_string(number), address,
                {{"app", "app-" + std::to_string(number % kApps)}, {"version", "v" + std::to_string(number % 3)}});
  const int each = std::max(1, size.pods / size.local);
  endpoint.local = number % each == number / kPerNamespace % each && number / each < size.local;
  return endpoint;
}

class Node {
 public:
  explicit Node(const Size& size) : size_(size) {
    auto opened = NftablesBackend::open({});
    if (!opened) stop(opened.error().message);
    backend_ = std::move(*opened);
    const int namespaces = size.pods / kPerNamespace;
    std::string text;
    for (int i = 0; i < size.policies; ++i) text += policy_text(i, namespaces);
    const auto start = Stopwatch::now();
    loaded_ = policy::load_text(text, "bench.yaml");
    std::printf("  %-44s %9.0f ms\n", "policy text read", ms_since(start));
    if (loaded_.findings.has_errors()) stop(loaded_.findings.to_string());
    for (int i = 0; i < namespaces; ++i) cluster_.namespaces[ns_of(i)].name = ns_of(i);
    for (int i = 0; i < size.pods; ++i) cluster_.endpoints.push_back(pod(i, size));
  }

  void step(const char* what) {
    const double before = status_mib("VmHWM");
    const auto cluster = std::make_shared<policy::Cluster>(cluster_);  // whoever keeps pods has it
    auto start = Stopwatch::now();
    auto compiled = policy::compile(loaded_.set, cluster, ids_,
                                    {.scope = policy::CompileOptions::Scope::Local, .memory = &memory_});
    if (!compiled) stop(compiled.error().message);
    const auto program = std::make_shared<const policy::Program>(std::move(*compiled));
    compile_ms = ms_since(start);
    start = Stopwatch::now();
    const std::uint64_t sent = backend_->sent_bytes();
    if (auto done = backend_->apply(program); !done) stop(done.error().message);
    apply_ms = ms_since(start);
    sent_kib = static_cast<double>(backend_->sent_bytes() - sent) / 1024;
    std::printf("  %-44s %9.0f ms to compile %9.0f ms to apply %9.1f KiB of netlink, %zu objects; peak %.0f -> %.0f MiB\n",
                what, compile_ms, apply_ms, sent_kib,
                backend_->changed(), before, status_mib("VmHWM"));
    if (first_) {
      std::printf("  %zu policies, %zu rules, %zu sets, %zu classes, %zu pods of this node of %zu\n",
                  program->policies.size(), program->rules.size(), program->sets.size(), program->classes.size(),
                  program->endpoints.size(), cluster_.endpoints.size());
      static_cast<void>(backend_->end_sparing());
      first_ = false;
    }
    static_cast<void>(backend_->settle(false));
    ::usleep(100'000);
    static_cast<void>(backend_->sweep_when_due());
  }

  double naive_selection() const {
    const auto start = Stopwatch::now();
    std::size_t matched = 0;
    const std::size_t each = std::max<std::size_t>(1, cluster_.endpoints.size() / 100);
    for (std::size_t i = 0; i < cluster_.endpoints.size(); i += each) {
      const policy::Labels labels = policy::effective_labels(cluster_, cluster_.endpoints[i]);
      for (const policy::Policy& policy : loaded_.set.policies) matched += policy.subject.matches(labels) ? 1 : 0;
    }
    const double spent = ms_since(start) * static_cast<double>(each);
    std::printf("  %-44s %9.0f ms (%zu matched in the part that was measured)\n",
                "yardstick: every subject asked of every pod", spent, matched);
    return spent;
  }

  [[noreturn]] static void stop(const std::string& why) {
    std::fprintf(stderr, "%s\n", why.c_str());
    std::exit(3);
  }

  const Size size_;
  policy::Loaded loaded_;
  policy::Cluster cluster_;
  double compile_ms = 0, apply_ms = 0, sent_kib = 0;  // of the latest step

 private:
  std::unique_ptr<NftablesBackend> backend_;
  policy::MemoryRuleIds ids_;
  policy::CompileMemory memory_;
  bool first_ = true;
};

int run(const Size& size) {
  const Fd netns = new_netns();
  enter(netns);
  Node node(size);
  const double naive = node.naive_selection();
  node.step("all of it, from nothing");
  const double whole = node.compile_ms, whole_kib = node.sent_kib;
  node.step("the same again");
  std::vector<double> one, one_kib;
  for (int i = 0; i < 5; ++i) {
    node.cluster_.endpoints.push_back(pod(size.pods + i, size));
    node.cluster_.endpoints.back().local = i % 2 == 0;
    node.cluster_.endpoints.back().endpoint_namespace = ns_of(i);
    node.step(i % 2 == 0 ? "one pod more, on this node" : "one pod more, elsewhere");
    one.push_back(node.compile_ms + node.apply_ms);
    one_kib.push_back(node.sent_kib);
  }
  // It leaves one set that a pod of this node is asked with, and joins another.
  node.cluster_.endpoints[1].labels["app"] = "app-2";
  node.step("one label changed");
  node.cluster_.endpoints.erase(node.cluster_.endpoints.begin() + 4711);
  node.step("one pod less");
  node.loaded_.set.policies.pop_back();
  node.step("one policy less");
  verdict("time to compile all of it / yardstick", whole / naive, 0.1);
  verdict("time of one pod more / yardstick", median(one) / naive, 0.01);
  verdict("netlink of one pod more / of all of it", *std::max_element(one_kib.begin(), one_kib.end()) / whole_kib, 0.01);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  need_root("scale_bench");
  Size size;
  int* const values[] = {&size.policies, &size.local, &size.pods};
  for (int i = 1; i < std::min(argc, 4); ++i) *values[i - 1] = std::max(100, std::atoi(argv[i]));
  return run(size);
}
