// bench/way.h - a way of packets through a node of its own, and what judging costs them there.
//
//   source --veth--> node (routes, judges) --veth--> sink (drops at its ingress)
// The sender's frames go through the whole way in its own context, so its CPU time and that of its CPU's
// ksoftirqd is the packet's. A second process takes the log messages, as the daemon does.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench/support.h"
#include "dataplane/events.h"
#include "dataplane/nftables/backend.h"

namespace tierlog::dataplane::ebpf {
class EbpfBackend;
}

namespace tierlog::bench {

inline constexpr int kSenderCpu = 0;
inline constexpr int kReaderCpu = 1;
inline constexpr std::size_t kFlows = 1000;  // established ones
inline constexpr const char* kSource = "10.1.0.2";
inline constexpr const char* kSink = "10.2.0.2";

// What a way is judged by.
struct WaySetup {
  std::string name;
  bool tierlog = true;      // else conntrack alone
  bool told = false;        // of conntrack alone: one rule that counts, marks and logs what opens a connection
  bool both_local = false;  // source and sink are pods of the node: two directions are judged and logged
  bool guard = true;
  std::string policies;                    // of pod a/source (and a/sink)
  std::vector<policy::Endpoint> others{};  // pods elsewhere
  dataplane::nftables::TableOptions options{};
  bool programs = false;      // by the eBPF data plane
  bool tracks = false;        // the kernel tracks connections beside it
};

using Frame = std::array<std::uint8_t, 242>;
struct SharedCount;

class Way {
 public:
  explicit Way(WaySetup setup);
  ~Way();
  Way(const Way&) = delete;
  Way& operator=(const Way&) = delete;

  // Each flow opened and answered, so that conntrack knows it as established.
  void establish();
  // ns of CPU a packet. UDP to port 9000 and above, `flows` different ones.
  double send(const SenderCpu& cpu, std::size_t packets, std::size_t flows);
  void forget_flows();
  std::uint64_t events() const;
  std::uint64_t lost() const { return lost_; }
  // Packets that the rules allowed by a policy: each opened a connection.
  std::uint64_t judged();
  // Who follows connections here: the programs, or conntrack; where both do, what both have at least.
  std::size_t connections();
  // Packets from source to sink of those. Conntrack counts them from the first call on, unless it did before.
  std::uint64_t followed();
  const WaySetup& setup() const { return setup_; }
  double apply_ms() const { return apply_ms_; }

 private:
  void lay_links();
  void track_only();
  void judge();
  std::unique_ptr<dataplane::Backend> open_backend();
  std::unique_ptr<dataplane::EventSource> open_events() const;
  void start_reader();
  static void put(const Fd& socket, const Frame& frame);
  std::uint64_t arrived() const;

  const WaySetup setup_;
  Fd source_, node_, sink_, sender_, replier_, flusher_;
  std::unique_ptr<dataplane::Backend> backend_;
  dataplane::ebpf::EbpfBackend* programs_ = nullptr;
  SharedCount* shared_ = nullptr;
  pid_t reader_ = 0;
  std::uint64_t lost_ = 0;
  double apply_ms_ = 0;
};

using Ways = std::vector<std::unique_ptr<Way>>;
using Figures = std::vector<std::vector<double>>;  // by way, by round

// In turns, each round beginning with another one.
Figures take_turns(const Ways& ways, int rounds, const std::function<double(Way&)>& measure);

struct PacketFigures {
  Figures established, fresh;
  bool sound = true;  // every packet arrived, every first one was told once a direction
};
// Prints what an established packet and the first one of a connection cost by each way, beside the first way. Where whoever
// should have judged or followed them has not had every packet, this program ends (3) with the reason, and no figure.
PacketFigures measure_packets(const Ways& ways, int rounds, std::size_t established_packets, std::size_t new_flows);

}  // namespace tierlog::bench
