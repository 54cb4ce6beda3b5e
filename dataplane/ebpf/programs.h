// dataplane/ebpf/programs.h - the loaded programs, their maps, and where they are attached.
//
//   tierlog.bpf.c --libbpf--> kernel <--[Programs]--> backend.h, events.h
//
// Maps that must outlive the process (flows, denied flows, counters, events) are pinned; whoever comes next
// takes them over. Programs are held by the filters they are attached as: replaced one by one, never absent.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "dataplane/ebpf/layout.h"
#include "dataplane/ebpf/limits.h"

struct tierlog_bpf;

namespace tierlog::dataplane::ebpf {

// Ours among the filters of an interface: `tc filter show dev X ingress` names them. At pods' interfaces, at the node's.
inline constexpr std::uint32_t kFilterHandle = 0x7431;
inline constexpr std::uint32_t kNodeFilterHandle = 0x7432;
inline constexpr std::uint32_t kFilterPriority = 4610;

enum class Hook : std::uint8_t { Out, In };  // out of the pod (tc ingress), into it (tc egress)

// Whose interface programs stand at. Of the node's own, Out is what comes in by it.
enum class Whose : std::uint8_t {
  Pod,
  Node,
  NodeRaw,  // its frames are IP packets with no header before: tunnels' devices
};

class Programs {
 public:
  // `pins`: a folder of a BPF file system; empty: nothing outlives the process. Errors: Refused, with what
  // the kernel says of the program it did not take.
  // Maps that are there already have these sizes (older_maps.h sees to it).
  static Result<std::unique_ptr<Programs>> load(const std::string& pins, const Limits& limits);
  ~Programs();

  int segments() const;
  int flows() const;
  int denied() const;
  int counters() const;
  int slots() const;
  int losses() const;
  int events() const;
  int services() const;
  int origins() const;
  int log_limits() const;
  tl_config& config() { return *config_; }
  bool adopted() const { return adopted_; }  // maps of a process before this one

  // Errors: Refused; NotFound when the interface is gone.
  Result<void> attach(int ifindex, Hook hook, Whose whose = Whose::Pod);
  // Whether what is attached is what this process attached.
  bool is_attached(int ifindex, Hook hook, Whose whose = Whose::Pod) const;
  // Whether a filter of ours is there, whoever attached it.
  static bool has_filter(int ifindex, Hook hook, bool of_node);
  // How many programs of others run before the filters (tcx, since 6.6).
  static std::uint32_t in_front(int ifindex, Hook hook);
  // Whether there was one of ours.
  static bool detach(int ifindex, Hook hook);
  static bool detach(int ifindex, Hook hook, bool of_node);

  // Adds to what the programs count. False: there was no room for the entry. Errors: Refused.
  Result<bool> merge(const tl_merged& merged) const;
  // The kernel's answer to `question`. Errors: Refused.
  Result<tl_answer> ask(const tl_question& question) const;
  // Runs a program on a frame of `interface`; TC_ACT_….
  Result<int> run(Hook hook, const std::vector<std::uint8_t>& frame, int ifindex, int ingress_ifindex,
                  Whose whose = Whose::Pod) const;

 private:
  Programs() = default;
  int program(Hook hook, Whose whose) const;
  tierlog_bpf* skeleton_ = nullptr;
  tl_config* config_ = nullptr;
  bool adopted_ = false;
};

// The sum over all CPUs of an entry's words. Errors: Refused.
Result<std::vector<std::uint64_t>> sum_of_cpus(int map, std::uint32_t key, std::size_t words);

// A cause's losses, those of maps before these included. Errors: Refused.
Result<std::uint64_t> lost(int map, std::uint32_t cause);

// The maps that are pinned, by name.
struct PinnedMap {
  const char* name;
  std::uint32_t type, key_size, value_size, max_entries;
};
std::vector<PinnedMap> pinned_maps(const Limits& limits);

}  // namespace tierlog::dataplane::ebpf
