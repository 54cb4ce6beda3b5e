// Programs are swapped under packets of a pod: none meets two of them.
#include <bpf/bpf.h>
#include <sys/mman.h>

#include <atomic>
#include <functional>
#include <thread>

#include "base/handle.h"
#include "tests/dataplane/ebpf_pods.h"

namespace tierlog::dataplane::test {
namespace {

class EbpfSwap : public EbpfKernel {
 protected:
  // Two Programs that share no rule: a Log rule and an end each.
  struct Side {
    RuleId log{}, end{};
    std::uint32_t root = 0, klass = 0;
  };
  Side put(const std::string& name) {
    const auto program = enforce("apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: " + name +
                                 ", namespace: a}\nspec: {selector: app == 'p', types: [Egress], egress: [{action: Log}]}\n");
    const std::uint32_t klass = program->endpoints.front().egress_class;
    return {program->rules.front().id, program->ends.front().id, backend_->root(), backend_->installed().class_reference(klass)};
  }
  // Packets meet both while `swap` goes on: how many met one and the other, and how many a part of each.
  struct Met {
    std::size_t of[2] = {0, 0}, mixed = 0;
  };
  Met meet(const Side& one, const Side& two, int rounds, const std::function<void(std::uint64_t)>& swap) {
    std::atomic<bool> stop{false};
    std::thread swapper([&] {
      for (std::uint64_t i = 0; !stop; ++i) swap(i);
    });
    const RuleId logs[] = {one.log, two.log}, ends[] = {one.end, two.end};
    Met met;
    for (int round = 0; round < rounds; ++round) {
      for (int i = 0; i < 100; ++i) static_cast<void>(out_of_p(from_p("203.0.113.9", 80)));
      const auto told = events();
      EXPECT_EQ(told.size() % 2, 0u);
      for (std::size_t i = 0; i + 1 < told.size(); i += 2)
        for (std::size_t which = 0; which < 2; ++which)
          if (told[i].rule == logs[which]) told[i + 1].rule == ends[which] ? ++met.of[which] : ++met.mixed;
    }
    stop = true;
    swapper.join();
    return met;
  }
  // The memory that programs read a segment from.
  std::uint8_t* map_segment(std::uint32_t index) const {
    std::uint32_t id = 0;
    EXPECT_EQ(::bpf_map_lookup_elem(backend_->programs().segments(), &index, &id), 0);
    const Fd map(::bpf_map_get_fd_by_id(id));
    void* bytes = ::mmap(nullptr, TL_SEGMENT_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, map.get(), 0);
    EXPECT_NE(bytes, MAP_FAILED);
    return static_cast<std::uint8_t*>(bytes);
  }
};

// Swapped while packets meet a Log rule and an end: both must be of one.
TEST_F(EbpfSwap, NoPacketMeetsTwoPrograms) {
  const Side one = put("one"), two = put("two");  // nothing is swept before the next apply
  const Met met = meet(one, two, 200, [&](std::uint64_t i) {
    __atomic_store_n(&backend_->programs().config().root, i % 2 == 0 ? one.root : two.root, __ATOMIC_RELEASE);
  });
  EXPECT_EQ(met.mixed, 0u);
  EXPECT_GT(met.of[0], 100u);
  EXPECT_GT(met.of[1], 100u);
}

// The control: the rules of one are written over with those of the other, one by one, where packets read them. That must
// be seen.
TEST_F(EbpfSwap, WhatIsWrittenOverInPlaceIsMixed) {
  const Side one = put("one"), two = put("two");
  std::uint8_t* bytes = map_segment(two.klass >> TL_SEGMENT_BITS);
  ASSERT_EQ(one.klass >> TL_SEGMENT_BITS, two.klass >> TL_SEGMENT_BITS);
  const auto head = [&](const Side& side) { return reinterpret_cast<tl_class*>(bytes + (side.klass & (TL_SEGMENT_SIZE - 1))); };
  const auto rules = [&](const Side& side) { return reinterpret_cast<tl_rule*>(bytes + head(side)->rules); };
  const auto tier = [&](const Side& side) { return reinterpret_cast<tl_tier*>(bytes + head(side)->tiers); };
  const std::uint32_t log = tier(two)->log_word * 64, end = tier(two)->end;
  const tl_rule both[2][2] = {{rules(one)[log], rules(one)[end]}, {rules(two)[log], rules(two)[end]}};
  ASSERT_EQ(both[1][0].id, number(two.log));
  ASSERT_EQ(both[1][1].id, number(two.end));
  const Met met = meet(one, two, 200, [&](std::uint64_t i) {
    rules(two)[log] = both[i % 2][0];
    std::this_thread::sleep_for(std::chrono::microseconds(20));
    rules(two)[end] = both[i % 2][1];
  });
  ::munmap(bytes, TL_SEGMENT_SIZE);
  EXPECT_GT(met.mixed, 0u);
}

}  // namespace
}  // namespace tierlog::dataplane::test
