#include "dataplane/ebpf/events.h"

#include <bpf/libbpf.h>
#include <fcntl.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "dataplane/ebpf/programs.h"

namespace tierlog::dataplane::ebpf {
namespace {

constexpr int kEnough = -E2BIG;

Nanoseconds now_of(clockid_t clock) {
  timespec time{};
  ::clock_gettime(clock, &time);
  return std::chrono::seconds(time.tv_sec) + Nanoseconds(time.tv_nsec);
}

}  // namespace

Nanoseconds wall_offset() {
  return now_of(CLOCK_REALTIME) - now_of(CLOCK_MONOTONIC);
}

IpAddr address_of(const std::uint8_t (&bytes)[16], std::uint8_t family) {
  IpAddr address;
  address.family = family == 6 ? Family::V6 : Family::V4;
  std::copy(bytes, bytes + address.size(), address.bytes.begin());
  return address;
}

Result<std::unique_ptr<EbpfEvents>> EbpfEvents::open(int events, int losses, const std::vector<int>& older) {
  std::unique_ptr<EbpfEvents> source(new EbpfEvents);
  for (const int ring : older) source->rings_.emplace_back(::fcntl(ring, F_DUPFD_CLOEXEC, 0));
  source->rings_.emplace_back(::fcntl(events, F_DUPFD_CLOEXEC, 0));
  source->losses_ = Fd(::fcntl(losses, F_DUPFD_CLOEXEC, 0));
  const auto on_sample = [](void* self, void* data, std::size_t size) {
    return EbpfEvents::on_sample(self, data, size);
  };
  source->ring_ = ::ring_buffer__new(source->rings_.front().get(), on_sample, source.get(), nullptr);
  bool opened = source->ring_ != nullptr;
  for (std::size_t i = 1; opened && i < source->rings_.size(); ++i)
    opened = ::ring_buffer__add(source->ring_, source->rings_[i].get(), on_sample, source.get()) == 0;
  if (!opened) return fail(Error::from_errno(errno, "open BPF ring buffer", "events"));
  return source;
}

EbpfEvents::~EbpfEvents() {
  ::ring_buffer__free(ring_);
}

int EbpfEvents::fd() const {
  return ::ring_buffer__epoll_fd(ring_);
}

int EbpfEvents::on_sample(void* self, void* data, unsigned long size) {
  auto& source = *static_cast<EbpfEvents*>(self);
  if (size == sizeof(tl_ended)) {
    source.ended_.emplace_back();
    std::memcpy(&source.ended_.back(), data, sizeof(tl_ended));
  } else if (size == sizeof(tl_event)) {
    tl_event raw;
    std::memcpy(&raw, data, sizeof raw);
    VerdictEvent& event = source.into_->emplace_back();
    event.kind = static_cast<EventKind>(raw.kind);
    event.rule = RuleId{raw.rule};
    event.time = WallTime(Nanoseconds(static_cast<std::int64_t>(raw.time)) + source.wall_minus_monotonic_);
    event.source = address_of(raw.source, raw.family);
    event.destination = address_of(raw.destination, raw.family);
    event.protocol = raw.protocol;
    event.source_port = raw.source_port;
    event.destination_port = raw.destination_port;
    event.icmp_type = raw.icmp_type;
    event.icmp_code = raw.icmp_code;
    event.icmp_id = raw.icmp_id;
    event.tcp_flags = raw.tcp_flags;
    event.length = raw.length;
    event.in_connection = raw.in_connection != 0;
    event.alone = raw.alone != 0;
    if (raw.is_service != 0) event.addressed = Addressed{address_of(raw.service, raw.family), raw.service_port};
    event.apart = event.kind == EventKind::Allowed && event.addressed &&
                  (event.addressed->address != event.destination || event.addressed->port != event.destination_port);
    event.in_interface = raw.in_interface;
    event.out_interface = raw.in_interface == raw.out_interface ? 0 : raw.out_interface;
  } else {
    ++source.undecodable_;
  }
  return --source.left_ == 0 ? kEnough : 0;
}

Result<bool> EbpfEvents::drain(std::vector<VerdictEvent>& into, std::size_t limit) {
  into_ = &into;
  left_ = std::max<std::size_t>(limit, 1);
  wall_minus_monotonic_ = wall_offset();
  const int taken = ::ring_buffer__consume(ring_);
  into_ = nullptr;
  if (taken == kEnough) return true;
  if (taken < 0) return fail(Error::from_errno(-taken, "read BPF ring buffer", "events"));
  return false;
}

EventLoss EbpfEvents::loss() const {
  EventLoss loss;
  loss.undecodable = undecodable_;
  loss.ring_full = lost(losses_.get(), TL_LOSS_RING).value_or(0);
  loss.logs_untold = lost(losses_.get(), TL_LOSS_LOGS).value_or(0);
  loss.left_behind = lost(losses_.get(), TL_LOSS_LEFT).value_or(0);
  return loss;
}

}  // namespace tierlog::dataplane::ebpf
