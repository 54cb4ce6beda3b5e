// tests/dataplane/shapes.h - Programs of the shapes that classifiers find easy and hard, of any size.
//
//   S1 each rule its own /24 and port        S2 200 selectors, a pod is in 4, both ends and the port
//   S3 all rules on one port, overlapping     S4 three tiers, Pass, Log, negations, ranges, source ports, UDP
//   S5 as S2, a pod is in 8                   S6 every rule could match by each condition alone, few do
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "policy/evaluate.h"
#include "policy/program.h"

namespace tierlog::dataplane::test {

enum class Shape { S1, S2, S3, S4, S5, S6 };
inline constexpr Shape kShapes[] = {Shape::S1, Shape::S2, Shape::S3, Shape::S4, Shape::S5, Shape::S6};
std::string name(Shape shape);

struct ShapedProgram {
  policy::Program program;           // one endpoint; class 0 is its ingress and egress
  std::vector<IpAddr> addresses;     // where packets come from and go to
  std::vector<std::uint16_t> ports;  // that rules name
};
ShapedProgram shaped_program(Shape shape, std::size_t rules, unsigned seed);
// A packet that meets the rules more often than chance would have it.
policy::Packet shaped_packet(const ShapedProgram& shaped, std::mt19937& engine);

}  // namespace tierlog::dataplane::test
