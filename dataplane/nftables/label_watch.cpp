#include "dataplane/nftables/label_watch.h"

#include <libmnl/libmnl.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/table.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

#include "dataplane/nftables/constants.h"

namespace tierlog::dataplane::nftables {
namespace {

using TableHandle = Owned<nftnl_table, nftnl_table_free>;
using RuleHandle = Owned<nftnl_rule, nftnl_rule_free>;

bool is_foreign(const std::string& table) {
  return table != kTable && table != kHoldTable;
}

// `ct label set` of nft, and what iptables puts beside it (a match that also sets).
int find_label_writer(nftnl_expr* expression, void* into) {
  const std::string kind = nftnl_expr_get_str(expression, NFTNL_EXPR_NAME);
  const bool sets = kind == "ct" && nftnl_expr_is_set(expression, NFTNL_EXPR_CT_SREG) &&
                    nftnl_expr_get_u32(expression, NFTNL_EXPR_CT_KEY) == NFT_CT_LABELS;
  const bool matches =
      kind == "match" && std::string(nftnl_expr_get_str(expression, NFTNL_EXPR_MT_NAME)) == "connlabel";
  if (sets || matches) *static_cast<bool*>(into) = true;
  return 0;
}

bool writes_labels(const nftnl_rule* rule) {
  bool writes = false;
  nftnl_expr_foreach(const_cast<nftnl_rule*>(rule), find_label_writer, &writes);
  return writes;
}

bool is_writer(const nlmsghdr* message) {
  const RuleHandle rule(nftnl_rule_alloc());
  return nftnl_rule_nlmsg_parse(message, rule.get()) >= 0 &&
         is_foreign(nftnl_rule_get_str(rule.get(), NFTNL_RULE_TABLE)) && writes_labels(rule.get());
}

Result<std::set<std::pair<std::uint8_t, std::string>>> foreign_tables(NetfilterSocket& socket) {
  std::set<std::pair<std::uint8_t, std::string>> tables;
  TL_TRY(socket.dump(
      NFT_MSG_GETTABLE, NFPROTO_UNSPEC, [](nlmsghdr*) {},
      [&](const nlmsghdr* message) {
        const TableHandle table(nftnl_table_alloc());
        if (nftnl_table_nlmsg_parse(message, table.get()) < 0) return;
        const std::string name = nftnl_table_get_str(table.get(), NFTNL_TABLE_NAME);
        const auto family = static_cast<std::uint8_t>(nftnl_table_get_u32(table.get(), NFTNL_TABLE_FAMILY));
        if (is_foreign(name)) tables.emplace(family, name);
      }));
  return tables;
}

}  // namespace

// Table by table: ours may hold ten thousands of rules.
Result<std::vector<std::string>> read_foreign_label_writers(NetfilterSocket& socket) {
  TL_ASSIGN(const auto tables, foreign_tables(socket));
  std::set<std::string> found;
  for (const auto& [family, name] : tables) {
    const RuleHandle wanted(nftnl_rule_alloc());
    nftnl_rule_set_str(wanted.get(), NFTNL_RULE_TABLE, name.c_str());
    TL_TRY(socket.dump(
        NFT_MSG_GETRULE, family,
        [&](nlmsghdr* header) { nftnl_rule_nlmsg_build_payload(header, wanted.get()); },
        [&](const nlmsghdr* message) {
          const RuleHandle rule(nftnl_rule_alloc());
          if (nftnl_rule_nlmsg_parse(message, rule.get()) < 0 || !writes_labels(rule.get())) return;
          const std::string table = nftnl_rule_get_str(rule.get(), NFTNL_RULE_TABLE);
          if (is_foreign(table))
            found.insert("table " + table + " chain " + nftnl_rule_get_str(rule.get(), NFTNL_RULE_CHAIN));
        }));
  }
  return std::vector<std::string>(found.begin(), found.end());
}

Result<std::unique_ptr<LabelWatch>> LabelWatch::open(std::uint32_t own_port) {
  Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_NETFILTER));
  if (!socket) return fail(Error::from_errno(errno, "open", "netlink socket (foreign rules)"));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  const int group = NFNLGRP_NFTABLES;
  if (::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) < 0 ||
      ::setsockopt(socket.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) < 0)
    return fail(Error::from_errno(errno, "listen to", "foreign rules"));
  TL_ASSIGN(auto dumps, NetfilterSocket::open());
  std::unique_ptr<LabelWatch> watch(new LabelWatch(std::move(socket), std::move(dumps), own_port));
  TL_ASSIGN(watch->writers_, read_foreign_label_writers(watch->dumps_));
  return watch;
}

// While there are writers, any change of others may have taken them away.
bool LabelWatch::news() {
  constexpr int kNewRule = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWRULE;
  std::array<char, 64 * 1024> buffer{};
  bool news = false;
  while (true) {
    const ssize_t got = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == ENOBUFS) {
      news = true;
      continue;
    }
    if (got <= 0) return news;
    int length = static_cast<int>(got);
    for (auto* message = reinterpret_cast<nlmsghdr*>(buffer.data()); mnl_nlmsg_ok(message, length);
         message = mnl_nlmsg_next(message, &length)) {
      if (message->nlmsg_pid == own_port_) continue;
      news = news || !writers_.empty() || (message->nlmsg_type == kNewRule && is_writer(message));
    }
  }
}

Result<bool> LabelWatch::on_readable() {
  if (!news()) return false;
  TL_ASSIGN(auto writers, read_foreign_label_writers(dumps_));
  return std::exchange(writers_, writers) != writers;
}

}  // namespace tierlog::dataplane::nftables
