// dataplane/nftables/constants.h - numbers of the netfilter interface, by name, and those that the 6.1
// kernel headers do not have yet.
#pragma once

#include <netinet/in.h>

#include <linux/netfilter.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_tables.h>

#include <cstdint>

namespace tierlog::dataplane::nftables {

// linux/netfilter/nf_tables.h of 6.9: the table outlives its owner.
inline constexpr std::uint32_t kTableOwner = 0x2;    // NFT_TABLE_F_OWNER
inline constexpr std::uint32_t kTablePersist = 0x4;  // NFT_TABLE_F_PERSIST

// include/net/netfilter/nf_conntrack.h, not exported: state bits as `ct state` loads them.
inline constexpr std::uint32_t kCtInvalid = 1;
inline constexpr std::uint32_t kCtEstablished = 2;
inline constexpr std::uint32_t kCtRelated = 4;
inline constexpr std::uint32_t kCtNew = 8;
inline constexpr std::uint32_t kCtUntracked = 64;

// Types within a rule's user data: nft's own, and ours.
inline constexpr std::uint8_t kRuleComment = 0;
inline constexpr std::uint8_t kRuleSeal = 0x74;

// nft's numbers of data types: only for how `nft list` prints elements.
inline constexpr std::uint32_t kTypeInteger = 4;
inline constexpr std::uint32_t kTypeIpv4 = 7;
inline constexpr std::uint32_t kTypeIpv6 = 8;
inline constexpr std::uint32_t kTypeProtocol = 12;
inline constexpr std::uint32_t kTypePort = 13;
inline constexpr std::uint32_t kTypeInterface = 41;

inline constexpr const char* kTable = "tierlog";
// Stands while tables of an older layout are replaced.
inline constexpr const char* kHoldTable = "tierlog_hold";
// Version of the tables' own structure, kept in their user data. A table with another one is replaced by
// one of this as a whole.
inline constexpr const char* kLayout = "tierlog layout 3";

}  // namespace tierlog::dataplane::nftables
