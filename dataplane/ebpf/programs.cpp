#include "dataplane/ebpf/programs.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <sys/mman.h>
#include <tierlog.skel.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <mutex>

#include "base/handle.h"

namespace tierlog::dataplane::ebpf {
namespace {

// What libbpf says while it loads: kept, and shown only when the kernel refuses.
std::mutex told_mutex;
std::string told;

int keep_message(libbpf_print_level level, const char* format, va_list arguments) {
  if (level == LIBBPF_DEBUG) return 0;
  char line[2048];
  const int length = std::vsnprintf(line, sizeof line, format, arguments);
  const std::lock_guard lock(told_mutex);
  told += line;
  if (told.size() > 65536) told.erase(0, told.size() - 65536);
  return length;
}

// The line before the verifier's last sums is what it refuses.
std::string last_words() {
  const std::lock_guard lock(told_mutex);
  std::string found;
  std::size_t from = 0;
  while (from < told.size()) {
    const std::size_t to = std::min(told.find('\n', from), told.size());
    const std::string line = told.substr(from, to - from);
    if (line.find("processed ") != std::string::npos && !found.empty()) break;
    if (!line.empty() && line.find("-- BEGIN") == std::string::npos) found = line;
    from = to + 1;
  }
  return found.substr(0, 300);
}

bpf_tc_hook hook_of(int ifindex, Hook hook) {
  bpf_tc_hook value{};
  value.sz = sizeof value;
  value.ifindex = ifindex;
  value.attach_point = hook == Hook::Out ? BPF_TC_INGRESS : BPF_TC_EGRESS;
  return value;
}

bpf_tc_opts ours(bool of_node) {
  bpf_tc_opts options{};
  options.sz = sizeof options;
  options.handle = of_node ? kNodeFilterHandle : kFilterHandle;
  options.priority = kFilterPriority;
  return options;
}

constexpr std::size_t kEtherHead = 14;

void set_sizes(const tierlog_bpf& skeleton, const Limits& limits) {
  const auto& maps = skeleton.maps;
  ::bpf_map__set_max_entries(maps.flows, limits.flows);
  ::bpf_map__set_max_entries(maps.denied, limits.denied);
  ::bpf_map__set_max_entries(maps.services, limits.services);
  ::bpf_map__set_max_entries(maps.tuples, limits.tuples);
  ::bpf_map__set_max_entries(maps.segments, limits.segments);
  for (bpf_map* map : {maps.counters, maps.slots, maps.log_limits}) ::bpf_map__set_max_entries(map, limits.slots());
}

}  // namespace

std::vector<PinnedMap> pinned_maps(const Limits& limits) {
  return {{"flows", BPF_MAP_TYPE_HASH, sizeof(tl_flow_key), sizeof(tl_flow), limits.flows},
          {"denied", BPF_MAP_TYPE_HASH, sizeof(tl_denied_key), sizeof(tl_denied), limits.denied},
          {"counters", BPF_MAP_TYPE_PERCPU_ARRAY, 4, sizeof(tl_counter), limits.slots()},
          {"slots", BPF_MAP_TYPE_ARRAY, 4, sizeof(tl_slot), limits.slots()},
          {"losses", BPF_MAP_TYPE_PERCPU_ARRAY, 4, 8, 2 * TL_LOSSES},
          {"events", BPF_MAP_TYPE_RINGBUF, 0, 0, TL_RING_BYTES}};
}

Result<std::unique_ptr<Programs>> Programs::load(const std::string& pins, const Limits& limits) {
  ::libbpf_set_print(keep_message);
  std::unique_ptr<Programs> programs(new Programs);
  programs->skeleton_ = tierlog_bpf::open();
  if (programs->skeleton_ == nullptr) return fail(Error::from_errno(errno, "open BPF programs"));
  set_sizes(*programs->skeleton_, limits);
  if (!pins.empty()) {
    for (const PinnedMap& pinned : pinned_maps(limits)) {
      const std::string path = pins + "/" + pinned.name;
      programs->adopted_ = programs->adopted_ || ::access(path.c_str(), F_OK) == 0;
      ::bpf_map__set_pin_path(::bpf_object__find_map_by_name(programs->skeleton_->obj, pinned.name), path.c_str());
    }
  }
  if (const int error = tierlog_bpf::load(programs->skeleton_); error != 0) {
    Error refused = Error::from_errno(-error, "load BPF programs");
    refused.code = ErrorCode::Refused;
    if (const std::string words = last_words(); !words.empty()) refused.message += " (" + words + ")";
    return fail(std::move(refused));
  }
  void* config = ::mmap(nullptr, static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)), PROT_READ | PROT_WRITE,
                        MAP_SHARED, ::bpf_map__fd(programs->skeleton_->maps.config), 0);
  if (config == MAP_FAILED) return fail(Error::from_errno(errno, "map a BPF map's memory", "config"));
  programs->config_ = static_cast<tl_config*>(config);
  return programs;
}

Programs::~Programs() {
  if (config_ != nullptr) ::munmap(config_, static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)));
  tierlog_bpf::destroy(skeleton_);
}

int Programs::segments() const {
  return ::bpf_map__fd(skeleton_->maps.segments);
}
int Programs::flows() const {
  return ::bpf_map__fd(skeleton_->maps.flows);
}
int Programs::denied() const {
  return ::bpf_map__fd(skeleton_->maps.denied);
}
int Programs::counters() const {
  return ::bpf_map__fd(skeleton_->maps.counters);
}
int Programs::slots() const {
  return ::bpf_map__fd(skeleton_->maps.slots);
}
int Programs::losses() const {
  return ::bpf_map__fd(skeleton_->maps.losses);
}
int Programs::events() const {
  return ::bpf_map__fd(skeleton_->maps.events);
}

int Programs::services() const {
  return ::bpf_map__fd(skeleton_->maps.services);
}

int Programs::origins() const {
  return ::bpf_map__fd(skeleton_->maps.origins);
}

int Programs::log_limits() const {
  return ::bpf_map__fd(skeleton_->maps.log_limits);
}

int Programs::program(Hook hook, Whose whose) const {
  const auto& all = skeleton_->progs;
  if (whose == Whose::Node) return ::bpf_program__fd(hook == Hook::Out ? all.tierlog_host_in : all.tierlog_host_out);
  if (whose == Whose::NodeRaw) return ::bpf_program__fd(hook == Hook::Out ? all.tierlog_raw_in : all.tierlog_raw_out);
  return ::bpf_program__fd(hook == Hook::Out ? all.tierlog_out : all.tierlog_in);
}

Result<void> Programs::attach(int ifindex, Hook hook, Whose whose) {
  // One queue for both directions; there may be one, of others too, and it is never taken away.
  bpf_tc_hook both = hook_of(ifindex, hook);
  both.attach_point = static_cast<bpf_tc_attach_point>(BPF_TC_INGRESS | BPF_TC_EGRESS);
  if (const int error = ::bpf_tc_hook_create(&both); error != 0 && error != -EEXIST) {
    Error failed = Error::from_errno(-error, "add clsact to interface", std::to_string(ifindex));
    failed.code = error == -ENODEV ? ErrorCode::NotFound : ErrorCode::Refused;
    return fail(std::move(failed));
  }
  const bpf_tc_hook here = hook_of(ifindex, hook);
  bpf_tc_opts options = ours(whose != Whose::Pod);
  options.prog_fd = program(hook, whose);
  options.flags = BPF_TC_F_REPLACE;
  const int error = ::bpf_tc_attach(&here, &options);
  if (error == 0) return {};
  Error failed = Error::from_errno(-error, "attach a BPF program to interface", std::to_string(ifindex));
  failed.code = error == -ENODEV ? ErrorCode::NotFound : ErrorCode::Refused;
  return fail(std::move(failed));
}

bool Programs::is_attached(int ifindex, Hook hook, Whose whose) const {
  const bpf_tc_hook here = hook_of(ifindex, hook);
  bpf_tc_opts options = ours(whose != Whose::Pod);
  if (::bpf_tc_query(&here, &options) != 0) return false;
  bpf_prog_info info{};
  std::uint32_t length = sizeof info;
  return ::bpf_obj_get_info_by_fd(program(hook, whose), &info, &length) == 0 && info.id == options.prog_id;
}

bool Programs::has_filter(int ifindex, Hook hook, bool of_node) {
  ::libbpf_set_print(keep_message);
  const bpf_tc_hook here = hook_of(ifindex, hook);
  bpf_tc_opts options = ours(of_node);
  return ::bpf_tc_query(&here, &options) == 0;
}

std::uint32_t Programs::in_front(int ifindex, Hook hook) {
  // Of linux/bpf.h since 6.6: BPF_TCX_INGRESS, BPF_TCX_EGRESS.
  const auto type = static_cast<bpf_attach_type>(hook == Hook::Out ? 46 : 47);
  std::array<std::uint32_t, 64> ids{};
  auto count = static_cast<std::uint32_t>(ids.size());
  return ::bpf_prog_query(ifindex, type, 0, nullptr, ids.data(), &count) == 0 ? count : 0;
}

bool Programs::detach(int ifindex, Hook hook, bool of_node) {
  ::libbpf_set_print(keep_message);
  const bpf_tc_hook here = hook_of(ifindex, hook);
  const bpf_tc_opts options = ours(of_node);
  return ::bpf_tc_detach(&here, &options) == 0;
}

bool Programs::detach(int ifindex, Hook hook) {
  const bool of_pod = detach(ifindex, hook, false);
  return detach(ifindex, hook, true) || of_pod;
}

Result<bool> Programs::merge(const tl_merged& merged) const {
  std::array<std::uint8_t, kEtherHead + sizeof(tl_merged) + 32> frame{};
  std::memcpy(frame.data() + kEtherHead, &merged, sizeof merged);
  LIBBPF_OPTS(bpf_test_run_opts, run);
  run.data_in = frame.data();
  run.data_size_in = static_cast<std::uint32_t>(frame.size());
  run.repeat = 1;
  if (::bpf_prog_test_run_opts(::bpf_program__fd(skeleton_->progs.tierlog_merge), &run) != 0)
    return fail(Error::from_errno(errno, "run BPF program", "tierlog_merge"));
  return run.retval != 0;
}

Result<tl_answer> Programs::ask(const tl_question& question) const {
  std::array<std::uint8_t, kEtherHead + sizeof(tl_question) + 32> frame{}, answered{};
  std::memcpy(frame.data() + kEtherHead, &question, sizeof question);
  LIBBPF_OPTS(bpf_test_run_opts, run);
  run.data_in = frame.data();
  run.data_size_in = static_cast<std::uint32_t>(frame.size());
  run.data_out = answered.data();
  run.data_size_out = static_cast<std::uint32_t>(answered.size());
  run.repeat = 1;
  if (::bpf_prog_test_run_opts(::bpf_program__fd(skeleton_->progs.tierlog_ask), &run) != 0)
    return fail(Error::from_errno(errno, "run BPF program", "tierlog_ask"));
  if (run.retval != 1) return fail(ErrorCode::Refused, "BPF program tierlog_ask did not answer");
  tl_answer answer;
  std::memcpy(&answer, answered.data() + kEtherHead, sizeof answer);
  return answer;
}

Result<int> Programs::run(Hook hook, const std::vector<std::uint8_t>& frame, int ifindex, int ingress_ifindex,
                          Whose whose) const {
  __sk_buff context{};
  context.ifindex = static_cast<std::uint32_t>(ifindex);
  context.ingress_ifindex = static_cast<std::uint32_t>(ingress_ifindex);
  LIBBPF_OPTS(bpf_test_run_opts, run);
  run.data_in = frame.data();
  run.data_size_in = static_cast<std::uint32_t>(frame.size());
  run.ctx_in = &context;
  run.ctx_size_in = sizeof context;
  run.repeat = 1;
  if (::bpf_prog_test_run_opts(program(hook, whose), &run) != 0)
    return fail(Error::from_errno(errno, "run BPF program"));
  return static_cast<int>(run.retval);
}

Result<std::vector<std::uint64_t>> sum_of_cpus(int map, std::uint32_t key, std::size_t words) {
  static const int cpus = ::libbpf_num_possible_cpus();
  if (cpus < 1) return fail(Error::from_errno(-cpus, "count CPUs"));
  std::vector<std::uint64_t> values(static_cast<std::size_t>(cpus) * words), sums(words);
  if (::bpf_map_lookup_elem(map, &key, values.data()) != 0)
    return fail(Error::from_errno(errno, "read a BPF map's entry", std::to_string(key)));
  for (std::size_t i = 0; i < values.size(); ++i) sums[i % words] += values[i];
  return sums;
}

Result<std::uint64_t> lost(int map, std::uint32_t cause) {
  TL_ASSIGN(const auto here, sum_of_cpus(map, cause, 1));
  TL_ASSIGN(const auto before, sum_of_cpus(map, TL_LOSSES + cause, 1));
  return here.front() + before.front();
}

}  // namespace tierlog::dataplane::ebpf
