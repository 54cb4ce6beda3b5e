// Changes in any order, repeated, split or squashed, end in the same tables; and on the way none of them lets a
// packet through that is denied before and after it. Real kernel, real packets, a namespace of its own.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <libnftnl/rule.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <thread>

#include "base/handle.h"
#include "dataplane/nftables/backend.h"
#include "dataplane/nftables/constants.h"
#include "dataplane/nftables/encode.h"
#include "dataplane/nftables/read_back.h"
#include "tests/dataplane/programs.h"

namespace tierlog::dataplane::nftables {
namespace {

using namespace std::chrono_literals;

// What a change may touch: policies by name, pods by name with role and address, members of a network set.
struct State {
  std::map<std::string, std::string> policies;
  std::map<std::string, std::pair<std::string, std::string>> pods;
  std::set<std::string> nets;
};
using Change = std::function<void(State&)>;

policy::Labels role(const std::string& name) {
  return {{"role", name}};
}

std::string policy_text(const std::string& name, int order, const std::string& selector, const std::string& rules) {
  return "---\napiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: " + name +
         "}\nspec:\n  order: " + std::to_string(order) + "\n  selector: \"" + selector + "\"\n  ingress:\n" + rules;
}

std::string rule(const std::string& action, const std::string& source, const std::string& port = {}) {
  return "  - {action: " + action + ", protocol: UDP, source: {" + source + "}" +
         (port.empty() ? "" : ", destination: {ports: [" + port + "]}") + "}\n";
}

std::string of_role(const std::string& name) {
  return "selector: \"role == '" + name + "'\"";
}

std::shared_ptr<const policy::Program> program_of(const State& state, policy::RuleIdRegistry& ids) {
  std::string text = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: nets, labels: {net: a}}\n"
                     "spec:\n  nets: [192.0.2.0/24";
  for (const std::string& net : state.nets) text += ", " + net;
  text += "]\n";
  for (const auto& [name, policy] : state.policies) text += policy;
  std::vector<policy::Endpoint> pods;
  for (const auto& [name, what] : state.pods)
    pods.push_back(tierlog::testing::local_pod("a", name, {what.second}, role(what.first)));
  return tierlog::testing::compile(text, pods, ids);
}

State beginning() {
  State state;
  state.pods = {{"client", {"x", "10.9.0.1"}}, {"server", {"server", "10.9.0.2"}}, {"other", {"y", "10.9.0.3"}}};
  state.policies["base"] =
      policy_text("base", 10, "role == 'server'",
                  rule("Deny", of_role("x")) + rule("Deny", of_role("y")) + rule("Deny", "selector: \"net == 'a'\"") +
                      rule("Log", of_role("z"), "7000") + rule("Allow", of_role("z"), "7000, 7001, 7005") +
                      rule("Allow", "nets: [10.9.0.128/25, 10.9.1.0/24]", "\"7000:7100\"") +
                      rule("Deny", "nets: [10.8.0.0/13]", "7050") + rule("Allow", "notNets: [10.7.0.0/16]"));
  return state;
}

std::vector<Change> changes() {
  return {
      [](State& s) { s.pods["new"] = {"z", "10.9.0.4"}; },
      [](State& s) { s.pods["client"].first = "y"; },
      [](State& s) { s.pods.erase("other"); },
      [](State& s) { s.nets.insert("10.9.0.64/26"); },
      [](State& s) {
        s.policies["more"] = policy_text("more", 5, "all()", rule("Deny", of_role("y"), "7002") + rule("Pass", of_role("q")));
      },
      [](State& s) { s.policies["last"] = policy_text("last", 20, "role == 'z'", rule("Allow", of_role("x"))); },
      [](State& s) { s.pods["replica"] = {"server", "10.9.0.5"}; },
  };
}

// Reads the table back from the kernel, with names that stand for a content replaced by that content: numbers
// of versions tell how one came there, not what holds.
class Dump {
 public:
  Dump() : socket_(std::move(*NetfilterSocket::open())) {
    const RuleHandle wanted(nftnl_rule_alloc());
    nftnl_rule_set_str(wanted.get(), NFTNL_RULE_TABLE, kTable);
    EXPECT_TRUE(socket_.dump(
        NFT_MSG_GETRULE, NFPROTO_INET,
        [&](nlmsghdr* header) { nftnl_rule_nlmsg_build_payload(header, wanted.get()); },
        [&](const nlmsghdr* message) {
          const RuleHandle read(nftnl_rule_alloc());
          if (nftnl_rule_nlmsg_parse(message, read.get()) < 0) return;
          if (std::string(nftnl_rule_get_str(read.get(), NFTNL_RULE_TABLE)) != kTable) return;
          const std::string chain = nftnl_rule_get_str(read.get(), NFTNL_RULE_CHAIN);
          for (const std::uint32_t own : {NFTNL_RULE_HANDLE, NFTNL_RULE_POSITION, NFTNL_RULE_CHAIN})
            nftnl_rule_unset(read.get(), static_cast<std::uint16_t>(own));
          std::vector<char> text(8192);
          nftnl_rule_snprintf(text.data(), text.size(), read.get(), NFTNL_OUTPUT_DEFAULT, 0);
          const std::string whole(text.data());  // the seal in the user data depends on names
          rules_[chain] += whole.substr(0, whole.find("userdata")) + "\n";
        }));
    chains_ = *read_chains(socket_);
    sets_ = *read_sets(socket_);
  }

  std::string text() {
    std::string all;
    for (const std::string& chain : chains_)
      if (!named_by_content(chain)) all += "chain " + chain + "\n" + canonical(rules_[chain]);
    for (const auto& [name, filled_by_packets] : sets_)
      if (!named_by_content(name)) all += "set " + name + (filled_by_packets ? "" : elements(name)) + "\n";
    // What nothing leads to is left over.
    for (const std::string& chain : chains_)
      if (named_by_content(chain) && seen_.count(chain) == 0) all += "lost chain\n" + canonical(rules_[chain]);
    for (const auto& [name, filled_by_packets] : sets_)
      if (named_by_content(name) && seen_.count(name) == 0) all += "lost set " + elements(name) + "\n";
    return all;
  }

 private:
  using RuleHandle = Owned<nftnl_rule, nftnl_rule_free>;

  bool named_by_content(const std::string& name) const {
    if (versioned_name(name)) return true;
    if (name.size() < 17 || std::string("capb").find(name[0]) == std::string::npos) return false;
    return std::all_of(name.end() - 16, name.end(), [](unsigned char c) { return std::isxdigit(c) != 0; });
  }

  std::string meaning_of(const std::string& name) {
    if (!named_by_content(name)) return name;
    if (const auto known = meanings_.find(name); known != meanings_.end()) return known->second;
    seen_.insert(name);
    const std::string text = chains_.count(name) != 0 ? canonical(rules_[name]) : elements(name);
    return meanings_[name] = std::string(1, name[0]) + hex(content_of(text));
  }

  std::string canonical(const std::string& text) {
    std::string result, word;
    for (const char c : text + " ") {
      if (std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_') {
        word += c;
        continue;
      }
      result += (word.empty() ? "" : chains_.count(word) != 0 || sets_.count(word) != 0 ? meaning_of(word) : word) + c;
      word.clear();
    }
    return result;
  }

  std::string elements(const std::string& set) {
    std::vector<std::string> lines;
    const auto read = read_elements(socket_, set);
    for (const Element& element : *read) {
      std::string line(element.key.begin(), element.key.end());
      line = hex(content_of(line)) + (element.interval_end ? " end" : "");
      if (element.verdict) line += " " + meaning_of(element.verdict->chain);
      line += " " + std::string(element.data.begin(), element.data.end());
      lines.push_back(line);
    }
    std::sort(lines.begin(), lines.end());
    std::string all;
    for (const std::string& line : lines) all += line + ";";
    return all;
  }

  NetfilterSocket socket_;
  std::map<std::string, std::string> rules_;
  std::set<std::string> chains_;
  std::map<std::string, bool> sets_;
  std::map<std::string, std::string> meanings_;
  std::set<std::string> seen_;
};

struct Form {
  const char* title;
  std::size_t plain, short_list;
  bool in_blocks = false;
};

class Sequence : public ::testing::TestWithParam<Form> {
 protected:
  void SetUp() override {
    if (::unshare(CLONE_NEWNET) != 0)
      GTEST_SKIP() << "needs CAP_SYS_ADMIN (network namespaces): " << std::strerror(errno);
  }

  TableOptions options() const {
    TableOptions options;
    options.classes.plain_matches = GetParam().plain;
    options.classes.short_list = GetParam().short_list;
    if (GetParam().in_blocks) options.classes.cells = options.classes.smallest_block = 0;
    options.host_to_pod = TableOptions::HostToPod::Policy;
    return options;
  }

  std::unique_ptr<NftablesBackend> open() const {
    auto backend = NftablesBackend::open(options());
    EXPECT_TRUE(backend) << backend.error().message;
    return backend ? std::move(*backend) : nullptr;
  }

  void apply(NftablesBackend& backend, const State& state) {
    const auto applied = backend.apply(program_of(state, ids_));
    ASSERT_TRUE(applied) << applied.error().message;
  }

  // Until nothing waits any more and nothing is in doubt.
  static void settle(NftablesBackend& backend) {
    ASSERT_TRUE(backend.end_sparing());
    ASSERT_TRUE(backend.settle(false));
    std::this_thread::sleep_for(60ms);
    ASSERT_TRUE(backend.sweep_when_due());
  }

  policy::MemoryRuleIds ids_;
};

TEST_P(Sequence, AnyOrderRepeatedSplitOrSquashedEndsTheSame) {
  const std::vector<Change> all = changes();
  State end = beginning();
  for (const Change& change : all) change(end);
  std::string wanted;
  {
    const auto squashed = open();
    apply(*squashed, end);
    settle(*squashed);
    wanted = Dump().text();
  }
  EXPECT_EQ(wanted.find("lost"), std::string::npos) << wanted;
  for (unsigned seed = 1; seed <= 6; ++seed) {
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
    std::mt19937 random(seed);
    std::vector<std::size_t> order(all.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    std::shuffle(order.begin(), order.end(), random);
    const auto backend = open();
    State state = beginning();
    apply(*backend, state);
    for (const std::size_t which : order) {
      all[which](state);
      if (random() % 4 == 0) continue;  // squashed with the next
      apply(*backend, state);
      if (random() % 3 == 0) {  // there and back
        State without = beginning();
        apply(*backend, without);
        apply(*backend, state);
      }
      if (random() % 3 == 0) apply(*backend, state);
    }
    apply(*backend, end);
    settle(*backend);
    EXPECT_EQ(Dump().text(), wanted) << "seed " << seed;
    apply(*backend, end);
    EXPECT_EQ(backend->changed(), 0u) << "seed " << seed;
  }
}

// A pod of known labels is a few elements and its own chains, in every form.
TEST_P(Sequence, OnePodMoreChangesWhatNamesIt) {
  const auto backend = open();
  State state = beginning();
  apply(*backend, state);
  settle(*backend);
  auto socket = NetfilterSocket::open();
  const auto before = *read_chains(*socket);
  state.pods["twin"] = {"y", "10.9.0.77"};
  apply(*backend, state);
  const auto after = *read_chains(*socket);
  std::size_t fresh = 0;
  for (const std::string& chain : after) fresh += before.count(chain) == 0 ? 1 : 0;
  // Blocks have maps of all their members, so the class of each direction is new too.
  EXPECT_EQ(fresh, GetParam().in_blocks ? 4u : 2u) << "its own two chains";
}

// --- packets

void up_with_addresses() {
  const Fd control(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strcpy(request.ifr_name, "lo");
  request.ifr_flags = IFF_UP | IFF_RUNNING | IFF_LOOPBACK;
  ASSERT_EQ(::ioctl(control.get(), SIOCSIFFLAGS, &request), 0);
  for (int i = 1; i <= 2; ++i) {
    ifreq address{};
    std::strcpy(address.ifr_name, i == 1 ? "lo" : "lo:1");
    auto* in = reinterpret_cast<sockaddr_in*>(&address.ifr_addr);
    in->sin_family = AF_INET;
    ::inet_pton(AF_INET, i == 1 ? "10.9.0.1" : "10.9.0.2", &in->sin_addr);
    ASSERT_EQ(::ioctl(control.get(), SIOCSIFADDR, &address), 0) << std::strerror(errno);
  }
}

sockaddr_in at(const char* address, std::uint16_t port) {
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_port = htons(port);
  ::inet_pton(AF_INET, address, &in.sin_addr);
  return in;
}

Fd udp_at(const char* address, std::uint16_t port) {
  Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const sockaddr_in in = at(address, port);
  EXPECT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&in), sizeof in), 0) << std::strerror(errno);
  return socket;
}

// Sends from the client to a port of the server as fast as it can; what arrives has passed.
class Flood {
 public:
  Flood() : receiver_(udp_at("10.9.0.2", 7002)), sender_(udp_at("10.9.0.1", 0)), thread_([this] { run(); }) {}
  ~Flood() { stop(); }
  void stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  std::uint64_t sent() const { return sent_; }
  std::uint64_t passed() const { return passed_; }

 private:
  void run() {
    const sockaddr_in to = at("10.9.0.2", 7002);
    char buffer[16] = {};
    while (!stop_) {
      for (int i = 0; i < 32; ++i) {
        // EPERM is the output hook's drop: the packet was judged.
        static_cast<void>(::sendto(sender_.get(), buffer, sizeof buffer, 0, reinterpret_cast<const sockaddr*>(&to), sizeof to));
        ++sent_;
      }
      while (::recv(receiver_.get(), buffer, sizeof buffer, 0) > 0) ++passed_;
    }
  }
  Fd receiver_, sender_;
  std::atomic<bool> stop_{false};
  std::atomic<std::uint64_t> sent_{0}, passed_{0};
  std::thread thread_;
};

TEST_P(Sequence, NothingPassesThatIsDeniedBeforeAndAfter) {
  up_with_addresses();
  const auto backend = open();
  State state = beginning();
  apply(*backend, state);
  settle(*backend);
  Flood flood;
  constexpr int kSteps = 18;
  for (int step = 0; step < kSteps; ++step) {
    switch (step % 6) {
      case 0:  // denied as role x, then as role y
      case 3:
        state.pods["client"].first = state.pods["client"].first == "x" ? "y" : "x";
        break;
      case 1:  // another pod comes
        state.pods["pod-" + std::to_string(step)] = {step % 2 == 0 ? "z" : "y", "10.9.2." + std::to_string(step)};
        break;
      case 2:  // denied by another policy, first
        state.policies["more"] = policy_text("more", 5, "all()", rule("Deny", of_role("x")) + rule("Deny", of_role("y")));
        break;
      case 4:
        state.policies.erase("more");
        break;
      default:  // denied as a net too
        if (!state.nets.insert("10.9.0.0/28").second) state.nets.clear();
    }
    apply(*backend, state);
    static_cast<void>(backend->settle(false));
  }
  flood.stop();
  EXPECT_GT(flood.sent(), 20'000u);
  EXPECT_EQ(flood.passed(), 0u);
}

// The control: members moved from one set to the other one batch after the other. The flood must see the gap.
TEST_P(Sequence, MovingMembersOneByOneLeaks) {
  up_with_addresses();
  auto options_now = options();
  options_now.classes.plain_matches = 1000;
  auto opened = NftablesBackend::open(options_now, {.owner = false});
  ASSERT_TRUE(opened);
  apply(**opened, beginning());
  settle(**opened);
  auto socket = NetfilterSocket::open();
  std::map<std::string, std::vector<Element>> sets;
  const auto all = *read_sets(*socket);
  for (const auto& [name, filled] : all)
    if (versioned_name(name) && name[0] == 's') sets[name] = *read_elements(*socket, name);
  const Bytes client{10, 9, 0, 1};
  std::vector<std::string> with, without;
  for (const auto& [name, elements] : sets)
    (std::any_of(elements.begin(), elements.end(), [&](const Element& e) { return e.key == client; }) ? with : without)
        .push_back(name);
  ASSERT_EQ(with.size(), 1u);
  Flood flood;
  const auto until = std::chrono::steady_clock::now() + 10s;
  while (flood.passed() == 0 && std::chrono::steady_clock::now() < until) {
    for (const bool take : {true, false}) {
      Batch batch;
      batch.set_table(NFPROTO_INET);
      if (take)
        delete_elements(batch, with.front(), {{client, std::nullopt, false}});
      else
        add_elements(batch, with.front(), {{client, std::nullopt, false}});
      ASSERT_TRUE(socket->commit(batch));
    }
  }
  flood.stop();
  EXPECT_GT(flood.passed(), 0u) << "after " << flood.sent() << " packets";
}

INSTANTIATE_TEST_SUITE_P(Forms, Sequence,
                         ::testing::Values(Form{"plain", 12, 8}, Form{"lists", 0, 8}, Form{"groups", 0, 0},
                                           Form{"blocks", 0, 0, true}),
                         [](const auto& form) { return std::string(form.param.title); });

}  // namespace
}  // namespace tierlog::dataplane::nftables
