// The programs use what Linux 5.10 has: read from the instructions and maps of the object that is embedded, as no such
// kernel is at hand to load them.
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <elf.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

namespace tierlog::dataplane::test {
namespace {

constexpr const char* kObject = TIERLOG_BINARY_DIR "/dataplane/ebpf/bpf/tierlog.bpf.o";

// The newest of 5.10: bpf_redirect_peer. bpf_task_storage_get came with 5.11.
constexpr std::int32_t kLastHelper = 155;
// BPF_MAP_TYPE_INODE_STORAGE.
constexpr int kLastMapType = 28;
constexpr std::uint8_t kModeMask = 0xe0, kModeAtomic = 0xc0, kModeSigned = 0x80;

// What of one instruction 5.10 does not know; empty: nothing. `wide`: it takes two places.
std::string newer(const bpf_insn& insn, bool& wide) {
  const int kind = insn.code & 0x07;
  wide = insn.code == (BPF_LD | BPF_IMM | 0x18);
  if (wide) return insn.src_reg > BPF_PSEUDO_BTF_ID ? "an address of a function (5.13)" : "";
  if (insn.code == (BPF_JMP | BPF_CALL)) {
    if (insn.src_reg == BPF_PSEUDO_CALL) return "";
    if (insn.src_reg != 0) return "a call of a kernel function (5.13)";
    return insn.imm > kLastHelper ? "helper " + std::to_string(insn.imm) : "";
  }
  if (kind == BPF_STX && (insn.code & kModeMask) == kModeAtomic && insn.imm != 0)
    return "an atomic operation other than an addition (5.12)";
  if (kind == BPF_LDX && (insn.code & kModeMask) == kModeSigned) return "a load with its sign (6.6)";
  if ((kind == BPF_ALU || kind == BPF_ALU64) && insn.off != 0) return "a signed division or move (6.6)";
  if (kind == BPF_ALU64 && (insn.code & 0xf0) == BPF_END) return "an unconditional swap of bytes (6.6)";
  if (insn.code == (BPF_JMP32 | BPF_JA)) return "a far jump (6.6)";
  return "";
}

std::vector<std::string> findings(const std::vector<bpf_insn>& code) {
  std::vector<std::string> found;
  for (std::size_t i = 0; i < code.size(); ++i) {
    bool wide = false;
    if (std::string what = newer(code[i], wide); !what.empty()) found.push_back(std::to_string(i) + ": " + what);
    if (wide) ++i;
  }
  return found;
}

// Of all sections with programs, functions that several call too.
std::vector<std::vector<bpf_insn>> sections() {
  std::ifstream file(kObject, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
  std::vector<std::vector<bpf_insn>> found;
  if (bytes.size() < sizeof(Elf64_Ehdr)) return found;
  Elf64_Ehdr head;
  std::memcpy(&head, bytes.data(), sizeof head);
  for (std::size_t i = 0; i < head.e_shnum; ++i) {
    Elf64_Shdr section;
    std::memcpy(&section, bytes.data() + head.e_shoff + i * head.e_shentsize, sizeof section);
    if ((section.sh_flags & SHF_EXECINSTR) == 0 || section.sh_size == 0) continue;
    auto& code = found.emplace_back(section.sh_size / sizeof(bpf_insn));
    std::memcpy(code.data(), bytes.data() + section.sh_offset, code.size() * sizeof(bpf_insn));
  }
  return found;
}

TEST(EbpfFeatures, InstructionsAndHelpersAreOfLinux510) {
  const auto all = sections();
  ASSERT_GE(all.size(), 2u) << kObject << ": programs, and functions that they share";
  std::size_t calls = 0;
  for (const auto& code : all) {
    for (const bpf_insn& insn : code) calls += insn.code == (BPF_JMP | BPF_CALL) && insn.src_reg == 0 ? 1 : 0;
    EXPECT_EQ(findings(code), std::vector<std::string>{});
  }
  EXPECT_GE(calls, 50u) << "helpers are called at all";
}

TEST(EbpfFeatures, MapsAreOfLinux510) {
  const std::unique_ptr<bpf_object, decltype(&::bpf_object__close)> object(::bpf_object__open_file(kObject, nullptr),
                                                                          &::bpf_object__close);
  ASSERT_TRUE(object);
  const bpf_map* map = nullptr;
  std::size_t count = 0;
  bpf_object__for_each_map(map, object.get()) {
    EXPECT_LE(static_cast<int>(::bpf_map__type(map)), kLastMapType) << ::bpf_map__name(map);
    ++count;
  }
  EXPECT_GE(count, 10u);
}

const btf_type* bare(const btf* types, std::uint32_t id) {
  const btf_type* type = btf__type_by_id(types, id);
  while (type != nullptr && (btf_is_mod(type) || btf_is_typedef(type))) type = btf__type_by_id(types, type->type);
  return type;
}

// Functions that are verified for themselves take numbers and the packet, at most five, and return a number: pointers to
// memory came with 5.12. Names of those that do not.
std::vector<std::string> functions_newer(const btf* types, std::size_t* looked_at = nullptr) {
  const auto is_number = [](const btf_type* type) { return type != nullptr && (btf_is_int(type) || btf_is_enum(type)); };
  const auto is_packet = [&](const btf_type* type) {
    if (type == nullptr || !btf_is_ptr(type)) return false;
    const btf_type* to = bare(types, type->type);
    return to != nullptr && btf_is_struct(to) && std::string(btf__name_by_offset(types, to->name_off)) == "__sk_buff";
  };
  std::vector<std::string> found;
  for (std::uint32_t id = 1; id < btf__type_cnt(types); ++id) {
    const btf_type* function = btf__type_by_id(types, id);
    if (!btf_is_func(function) || btf_vlen(function) != BTF_FUNC_GLOBAL) continue;
    if (looked_at != nullptr) ++*looked_at;
    const btf_type* prototype = btf__type_by_id(types, function->type);
    bool good = btf_vlen(prototype) <= 5 && is_number(bare(types, prototype->type));
    for (std::uint16_t i = 0; i < btf_vlen(prototype); ++i) {
      const btf_type* parameter = bare(types, btf_params(prototype)[i].type);
      good = good && (is_number(parameter) || is_packet(parameter));
    }
    if (!good) found.emplace_back(btf__name_by_offset(types, function->name_off));
  }
  return found;
}

using Types = std::unique_ptr<btf, decltype(&::btf__free)>;

TEST(EbpfFeatures, ArgumentsOfFunctionsAreOfLinux510) {
  const Types types(btf__parse_elf(kObject, nullptr), &::btf__free);
  ASSERT_TRUE(types);
  std::size_t count = 0;
  EXPECT_EQ(functions_newer(types.get(), &count), std::vector<std::string>{});
  EXPECT_GE(count, 30u) << "functions are looked at at all";
}

// The control.
TEST(EbpfFeatures, ArgumentsThatAreNewerAreSeen) {
  const Types types(btf__new_empty(), &::btf__free);
  btf* of = types.get();
  const int number = btf__add_int(of, "int", 4, BTF_INT_SIGNED);
  const int other = btf__add_struct(of, "room", 4), packet = btf__add_struct(of, "__sk_buff", 4);
  const int to_other = btf__add_ptr(of, other), to_packet = btf__add_ptr(of, packet), to_number = btf__add_ptr(of, number);
  const auto add = [&](const char* name, int returns, const std::vector<int>& arguments, btf_func_linkage linkage) {
    const int prototype = btf__add_func_proto(of, returns);
    for (const int argument : arguments) btf__add_func_param(of, "a", argument);
    btf__add_func(of, name, linkage, prototype);
  };
  add("good", number, {to_packet, number, number}, BTF_FUNC_GLOBAL);
  add("inlined", to_other, {to_other}, BTF_FUNC_STATIC);
  add("memory", number, {to_packet, to_other}, BTF_FUNC_GLOBAL);
  add("place", number, {to_number}, BTF_FUNC_GLOBAL);
  add("returns memory", to_other, {}, BTF_FUNC_GLOBAL);
  add("returns nothing", 0, {number}, BTF_FUNC_GLOBAL);
  add("six", number, std::vector<int>(6, number), BTF_FUNC_GLOBAL);
  EXPECT_EQ(functions_newer(of), (std::vector<std::string>{"memory", "place", "returns memory", "returns nothing", "six"}));
}

// The control: each of these must be found.
TEST(EbpfFeatures, WhatIsNewerIsSeen) {
  const struct {
    const char* name;
    bpf_insn insn;
  } planted[] = {
      {"bpf_loop", {BPF_JMP | BPF_CALL, 0, 0, 0, 181}},
      {"bpf_task_storage_get", {BPF_JMP | BPF_CALL, 0, 0, 0, 156}},
      {"a kernel function", {BPF_JMP | BPF_CALL, 0, 2, 0, 7}},
      {"a fetching addition", {BPF_STX | 0x18 | kModeAtomic, 1, 2, 0, 1}},
      {"an exchange", {BPF_STX | 0x18 | kModeAtomic, 1, 2, 0, 0xe1}},
      {"an address of a function", {BPF_LD | BPF_IMM | 0x18, 1, 4, 0, 0}},
      {"a load with its sign", {BPF_LDX | kModeSigned, 1, 2, 0, 0}},
      {"a signed division", {BPF_ALU64 | BPF_DIV, 1, 2, 1, 0}},
      {"an unconditional swap", {BPF_ALU64 | BPF_END, 1, 0, 0, 32}},
      {"a far jump", {BPF_JMP32 | BPF_JA, 0, 0, 0, 1}},
  };
  for (const auto& one : planted) EXPECT_EQ(findings({one.insn}).size(), 1u) << one.name;
  // What 5.10 has.
  const bpf_insn known[] = {{BPF_JMP | BPF_CALL, 0, 0, 0, 69},
                            {BPF_JMP | BPF_CALL, 0, 1, 0, 100},
                            {BPF_STX | 0x18 | kModeAtomic, 1, 2, 0, 0},
                            {BPF_ALU | BPF_END, 1, 8, 0, 16}};
  for (const bpf_insn& insn : known) EXPECT_TRUE(findings({insn}).empty()) << int{insn.code};
}

}  // namespace
}  // namespace tierlog::dataplane::test
