// dataplane/nftables/constants.h - numbers of the netfilter interface, by name, and those that the 6.1
// kernel headers do not have yet.
#pragma once

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

inline constexpr const char* kTable = "tierlog";
// Version of the table's own structure, kept in the table's user data. A table with another one is
// refused instead of half understood.
inline constexpr const char* kLayout = "tierlog layout 1";

}  // namespace tierlog::dataplane::nftables
