// dataplane/ebpf/events.h - what the BPF programs tell, read from their ring buffer.
//
//   programs --ring buffer--> [EbpfEvents] --VerdictEvent--> logger/
//                                   `--tl_ended--> who asked for ends
//
// The descriptor wakes its reader at the first event after it has read everything, not at each.
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "base/handle.h"
#include "dataplane/ebpf/layout.h"
#include "dataplane/events.h"

struct ring_buffer;

namespace tierlog::dataplane::ebpf {

class EbpfEvents final : public EventSource {
 public:
  // `events`, `losses`: maps; the source keeps them open. Errors: Refused.
  // `older`: rings of programs before these, read first.
  static Result<std::unique_ptr<EbpfEvents>> open(int events, int losses, const std::vector<int>& older = {});
  ~EbpfEvents() override;

  Result<bool> drain(std::vector<VerdictEvent>& into, std::size_t limit) override;
  EventLoss loss() const override;
  // It always says so.
  bool tell_translations(bool) override { return true; }
  int fd() const;  // borrowed, to wait on
  // Connections whose ports began another one, in the order of events.
  std::vector<tl_ended> take_ended() { return std::exchange(ended_, {}); }

 private:
  EbpfEvents() = default;
  static int on_sample(void* self, void* data, unsigned long size);

  std::vector<Fd> rings_;
  Fd losses_;
  ring_buffer* ring_ = nullptr;
  std::vector<VerdictEvent>* into_ = nullptr;
  std::size_t left_ = 0;
  Nanoseconds wall_minus_monotonic_{};
  std::vector<tl_ended> ended_;
  std::uint64_t undecodable_ = 0;
};

IpAddr address_of(const std::uint8_t (&bytes)[16], std::uint8_t family);
// CLOCK_REALTIME minus CLOCK_MONOTONIC now.
Nanoseconds wall_offset();

}  // namespace tierlog::dataplane::ebpf
