#include "dataplane/nftables/remove.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <libnftnl/table.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "base/handle.h"
#include "dataplane/nftables/constants.h"
#include "dataplane/nftables/encode.h"
#include "dataplane/nftables/socket.h"

namespace tierlog::dataplane::nftables {
namespace {

using Table = Owned<nftnl_table, nftnl_table_free>;

constexpr std::chrono::milliseconds kInFlight{50};

struct Found {
  std::uint8_t family = 0;
  std::string name;
  std::string text;  // "inet tierlog"
  std::uint32_t flags = 0;
};

std::string family_name(std::uint8_t family) {
  switch (family) {
    case NFPROTO_INET:
      return "inet";
    case NFPROTO_IPV4:
      return "ip";
    case NFPROTO_IPV6:
      return "ip6";
    case NFPROTO_ARP:
      return "arp";
    case NFPROTO_BRIDGE:
      return "bridge";
    case NFPROTO_NETDEV:
      return "netdev";
    default:
      return "family " + std::to_string(family);
  }
}

Result<std::vector<Found>> find_tables(NetfilterSocket& socket) {
  std::vector<Found> found;
  TL_TRY(socket.dump(
      NFT_MSG_GETTABLE, NFPROTO_UNSPEC, [](nlmsghdr*) {},
      [&](const nlmsghdr* message) {
        const Table table(nftnl_table_alloc());
        if (nftnl_table_nlmsg_parse(message, table.get()) < 0) return;
        const std::string table_name(nftnl_table_get_str(table.get(), NFTNL_TABLE_NAME));
        if (table_name != kTable && table_name != kHoldTable) return;
        const auto family = static_cast<std::uint8_t>(nftnl_table_get_u32(table.get(), NFTNL_TABLE_FAMILY));
        found.push_back({family, table_name, family_name(family) + " " + table_name,
                         nftnl_table_get_u32(table.get(), NFTNL_TABLE_FLAGS)});
      }));
  return found;
}

}  // namespace

Result<std::vector<std::string>> remove_tables() {
  TL_ASSIGN(auto socket, NetfilterSocket::open());
  TL_ASSIGN(const auto tables, find_tables(socket));
  if (tables.empty()) return std::vector<std::string>();
  // Out of the way first: a packet that is in a chain while its maps go finds nothing there, and would be dropped. What
  // cannot be made dormant is taken away all the same.
  Batch dormant;
  for (const Found& table : tables) {
    dormant.set_table(table.family, table.name.c_str());
    add_table(dormant, table.flags | NFT_TABLE_F_DORMANT);
  }
  static_cast<void>(socket.commit(dormant));
  std::this_thread::sleep_for(kInFlight);
  Batch batch;
  std::vector<std::string> names;
  for (const Found& table : tables) {
    names.push_back(table.text);
    batch.set_table(table.family, table.name.c_str());
    delete_table(batch);
  }
  if (auto done = socket.commit(batch); !done) {
    if (done.error().errno_value == EPERM)
      return fail(done.error().in("another process owns the table (a tierlogd that runs?)"));
    return fail(done.error());
  }
  return names;
}

}  // namespace tierlog::dataplane::nftables
