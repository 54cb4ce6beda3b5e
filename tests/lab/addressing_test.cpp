// Subnets and gateways for the addresses that topologies name.
#include "lab/addressing.h"

#include <gtest/gtest.h>

#include <random>

namespace tierlog::lab {
namespace {

template <typename T>
std::vector<T> all(const std::vector<const char*>& texts) {
  std::vector<T> values;
  for (const char* text : texts) values.push_back(*T::parse(text));
  return values;
}

struct Plan {
  const char* name;
  Cni cni;
  std::vector<const char*> fixed, foreign, dynamic;
  const char* asked;
  const char* subnet;  // of `asked`; empty: refused
  const char* gateway;
};

void PrintTo(const Plan& plan, std::ostream* out) {
  *out << plan.name;
}

class Addressing : public testing::TestWithParam<Plan> {};

TEST_P(Addressing, GivesASubnetAndAFreeGateway) {
  const Plan& plan = GetParam();
  auto made = AddressPlan::make(plan.cni, all<IpAddr>(plan.fixed), all<IpAddr>(plan.foreign),
                                all<Cidr>(plan.dynamic));
  ASSERT_TRUE(made) << made.error().message;
  const auto subnet = made->subnet_of(*IpAddr::parse(plan.asked));
  EXPECT_EQ(subnet ? subnet->cidr.to_string() : "", plan.subnet);
  EXPECT_EQ(subnet ? subnet->gateway.to_string() : "", plan.gateway);
}

INSTANTIATE_TEST_SUITE_P(
    Lab, Addressing,
    testing::Values(
        Plan{"usual", Cni::Ptp, {"10.1.0.5"}, {}, {}, "10.1.0.5", "10.1.0.0/24", "10.1.0.1"},
        Plan{"usual_v6", Cni::Ptp, {"fd01::5"}, {}, {}, "fd01::5", "fd01::/64", "fd01::1"},
        Plan{"first_is_a_pod",
             Cni::Ptp,
             {"10.1.0.1", "10.1.0.2"},
             {},
             {},
             "10.1.0.2",
             "10.1.0.0/24",
             "10.1.0.3"},
        Plan{"first_is_foreign",
             Cni::Ptp,
             {"10.1.0.9"},
             {"10.1.0.1"},
             {},
             "10.1.0.9",
             "10.1.0.0/24",
             "10.1.0.2"},
        Plan{"broadcast_is_a_pod", Cni::Ptp, {"10.1.0.255"}, {}, {}, "10.1.0.255", "10.1.0.0/23", "10.1.0.1"},
        Plan{"network_is_a_pod", Cni::Ptp, {"10.1.1.0"}, {}, {}, "10.1.1.0", "10.1.0.0/23", "10.1.0.1"},
        Plan{"broadcast_is_foreign",
             Cni::Ptp,
             {"10.1.0.5"},
             {"10.1.0.255"},
             {},
             "10.1.0.5",
             "10.1.0.0/23",
             "10.1.0.1"},
        Plan{"came_later", Cni::Ptp, {"10.1.0.5"}, {}, {}, "172.16.9.4", "172.16.9.0/24", "172.16.9.1"},
        Plan{"later_is_a_gateway", Cni::Ptp, {"10.1.0.5"}, {}, {}, "10.1.0.1", "", ""},
        Plan{"bridge_holds_all",
             Cni::Bridge,
             {"10.1.0.5", "10.1.3.9"},
             {},
             {},
             "10.1.3.9",
             "10.1.0.0/22",
             "10.1.0.1"},
        Plan{"bridge_holds_dynamic",
             Cni::Bridge,
             {"10.1.0.5"},
             {},
             {"10.1.1.0/24"},
             "10.1.0.5",
             "10.1.0.0/23",
             "10.1.0.1"},
        Plan{"bridge_keeps_wide_dynamic",
             Cni::Bridge,
             {},
             {},
             {"10.8.0.0/16"},
             "10.8.4.4",
             "10.8.0.0/16",
             "10.8.0.1"},
        Plan{"bridge_later_elsewhere", Cni::Bridge, {"10.1.0.5"}, {}, {}, "10.2.0.5", "", ""},
        Plan{"bridge_v6",
             Cni::Bridge,
             {"fd01::5", "fd01:0:0:1::7"},
             {},
             {},
             "fd01::5",
             "fd01::/63",
             "fd01::1"}),
    [](const auto& param) { return param.param.name; });

TEST(AddressPlan, RefusesABridgeOverFarAddresses) {
  const auto plan = AddressPlan::make(Cni::Bridge, all<IpAddr>({"10.1.0.5", "192.168.0.5"}), {}, {});
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().code, ErrorCode::InvalidArgument);
  EXPECT_NE(plan.error().message.find("192.168.0.5"), std::string::npos) << plan.error().message;
}

std::vector<std::string> texts(const std::vector<AddressPlan::Range>& ranges) {
  std::vector<std::string> found;
  for (const auto& range : ranges) found.push_back(range.first.to_string() + "-" + range.last.to_string());
  return found;
}

using Texts = std::vector<std::string>;

TEST(AddressPlan, DynamicRangesLeaveOutWhatIsTaken) {
  const auto plan =
      AddressPlan::make(Cni::Ptp, all<IpAddr>({"10.244.0.7", "10.244.0.254", "10.1.0.2"}),
                        all<IpAddr>({"10.244.0.9"}), all<Cidr>({"10.244.0.0/24", "fd00:244::/64"}));
  ASSERT_TRUE(plan);
  EXPECT_EQ(texts(plan->ranges(Family::V4)),
            (Texts{"10.244.0.2-10.244.0.6", "10.244.0.8-10.244.0.8", "10.244.0.10-10.244.0.253"}));
  EXPECT_EQ(texts(plan->ranges(Family::V6)), (Texts{"fd00:244::2-fd00:244::ffff:ffff:ffff:ffff"}));
}

// For any addresses: no gateway, network or broadcast address of a subnet is somebody's.
TEST(AddressPlan, NeverTakesAnybodysAddress) {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    std::vector<IpAddr> fixed;
    const auto address = [&] { return IpAddr::v4(0x0a000000u | (random() & 0x3ffu)); };
    for (int i = 0; i < 40; ++i) {
      const IpAddr one = address();
      if (one != IpAddr::v4(0x0a000000u)) fixed.push_back(one);  // the first of /8 has nowhere to go
    }
    auto plan = AddressPlan::make(Cni::Ptp, fixed, {}, {});
    ASSERT_TRUE(plan);
    const std::set<IpAddr> used(fixed.begin(), fixed.end());
    for (const auto& one : fixed) {
      const auto subnet = plan->subnet_of(one);
      ASSERT_TRUE(subnet) << subnet.error().message;
      EXPECT_TRUE(subnet->cidr.contains(one));
      EXPECT_TRUE(subnet->cidr.contains(subnet->gateway));
      EXPECT_FALSE(used.contains(subnet->gateway)) << subnet->gateway.to_string();
      EXPECT_FALSE(one == subnet->cidr.address || one == subnet->cidr.last()) << one.to_string();
    }
  }
}

}  // namespace
}  // namespace tierlog::lab
