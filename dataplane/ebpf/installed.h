// dataplane/ebpf/installed.h - Programs as objects of the arena: what is put there, and when it may go.
//
//   policy/program.h --encode_class, address_table.h--> [Installed] --one store of config.root--> packets
//
// Everything a packet meets hangs on the root it reads once. A class whose content is as before keeps its
// object and its generation, so that connections it judged are not judged again. Where all is as before but who one
// address is, that is written into the table in force, and the root is another one of the same object.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dataplane/ebpf/address_table.h"
#include "dataplane/ebpf/arena.h"
#include "dataplane/ebpf/cells.h"
#include "dataplane/ebpf/encode_class.h"
#include "dataplane/ebpf/layout.h"
#include "dataplane/ebpf/limits.h"

namespace tierlog::dataplane::ebpf {

// What stands at an interface.
enum class Station : std::uint8_t {
  Pod,     // one of the enforced endpoints
  Closed,  // its pod is gone: nothing may come out
  Host,    // the node's own, of a host endpoint
  Plain,   // the node's own, of nobody: it only notes who sent what comes in
};

// An endpoint and its interface now.
struct Attached {
  Station station = Station::Plain;
  std::uint32_t endpoint = policy::kNone;  // into Program::endpoints; of a host, into Program::hosts
  std::uint32_t ifindex = 0;
  bool is_raw = false;  // of the node's own: no Ethernet header before IP's
};

class Installed {
 public:
  // `first`: numbers of generations and address epochs begin there; no process before this used them.
  // `audits`: the whole node is only watched.
  Installed(int segments, std::uint32_t first, bool audits = false, const Limits& limits = {})
      : arena_(segments, limits.segments), limits_(limits), audits_(audits), next_generation_(first), next_epoch_(first) {}

  // Puts the Program into the arena and returns its root; nothing reads it yet. On an error nothing of it is
  // left. Errors: InvalidArgument (a limit, with the number), Refused.
  Result<std::uint32_t> prepare(const policy::Program& program, const std::vector<Attached>& ends,
                                const SlotOf& slot_of);
  // Packets read the prepared root from now on, by `root`, where they look for it. As often as one likes.
  void flip(__u32& root);
  // They do: what only those before need is set aside.
  void commit(std::chrono::steady_clock::time_point now);
  // Frees what was set aside until then.
  void forget_older(std::chrono::steady_clock::time_point until);
  // The prepared root is not wanted.
  void abandon();

  const Arena& arena() const { return arena_; }
  std::uint32_t next_number() const { return std::max(next_generation_, next_epoch_); }
  // Of the prepared Program; 0 where a class has no endpoint.
  std::uint32_t class_reference(std::uint32_t endpoint_class) const;

 private:
  struct Placed {
    std::uint32_t reference = 0, generation = 0;
    bool wanted = false;  // by the prepared Program
  };
  Result<Placed> place_class(const policy::Program& program, std::uint32_t index, const SlotOf& slot_of);
  std::uint64_t digest_of(const policy::Program& program, std::uint32_t rule);
  std::string input_of(const policy::Program& program, std::uint32_t index);
  std::uint32_t generation_of(const std::vector<std::uint32_t>& content);
  Result<tl_endpoint> host_entry(const policy::Program& program, const Attached& end);
  Result<Blob> encode_root(const policy::Program& program, const std::vector<Attached>& ends);
  Result<std::uint32_t> put_together(const policy::Program& program, const std::vector<Attached>& ends);

  Arena arena_;
  Limits limits_;
  bool audits_;
  GroupNumbers groups_;
  IdentityNumbers identities_;
  std::uint32_t next_generation_, next_epoch_;
  std::map<std::string, Placed> classes_;  // by content
  // What a class is made of, and the content that came of it: it is not made again to find that it is the same.
  std::map<std::string, std::string> contents_;
  std::vector<std::optional<std::uint64_t>> digests_;  // of the prepared Program's rules
  std::map<std::uint32_t, Placed> by_class_;
  // Of a host endpoint's direction: by the generations of what is asked there, and by its failsafe ports.
  std::map<std::vector<std::uint32_t>, std::uint32_t> host_generations_;
  std::optional<AddressTable> addresses_;
  std::uint32_t epoch_ = 0;
  // An object with the endpoints and many heads (struct tl_root): each but the last was in force once.
  struct Root {
    std::uint32_t object = 0, heads = 0;
    std::string content;  // of all but the heads
  };
  Root root_;
  // What a prepared Program replaces.
  struct Prepared {
    std::uint32_t root = 0, epoch = 0;
    AddressPlan plan;
    std::vector<AddressTable::Store> stores;  // into the addresses in force
    std::optional<AddressTable> addresses;
    Root at;
  };
  std::optional<Prepared> prepared_;
  // What was replaced, by when.
  std::deque<std::pair<std::chrono::steady_clock::time_point, std::uint32_t>> older_;
};

}  // namespace tierlog::dataplane::ebpf
