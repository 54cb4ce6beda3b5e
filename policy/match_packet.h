// policy/match_packet.h - one conjunction against one packet: the first criterion that does not hold.
//
//   Match + Packet --[first_mismatch]--> nothing (it matches), or what evaluate.h turns into a `why`
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "policy/evaluate.h"
#include "policy/program.h"

namespace tierlog::policy {

struct Mismatch {
  enum class Criterion : std::uint8_t {
    Protocol,
    NotProtocol,
    Icmp,
    NotIcmp,
    InSet,
    NotInSet,
    Family,
    Ports,
    NotPorts,
    Service,
    Never,
  } criterion{};
  bool of_destination = false;
  std::uint32_t set = kNone;  // of InSet and NotInSet
};

std::optional<Mismatch> first_mismatch(const Program& program, const Match& match, const Packet& packet);
// "source is not role == 'api'", "destination port is not 5432".
std::string why(const Program& program, const Match& match, const Packet& packet, const Mismatch& mismatch);

}  // namespace tierlog::policy
