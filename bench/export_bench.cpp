// How fast records leave by the Forward protocol, beside the time that msgpack-cxx takes to encode the same
// records, ready made as objects; and how fast a receiver that was away is caught up, while records are being
// written.
//
//   build/release/bin/export_bench [RECORDS]       default 200,000
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <msgpack.hpp>
#include <string>
#include <thread>
#include <vector>

#include "base/handle.h"
#include "bench/support.h"
#include "daemon/export_worker.h"
#include "exporters/fluentbit/forward_sink.h"
#include "exporters/fluentbit/record_pack.h"
#include "store/flow_store.h"

namespace tierlog {
namespace {

namespace fs = std::filesystem;
using exporters::Compression;
using exporters::ForwardOptions;
using exporters::fluentbit::ForwardSink;

const store::Origin kOrigin{"cluster", "node-1"};
constexpr std::size_t kInMemory = 20'000;
constexpr int kRounds = 5;

double seconds_of(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// Of all threads of this process.
double cpu_seconds() {
  return seconds_of(CLOCK_PROCESS_CPUTIME_ID);
}

// As a node has them: pods of some workloads, a third denied, a trace of some entries.
store::FlowRecord record_of(std::size_t i) {
  store::FlowRecord record;
  char id[40];
  std::snprintf(id, sizeof id, "018f0000-0000-7000-8000-%012zx", i);
  record.id = id;
  record.start = from_ns(1'795'292'047'000'000'000 + static_cast<std::int64_t>(i) * 1'000'003);
  record.end = record.start + std::chrono::milliseconds(7);
  record.reporter = store::Reporter::Destination;
  record.direction = Direction::Ingress;
  record.action = i % 3 == 0 ? store::Verdict::Deny : store::Verdict::Allow;
  record.reason = Reason::Policy;
  const std::size_t space = i % 20, policy = i % 60;
  record.tier = "platform";
  record.policy_kind = "NetworkPolicy";
  record.policy_namespace = "tenant-" + std::to_string(space);
  record.policy_name = "policy-" + std::to_string(policy);
  record.policy = "platform/" + record.policy_namespace + "/" + record.policy_name;
  record.rule_index = static_cast<int>(i % 4);
  record.rule = RuleId{static_cast<std::uint32_t>(0x100 + policy * 4 + i % 4)};
  record.policy_revision = 3;
  record.trace = {
      {Direction::Ingress, "security", "security//quarantine", std::nullopt, "no-match"},
      {Direction::Ingress, "platform", record.policy, record.rule_index, std::string(name(record.action))}};
  record.proto = protocol::kTcp;
  record.src_port = static_cast<std::uint16_t>(30'000 + i % 20'000);
  record.dst_port = static_cast<std::uint16_t>(8000 + i % 10);
  const auto peer = [](std::size_t number, std::size_t in) {
    store::Peer one;
    one.ip = IpAddr::v4(0x0af40000U + static_cast<std::uint32_t>(number % 500));
    one.kind = store::PeerKind::Pod;
    one.peer_namespace = "tenant-" + std::to_string(in);
    one.workload = "workload-" + std::to_string(number % 100);
    one.name = one.workload + "-7c9f8d6b5-" + std::to_string(number % 500);
    one.labels = {{"app", one.workload}, {"pod-template-hash", "7c9f8d6b5"}, {"role", "backend"}};
    return one;
  };
  record.src = peer(i * 7, (i * 3) % 20);
  record.dst = peer(i * 11 + 1, space);
  if (record.action == store::Verdict::Allow) record.connections = 1;
  record.verdict_packets = 1;
  record.packets_out = 1;
  record.packets_in = 0;
  record.bytes_out = 60;
  record.bytes_in = 0;
  record.tcp_flags = "s";
  record.ct_state = "new";
  return record;
}

std::vector<store::StoredRecord> records_of(std::size_t first, std::size_t count) {
  std::vector<store::StoredRecord> records;
  for (std::size_t i = 0; i < count; ++i)
    records.push_back({static_cast<std::int64_t>(first + i), record_of(first + i)});
  return records;
}

// --- the receiver: takes messages by their headers, looks at no entry, acknowledges

bool read_exactly(int socket, char* into, std::size_t size) {
  while (size > 0) {
    const ssize_t got = ::recv(socket, into, size, 0);
    if (got <= 0) return false;
    into += got;
    size -= static_cast<std::size_t>(got);
  }
  return true;
}

std::size_t big_endian(const std::string& bytes) {
  std::size_t value = 0;
  for (const char byte : bytes) value = value << 8 | static_cast<unsigned char>(byte);
  return value;
}

class Receiver {
 public:
  explicit Receiver(const std::string& unix_path) : unix_(unix_path) {
    if (!unix_.empty()) {
      sockaddr_un address{};
      address.sun_family = AF_UNIX;
      unix_.copy(address.sun_path, sizeof(address.sun_path) - 1);
      listener_ = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
      if (::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) std::abort();
    } else {
      sockaddr_in address{};
      address.sin_family = AF_INET;
      address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
      listener_ = Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
      socklen_t size = sizeof address;
      if (::bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), size) != 0 ||
          ::getsockname(listener_.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0)
        std::abort();
      port_ = ntohs(address.sin_port);
    }
    if (::listen(listener_.get(), 4) != 0) std::abort();
    thread_ = std::thread([this] { serve(); });
  }
  ~Receiver() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
    if (!unix_.empty()) fs::remove(unix_);
  }
  std::uint16_t port() const { return port_; }
  std::uint64_t records() const { return records_; }
  std::uint64_t bytes() const { return bytes_; }
  double cpu() {
    clockid_t clock{};
    return ::pthread_getcpuclockid(thread_.native_handle(), &clock) == 0 ? seconds_of(clock) : 0;
  }

 private:
  void serve() {
    while (true) {
      const Fd socket(::accept(listener_.get(), nullptr, nullptr));
      if (!socket) return;
      while (take(socket.get())) {
      }
    }
  }
  bool read(int socket, std::string& into, std::size_t size) {
    into.resize(size);
    bytes_ += size;
    return read_exactly(socket, into.data(), size);
  }
  bool take(int socket) {
    std::string head, tag, length, options;
    if (!read(socket, head, 2)) return false;
    if (!read(socket, tag, static_cast<unsigned char>(head[1]) & 31U) || !read(socket, head, 1)) return false;
    const unsigned kind = static_cast<unsigned char>(head[0]) - 0xc4U;  // bin 8, 16, 32
    if (kind > 2 || !read(socket, length, std::size_t{1} << kind)) return false;
    if (!read(socket, entries_, big_endian(length))) return false;
    // The options: a byte at a time until they are whole; they are short.
    std::string byte;
    while (options.size() < 200) {
      std::size_t used = 0;
      if (!read(socket, byte, 1)) return false;
      options += byte;
      try {
        const auto handle = msgpack::unpack(options.data(), options.size(), used);
        return answer(socket, handle.get());
      } catch (const msgpack::insufficient_bytes&) {
      }
    }
    return false;
  }
  bool answer(int socket, const msgpack::object& options) {
    msgpack::sbuffer buffer;
    msgpack::packer<msgpack::sbuffer> packer(buffer);
    for (const auto& entry : options.via.map) {
      if (entry.key.as<std::string>() == "size") records_ += entry.val.as<std::uint64_t>();
      if (entry.key.as<std::string>() != "chunk") continue;
      packer.pack_map(1);
      packer.pack("ack");
      packer.pack(entry.val.as<std::string>());
    }
    return ::send(socket, buffer.data(), buffer.size(), MSG_NOSIGNAL) > 0;
  }

  std::string unix_, entries_;
  std::uint16_t port_ = 0;
  Fd listener_;
  std::atomic<std::uint64_t> records_ = 0, bytes_ = 0;
  std::thread thread_;
};

// --- rates

struct Rate {
  double per_second = 0;
  double cpu_ns = 0;  // a record, of all threads but the receiver's
};

double no_receiver() {
  return 0;
}

template <typename Work, typename Receivers>
Rate rate_of(std::size_t records, const Work& work, const Receivers& receivers) {
  std::vector<Rate> rates;
  for (int round = 0; round < kRounds; ++round) {
    const auto began = bench::Stopwatch::now();
    const double cpu = cpu_seconds() - receivers();
    work();
    rates.push_back({static_cast<double>(records) / (bench::ms_since(began) / 1000),
                     (cpu_seconds() - receivers() - cpu) * 1e9 / static_cast<double>(records)});
  }
  std::sort(rates.begin(), rates.end(),
            [](const Rate& a, const Rate& b) { return a.per_second < b.per_second; });
  return rates[rates.size() / 2];
}

void print(const char* what, const Rate& rate, const Rate& yardstick, double mb) {
  std::printf("%-44s %9.0f/s  %7.0f ns CPU  %5.2f of the yardstick's rate  %6.0f bytes a record\n", what,
              rate.per_second, rate.cpu_ns, rate.per_second / yardstick.per_second, mb);
}

Rate plain_encode(const std::vector<store::StoredRecord>& records) {
  const exporters::RecordFormat format{exporters::FormatOptions{}};
  std::string bytes;
  for (const auto& stored : records)
    exporters::fluentbit::append_record(bytes, format, stored.record, kOrigin);
  std::vector<msgpack::object_handle> objects;
  for (std::size_t at = 0; at < bytes.size();)
    objects.push_back(msgpack::unpack(bytes.data(), bytes.size(), at));
  msgpack::sbuffer buffer(bytes.size());
  return rate_of(
      objects.size(),
      [&] {
        buffer.clear();
        for (const auto& object : objects) msgpack::pack(buffer, object.get());
      },
      no_receiver);
}

void measure_sending(const std::string& folder) {
  const auto records = records_of(0, kInMemory);
  const Rate yardstick = plain_encode(records);
  print("plain msgpack encode (yardstick)", yardstick, yardstick, 0);
  for (const bool by_unix : {true, false})
    for (const Compression compression : {Compression::None, Compression::Gzip}) {
      Receiver receiver(by_unix ? folder + "/receiver.sock" : "");
      ForwardOptions options;
      options.port = receiver.port();
      if (by_unix) options.socket = folder + "/receiver.sock";
      options.compression = compression;
      {
        auto sink = ForwardSink::make(options, kOrigin).value();
        const Rate rate = rate_of(
            records.size(),
            [&] {
              for (std::span<const store::StoredRecord> rest(records); !rest.empty();) {
                rest = rest.subspan(sink->take(rest.first(std::min<std::size_t>(rest.size(), 2000))));
                if (!sink->deliver()) std::abort();
              }
            },
            [&] { return receiver.cpu(); });
        if (receiver.records() != records.size() * kRounds) std::abort();
        const std::string what = std::string(by_unix ? "Unix socket" : "TCP on loopback") +
                                 (compression == Compression::Gzip ? ", gzip" : "");
        print(what.c_str(), rate, yardstick,
              static_cast<double>(receiver.bytes()) / static_cast<double>(receiver.records()));
      }
    }
}

// --- catching up

struct Commits {
  double median_ms = 0, p99_ms = 0;
};

// Writes batches at a pace for a while, or until `done`.
template <typename Done>
Commits write_at_pace(store::FlowStore& store, std::size_t& next, const Done& done) {
  constexpr std::size_t kBatch = 200;
  std::vector<double> times;
  while (!done(times.size())) {
    std::vector<store::FlowRecord> batch;
    for (std::size_t i = 0; i < kBatch; ++i) batch.push_back(record_of(next++));
    const auto began = bench::Stopwatch::now();
    if (!store.insert(batch)) std::abort();
    times.push_back(bench::ms_since(began));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times[times.size() * 99 / 100]};
}

void measure_catching_up(const std::string& folder, std::size_t count) {
  daemon::Config config;
  config.store_path = folder + "/flows.db";
  config.cluster = kOrigin.cluster;
  config.node = kOrigin.node;
  auto store = store::FlowStore::open_writer(config.store_path, kOrigin);
  if (!store) std::abort();
  std::size_t next = 0;
  while (next < count) {
    std::vector<store::FlowRecord> batch;
    for (std::size_t i = 0; i < 2000; ++i) batch.push_back(record_of(next++));
    if (!store->insert(batch)) std::abort();
  }
  const Commits alone = write_at_pace(*store, next, [](std::size_t commits) { return commits >= 100; });
  for (const bool gzip : {false, true}) {
    Receiver receiver(folder + "/receiver.sock");
    daemon::ExportConfig target;
    target.name = gzip ? "gzip" : "plain";
    target.forward.socket = folder + "/receiver.sock";
    if (gzip) target.forward.compression = Compression::Gzip;
    const auto waiting = static_cast<std::int64_t>(next);
    const auto began = bench::Stopwatch::now();
    double ms = 0;
    daemon::ExportWorker worker(target, config);
    const Commits beside = write_at_pace(*store, next, [&](std::size_t commits) {
      if (ms == 0 && worker.status().delivered_sequence >= waiting) ms = bench::ms_since(began);
      return ms > 0 && commits >= 50;
    });
    std::printf("%-44s %9.0f/s; commits beside it: median %.2f ms, p99 %.2f ms; alone: %.2f, %.2f\n",
                gzip ? "catching up from the flow index, gzip" : "catching up from the flow index",
                static_cast<double>(waiting) / (ms / 1000), beside.median_ms, beside.p99_ms, alone.median_ms,
                alone.p99_ms);
  }
}

int run(std::size_t count) {
  const std::string folder =
      (fs::temp_directory_path() / ("tierlog-export-" + std::to_string(::getpid()))).string();
  fs::create_directories(folder);
  measure_sending(folder);
  measure_catching_up(folder, count);
  fs::remove_all(folder);
  return 0;
}

}  // namespace
}  // namespace tierlog

int main(int argc, char** argv) {
  return tierlog::run(argc > 1 ? static_cast<std::size_t>(std::atoll(argv[1])) : 200'000);
}
