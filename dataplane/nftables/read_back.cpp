#include "dataplane/nftables/read_back.h"

#include <libnftnl/chain.h>
#include <libnftnl/expr.h>
#include <libnftnl/object.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>

#include <algorithm>
#include <cstring>

#include "dataplane/nftables/constants.h"

namespace tierlog::dataplane::nftables {
namespace {

using Table = Owned<nftnl_table, nftnl_table_free>;
using ChainHandle = Owned<nftnl_chain, nftnl_chain_free>;
using SetHandle = Owned<nftnl_set, nftnl_set_free>;
using RuleHandle = Owned<nftnl_rule, nftnl_rule_free>;
using ObjectHandle = Owned<nftnl_obj, nftnl_obj_free>;

void all(nlmsghdr* /*header*/) {}

bool ours(const char* table) {
  return table != nullptr && std::strcmp(table, kTable) == 0;
}

std::uint32_t read_word(const std::uint8_t* bytes) {
  std::uint32_t value = 0;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

IpAddr read_address(const std::uint8_t* bytes, Family family) {
  IpAddr address;
  address.family = family;
  std::memcpy(address.bytes.data(), bytes, address.size());
  return address;
}

int take_counter(nftnl_expr* expression, void* into) {
  if (std::strcmp(nftnl_expr_get_str(expression, NFTNL_EXPR_NAME), "counter") != 0) return 0;
  auto* count = static_cast<DeniedCount*>(into);
  count->packets = nftnl_expr_get_u64(expression, NFTNL_EXPR_CTR_PACKETS);
  count->bytes = nftnl_expr_get_u64(expression, NFTNL_EXPR_CTR_BYTES);
  return 0;
}

int take_seal(const nftnl_udata* entry, void* into) {
  if (nftnl_udata_type(entry) == kRuleSeal)
    static_cast<std::string*>(into)->assign(static_cast<const char*>(nftnl_udata_get(entry)),
                                            nftnl_udata_len(entry));
  return 0;
}

// Calls `each` for every element of a set; the handle is valid during the call only.
Result<void> for_elements(NetfilterSocket& socket, const std::string& name, std::uint8_t family,
                          const std::function<void(nftnl_set_elem*)>& each) {
  const SetHandle wanted(nftnl_set_alloc());
  nftnl_set_set_str(wanted.get(), NFTNL_SET_TABLE, kTable);
  nftnl_set_set_str(wanted.get(), NFTNL_SET_NAME, name.c_str());
  const auto on_message = [&](const nlmsghdr* message) {
    const SetHandle set(nftnl_set_alloc());
    if (nftnl_set_elems_nlmsg_parse(message, set.get()) < 0) return;
    nftnl_set_elem_foreach(
        set.get(),
        [](nftnl_set_elem* element, void* data) {
          (*static_cast<const std::function<void(nftnl_set_elem*)>*>(data))(element);
          return 0;
        },
        const_cast<void*>(static_cast<const void*>(&each)));
  };
  auto done = socket.dump(
      NFT_MSG_GETSETELEM, family,
      [&](nlmsghdr* header) { nftnl_set_elems_nlmsg_build_payload(header, wanted.get()); }, on_message);
  if (!done) return fail(done.error().in("read set " + name));
  return {};
}

}  // namespace

Result<std::optional<std::string>> read_table_layout(NetfilterSocket& socket,
                                                     std::uint8_t family) {
  std::optional<std::string> layout;
  TL_TRY(socket.dump(NFT_MSG_GETTABLE, family, all, [&](const nlmsghdr* message) {
    const Table table(nftnl_table_alloc());
    if (nftnl_table_nlmsg_parse(message, table.get()) < 0) return;
    if (!ours(nftnl_table_get_str(table.get(), NFTNL_TABLE_NAME)) ||
        nftnl_table_get_u32(table.get(), NFTNL_TABLE_FAMILY) != family)
      return;
    std::uint32_t length = 0;
    const void* data = nftnl_table_get_data(table.get(), NFTNL_TABLE_USERDATA, &length);
    layout = data == nullptr ? "" : std::string(static_cast<const char*>(data), length);
    while (!layout->empty() && layout->back() == '\0') layout->pop_back();
  }));
  return layout;
}

Result<std::set<std::string>> read_chains(NetfilterSocket& socket, std::uint8_t family) {
  std::set<std::string> names;
  TL_TRY(socket.dump(NFT_MSG_GETCHAIN, family, all, [&](const nlmsghdr* message) {
    const ChainHandle chain(nftnl_chain_alloc());
    if (nftnl_chain_nlmsg_parse(message, chain.get()) < 0) return;
    if (ours(nftnl_chain_get_str(chain.get(), NFTNL_CHAIN_TABLE)))
      names.insert(nftnl_chain_get_str(chain.get(), NFTNL_CHAIN_NAME));
  }));
  return names;
}

Result<std::map<std::string, bool>> read_sets(NetfilterSocket& socket, std::uint8_t family) {
  const SetHandle wanted(nftnl_set_alloc());
  nftnl_set_set_str(wanted.get(), NFTNL_SET_TABLE, kTable);
  std::map<std::string, bool> sets;
  TL_TRY(socket.dump(
      NFT_MSG_GETSET, family, [&](nlmsghdr* header) { nftnl_set_nlmsg_build_payload(header, wanted.get()); },
      [&](const nlmsghdr* message) {
        const SetHandle set(nftnl_set_alloc());
        if (nftnl_set_nlmsg_parse(message, set.get()) < 0) return;
        if (ours(nftnl_set_get_str(set.get(), NFTNL_SET_TABLE)))
          sets.emplace(nftnl_set_get_str(set.get(), NFTNL_SET_NAME),
                       (nftnl_set_get_u32(set.get(), NFTNL_SET_FLAGS) & NFT_SET_EVAL) != 0);
      }));
  return sets;
}

Result<std::map<std::string, std::vector<std::string>>> read_seals(NetfilterSocket& socket,
                                                                   std::uint8_t family) {
  const RuleHandle wanted(nftnl_rule_alloc());
  nftnl_rule_set_str(wanted.get(), NFTNL_RULE_TABLE, kTable);
  std::map<std::string, std::vector<std::string>> seals;
  TL_TRY(socket.dump(
      NFT_MSG_GETRULE, family,
      [&](nlmsghdr* header) { nftnl_rule_nlmsg_build_payload(header, wanted.get()); },
      [&](const nlmsghdr* message) {
        const RuleHandle rule(nftnl_rule_alloc());
        if (nftnl_rule_nlmsg_parse(message, rule.get()) < 0) return;
        if (!ours(nftnl_rule_get_str(rule.get(), NFTNL_RULE_TABLE))) return;
        std::uint32_t length = 0;
        const void* data = nftnl_rule_get_data(rule.get(), NFTNL_RULE_USERDATA, &length);
        std::string seal;
        if (data != nullptr) nftnl_udata_parse(data, length, take_seal, &seal);
        seals[nftnl_rule_get_str(rule.get(), NFTNL_RULE_CHAIN)].push_back(std::move(seal));
      }));
  return seals;
}

Result<std::vector<NamedCounter>> read_counter_objects(NetfilterSocket& socket,
                                                       std::uint8_t family, const char* table) {
  const ObjectHandle wanted(nftnl_obj_alloc());
  nftnl_obj_set_str(wanted.get(), NFTNL_OBJ_TABLE, table);
  nftnl_obj_set_u32(wanted.get(), NFTNL_OBJ_TYPE, NFT_OBJECT_COUNTER);
  std::vector<NamedCounter> counters;
  TL_TRY(socket.dump(
      NFT_MSG_GETOBJ, family, [&](nlmsghdr* header) { nftnl_obj_nlmsg_build_payload(header, wanted.get()); },
      [&](const nlmsghdr* message) {
        const ObjectHandle object(nftnl_obj_alloc());
        if (nftnl_obj_nlmsg_parse(message, object.get()) < 0) return;
        if (std::strcmp(nftnl_obj_get_str(object.get(), NFTNL_OBJ_TABLE), table) != 0) return;
        counters.push_back({nftnl_obj_get_str(object.get(), NFTNL_OBJ_NAME),
                            nftnl_obj_get_u64(object.get(), NFTNL_OBJ_CTR_PKTS),
                            nftnl_obj_get_u64(object.get(), NFTNL_OBJ_CTR_BYTES)});
      }));
  return counters;
}

Result<std::vector<Element>> read_elements(NetfilterSocket& socket, const std::string& set,
                                           std::uint8_t family) {
  std::vector<Element> elements;
  TL_TRY(for_elements(socket, set, family, [&](nftnl_set_elem* element) {
    std::uint32_t length = 0;
    const auto* key =
        static_cast<const std::uint8_t*>(nftnl_set_elem_get(element, NFTNL_SET_ELEM_KEY, &length));
    if (key == nullptr) return;
    const bool end = nftnl_set_elem_is_set(element, NFTNL_SET_ELEM_FLAGS) &&
                     (nftnl_set_elem_get_u32(element, NFTNL_SET_ELEM_FLAGS) & NFT_SET_ELEM_INTERVAL_END) != 0;
    Element read{Bytes(key, key + length), std::nullopt, end};
    if (nftnl_set_elem_is_set(element, NFTNL_SET_ELEM_CHAIN)) {
      const auto code = static_cast<std::int32_t>(nftnl_set_elem_get_u32(element, NFTNL_SET_ELEM_VERDICT));
      read.verdict = Verdict{code == NFT_GOTO ? VerdictKind::Goto : VerdictKind::Jump,
                             nftnl_set_elem_get_str(element, NFTNL_SET_ELEM_CHAIN)};
    } else if (nftnl_set_elem_is_set(element, NFTNL_SET_ELEM_DATA)) {
      const auto* data =
          static_cast<const std::uint8_t*>(nftnl_set_elem_get(element, NFTNL_SET_ELEM_DATA, &length));
      if (data != nullptr) read.data.assign(data, data + length);
    }
    elements.push_back(std::move(read));
  }));
  return elements;
}

Result<void> read_denied_set(NetfilterSocket& socket, const std::string& set, std::uint8_t family,
                             Nanoseconds lifetime, std::vector<DeniedCount>& into) {
  return for_elements(socket, set, family, [&](nftnl_set_elem* element) {
    std::uint32_t length = 0;
    const auto* key =
        static_cast<const std::uint8_t*>(nftnl_set_elem_get(element, NFTNL_SET_ELEM_KEY, &length));
    constexpr std::uint32_t kV4Length = 20;
    constexpr std::uint32_t kV6Length = 44;
    if (key == nullptr || (length != kV4Length && length != kV6Length)) return;
    const Family ip = length == kV4Length ? Family::V4 : Family::V6;
    const std::size_t address = ip == Family::V4 ? 4 : 16;
    DeniedCount count;
    count.source = read_address(key, ip);
    count.destination = read_address(key + address, ip);
    const std::uint8_t* rest = key + 2 * address;
    count.protocol = rest[0];
    count.port_or_icmp = static_cast<std::uint16_t>(rest[4] << 8 | rest[5]);
    count.rule = RuleId{read_word(rest + 8)};
    const std::chrono::milliseconds left(nftnl_set_elem_get_u64(element, NFTNL_SET_ELEM_EXPIRATION));
    count.idle = std::max(Nanoseconds{}, lifetime - left);
    nftnl_set_elem_expr_foreach(element, take_counter, &count);
    into.push_back(count);
  });
}

}  // namespace tierlog::dataplane::nftables
