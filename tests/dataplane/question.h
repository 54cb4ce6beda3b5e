// tests/dataplane/question.h - a packet as the program `ask` takes it, for tests and benches of the classifier.
#pragma once

#include <algorithm>

#include "dataplane/ebpf/layout.h"
#include "policy/evaluate.h"

namespace tierlog::dataplane::test {

inline tl_question question_of(const policy::Packet& packet, std::uint32_t root, std::uint32_t klass) {
  tl_question question{};
  question.root = root;
  question.klass = klass;
  std::copy(packet.source.bytes.begin(), packet.source.bytes.end(), question.source);
  std::copy(packet.destination.bytes.begin(), packet.destination.bytes.end(), question.destination);
  question.source_port = packet.source_port;
  question.destination_port = packet.destination_port;
  question.protocol = packet.protocol;
  question.family = packet.source.family == Family::V4 ? 4 : 6;
  question.icmp_type = packet.icmp_type;
  question.icmp_code = packet.icmp_code;
  return question;
}

}  // namespace tierlog::dataplane::test
