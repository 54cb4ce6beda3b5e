// How long people wait: from a saved policy file to rules in force, from a denied packet to its row.
//
//   latency_bench [ROUNDS]     (root; makes a lab of two pods and removes it)
//
// Yardsticks of the same run: one `nft` process that changes one rule of a table of its own in the lab's
// node, and a row that a plain SQLite writer commits, found by the same polling reader.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>
#include <vector>

#include "base/handle.h"
#include "lab/lab.h"
#include "store/query.h"
#include "tests/http/client.h"

namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using namespace tierlog;
using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::duration<double, std::milli>;

constexpr const char* kTopology = R"(
namespaces: [{name: a}]
pods:
- {name: web, namespace: a, ips: [10.1.0.5]}
- {name: db, namespace: a, ips: [10.1.0.6], ports: [{name: echo, protocol: UDP, port: 7000}]}
)";
constexpr std::uint16_t kEcho = 7000;

void write_policy(const fs::path& folder, const char* action) {
  std::ofstream(folder / "new") << "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\n"
                                   "metadata: {name: db, namespace: a}\nspec:\n  selector: all()\n"
                                   "  types: [Ingress]\n  ingress:\n  - {action: "
                                << action << ", protocol: UDP}\n  - {action: Deny}\n";
  fs::rename(folder / "new", folder / "p.yaml");
}

void report(const char* what, std::vector<double> times) {
  std::sort(times.begin(), times.end());
  const auto at = [&](double share) {
    return times[static_cast<std::size_t>(share * static_cast<double>(times.size() - 1))];
  };
  std::printf("%-44s n=%-4zu median %8.1f ms   p90 %8.1f ms   max %8.1f ms\n", what, times.size(), at(0.5),
              at(0.9), times.back());
}

double ms_since(Clock::time_point start) {
  return Milliseconds(Clock::now() - start).count();
}

// Asks the echo port from a new source port every millisecond; true as soon as one answer comes.
bool wait_for_answer(const IpAddr& to, Clock::time_point end) {
  sockaddr_in peer{};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(kEcho);
  std::copy_n(to.bytes.begin(), 4, reinterpret_cast<std::uint8_t*>(&peer.sin_addr));
  std::vector<Fd> sockets;
  while (Clock::now() < end) {
    Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    static_cast<void>(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&peer), sizeof peer));
    static_cast<void>(::send(socket.get(), "ping", 4, 0));
    sockets.push_back(std::move(socket));
    std::this_thread::sleep_for(1ms);
    char answer[16];
    const std::size_t recent = sockets.size() > 8 ? sockets.size() - 8 : 0;
    for (std::size_t i = recent; i < sockets.size(); ++i)
      if (::recv(sockets[i].get(), answer, sizeof answer, 0) > 0) return true;
    if (sockets.size() > 64) sockets.erase(sockets.begin());
  }
  return false;
}

double saved_to_active(const lab::Lab& lab, const fs::path& policies) {
  write_policy(policies, "Deny");
  std::this_thread::sleep_for(700ms);
  const IpAddr to = *lab.address("a/db", Family::V4);
  auto* answered = static_cast<std::atomic<std::int64_t>*>(
      ::mmap(nullptr, sizeof(std::int64_t), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  *answered = 0;
  const auto child = lab.start_in("a/web", [&] {
    if (wait_for_answer(to, Clock::now() + 5s)) *answered = Clock::now().time_since_epoch().count();
    return 0;
  });
  std::this_thread::sleep_for(50ms);
  const auto start = Clock::now();
  write_policy(policies, "Allow");
  int status = 0;
  ::waitpid(*child, &status, 0);
  const std::int64_t at = *answered;
  ::munmap(answered, sizeof(std::int64_t));
  return at == 0 ? -1 : Milliseconds(Clock::time_point(Clock::duration(at)) - start).count();
}

// From just before the packet is sent until a reader that asks all the time sees the row.
double denied_to_row(const lab::Lab& lab, std::uint16_t port) {
  const IpAddr to = *lab.address("a/db", Family::V4);
  auto reader = store::FlowReader::open(lab.database());
  const auto start = Clock::now();
  const auto child = lab.start_in("a/web", [&] {
    static_cast<void>(lab::try_tcp(to, port, 1ms));
    return 0;
  });
  store::FlowQuery query;
  query.filters = {{store::FieldFilter::Field::Port, {std::to_string(port)}, false}};
  double found = -1;
  while (found < 0 && ms_since(start) < 5000) {
    const auto rows = reader->flows(query);
    if (rows && !rows->empty()) found = ms_since(start);
  }
  int status = 0;
  ::waitpid(*child, &status, 0);
  return found;
}

double nft_one_rule(const lab::Lab& lab, bool first) {
  const char* text =
      first ? "add table ip bench; add chain ip bench c" : "flush chain ip bench c; add rule ip bench c drop";
  const auto start = Clock::now();
  static_cast<void>(lab.exec("node", {"/usr/sbin/nft", text}));
  return ms_since(start);
}

double plain_row(sqlite3* writer, sqlite3* reader, int number) {
  const auto start = Clock::now();
  sqlite3_exec(writer, ("INSERT INTO t VALUES (" + std::to_string(number) + ")").c_str(), nullptr, nullptr,
               nullptr);
  sqlite3_stmt* found = nullptr;
  sqlite3_prepare_v2(reader, ("SELECT 1 FROM t WHERE n = " + std::to_string(number)).c_str(), -1, &found,
                     nullptr);
  while (sqlite3_step(found) != SQLITE_ROW) sqlite3_reset(found);
  sqlite3_finalize(found);
  return ms_since(start);
}

std::vector<double> plain_rows(const fs::path& folder, int rounds) {
  const std::string path = (folder / "plain.db").string();
  sqlite3 *writer = nullptr, *reader = nullptr;
  sqlite3_open(path.c_str(), &writer);
  sqlite3_exec(writer,
               "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; CREATE TABLE t (n INTEGER PRIMARY KEY)",
               nullptr, nullptr, nullptr);
  sqlite3_open(path.c_str(), &reader);
  std::vector<double> times;
  for (int i = 0; i < rounds; ++i) times.push_back(plain_row(writer, reader, i));
  sqlite3_close(reader);
  sqlite3_close(writer);
  return times;
}

// A process on the node that asks for /metrics ten times a second; how many answers it got is at `answers`.
class Scraper {
 public:
  explicit Scraper(const lab::Lab& lab)
      : answers_(static_cast<std::atomic<int>*>(
            ::mmap(nullptr, sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
    *answers_ = 0;
    const auto child = lab.start_in("node", [this]() -> int {
      for (;; std::this_thread::sleep_for(100ms))
        if (const auto answer = http::testing_client::ask(9477, "/metrics"); answer.status == 200) ++*answers_;
    });
    child_ = child ? *child : -1;
  }
  Scraper(const Scraper&) = delete;
  Scraper& operator=(const Scraper&) = delete;
  ~Scraper() {
    if (child_ > 0) {
      ::kill(child_, SIGKILL);
      ::waitpid(child_, nullptr, 0);
    }
    ::munmap(answers_, sizeof(int));
  }
  int answers() const { return *answers_; }

 private:
  std::atomic<int>* answers_;
  pid_t child_ = -1;
};

int run(int rounds, const fs::path& folder) {
  fs::create_directories(folder / "policies");
  std::ofstream(folder / "topology.yaml") << kTopology;
  write_policy(folder / "policies", "Deny");
  lab::LabOptions options;
  options.name = "bench-" + std::to_string(::getpid());
  options.policies = {(folder / "policies").string()};
  options.life = lab::LabOptions::Life::WithCaller;
  auto lab = lab::Lab::up((folder / "topology.yaml").string(), options);
  if (!lab) {
    std::fprintf(stderr, "latency_bench: %s\n", lab.error().message.c_str());
    return 3;
  }
  std::vector<double> active, rows, nft;
  nft_one_rule(*lab, true);
  for (int i = 0; i < rounds; ++i) {
    rows.push_back(denied_to_row(*lab, static_cast<std::uint16_t>(20'000 + i)));
    nft.push_back(nft_one_rule(*lab, false));
    if (i % 5 == 0) active.push_back(saved_to_active(*lab, folder / "policies"));
    if (rows.back() < 0 || (!active.empty() && active.back() < 0)) {
      std::fprintf(stderr, "latency_bench: nothing came within 5 s\n");
      return 1;
    }
  }
  std::vector<double> scraped;
  int answers = 0;
  {
    const Scraper scraper(*lab);
    for (int i = 0; i < rounds; ++i) {
      scraped.push_back(denied_to_row(*lab, static_cast<std::uint16_t>(30'000 + i)));
      std::this_thread::sleep_for(100ms);
    }
    answers = scraper.answers();
  }
  report("denied packet -> row visible", rows);
  report("  the same while /metrics is scraped", scraped);
  std::printf("  %d scrapes meanwhile\n", answers);
  report("  yardstick: plain SQLite row -> visible", plain_rows(folder, rounds));
  report("policy file saved -> rules active", active);
  report("  yardstick: one nft process, one rule", nft);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::max(5, std::atoi(argv[1])) : 50;
  const fs::path folder = fs::temp_directory_path() / ("tierlog-bench-" + std::to_string(::getpid()));
  const int code = run(rounds, folder);
  fs::remove_all(folder);
  return code;
}
