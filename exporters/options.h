// exporters/options.h - what an export is told: plain values, as tierlogd.yaml has them.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace tierlog::exporters {

struct TlsOptions {
  bool on = false;
  std::string ca{};           // PEM file; empty: the system's authorities
  std::string cert{}, key{};    // PEM files of our own certificate; both or none
  std::string server_name{};  // what the receiver's certificate must say; empty: the host
  bool verify = true;
};

struct AuthOptions {
  bool on = false;
  std::string shared_key_file{};       // first line; empty: the empty key
  std::string user{}, password_file{};   // both or none
  std::string hostname = "tierlog";  // how the receiver knows us; never the receiver's own name
};

enum class Compression : std::uint8_t { None, Gzip };

// Form and choice of what a record tells.
struct FormatOptions {
  std::string name = "tierlog";       // tierlog, calico, ecs, ocsf
  std::vector<std::string> fields{};    // paths that are kept; empty: all
  std::vector<std::string> omit{};      // paths that are left out of those
};

struct ForwardOptions {
  std::string host = "127.0.0.1";
  std::uint16_t port = 24224;
  std::string socket{};  // path of a Unix socket, in the place of host and port
  TlsOptions tls{};
  AuthOptions auth{};
  std::string tag = "tierlog.flows";  // {action}, {tier}, … stand for the record's values
  Compression compression = Compression::None;
  // Of entries, before compression. Fluent Bit refuses messages over 1,024,000 by default, on the wire and
  // unpacked.
  std::size_t max_chunk_bytes = 800'000;
  std::size_t in_flight = 4;                // chunks that may wait for their ack
  std::chrono::milliseconds timeout{5000};  // of each step: connect, bytes that move, an ack
  FormatOptions format{};
};

struct FileOptions {
  std::string path{};
  std::uint64_t rotate_bytes = 100ULL << 20;  // 0: never by size
  std::chrono::milliseconds rotate_every{0};  // 0: never by time
  std::size_t keep = 10;                      // rotated files
  enum class Sync : std::uint8_t {
    Always,  // before the cursor moves
    Every,   // at `sync_every`; until then the cursor waits
    Never,   // survives the daemon's death, not the machine's
  } sync = Sync::Every;
  std::chrono::milliseconds sync_every{1000};
  FormatOptions format{};
};

}  // namespace tierlog::exporters
