#include "dataplane/nftables/encode.h"

#include <libnftnl/chain.h>
#include <libnftnl/expr.h>
#include <libnftnl/object.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <libnftnl/udata.h>

#include <algorithm>
#include <cstring>

#include "dataplane/nftables/build.h"
#include "dataplane/nftables/constants.h"
#include "dataplane/nftables/content.h"

namespace tierlog::dataplane::nftables {
namespace {

using Table = Owned<nftnl_table, nftnl_table_free>;
using ChainHandle = Owned<nftnl_chain, nftnl_chain_free>;
using RuleHandle = Owned<nftnl_rule, nftnl_rule_free>;
using SetHandle = Owned<nftnl_set, nftnl_set_free>;
using ObjectHandle = Owned<nftnl_obj, nftnl_obj_free>;
using Userdata = Owned<nftnl_udata_buf, nftnl_udata_buf_free>;

constexpr std::uint32_t kReg = NFT_REG32_00;
constexpr std::size_t kElementsPerMessage = 400;
constexpr std::size_t kCommentBytes = 120;

std::uint32_t length32(const Bytes& bytes) {
  return static_cast<std::uint32_t>(bytes.size());
}

int verdict_code(VerdictKind kind) {
  switch (kind) {
    case VerdictKind::Accept:
      return NF_ACCEPT;
    case VerdictKind::Drop:
      return NF_DROP;
    case VerdictKind::Jump:
      return NFT_JUMP;
    case VerdictKind::Goto:
      return NFT_GOTO;
    case VerdictKind::Return:
      return NFT_RETURN;
  }
  return NF_DROP;
}

nftnl_expr* make(const char* name) {
  return nftnl_expr_alloc(name);
}

// One overload a kind of expression; each returns an expression that the rule takes over.
nftnl_expr* encode(const MetaLoad& e) {
  nftnl_expr* x = make("meta");
  nftnl_expr_set_u32(x, NFTNL_EXPR_META_KEY, e.key);
  nftnl_expr_set_u32(x, NFTNL_EXPR_META_DREG, kReg + e.reg);
  return x;
}

nftnl_expr* encode(const MetaSet& e) {
  nftnl_expr* x = make("meta");
  nftnl_expr_set_u32(x, NFTNL_EXPR_META_KEY, e.key);
  nftnl_expr_set_u32(x, NFTNL_EXPR_META_SREG, kReg + e.reg);
  return x;
}

nftnl_expr* encode(const PayloadLoad& e) {
  nftnl_expr* x = make("payload");
  nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_DREG, kReg + e.reg);
  nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_BASE, e.base);
  nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_OFFSET, e.offset);
  nftnl_expr_set_u32(x, NFTNL_EXPR_PAYLOAD_LEN, e.length);
  return x;
}

nftnl_expr* encode(const Compare& e) {
  nftnl_expr* x = make("cmp");
  nftnl_expr_set_u32(x, NFTNL_EXPR_CMP_SREG, kReg + e.reg);
  nftnl_expr_set_u32(x, NFTNL_EXPR_CMP_OP, e.op);
  nftnl_expr_set(x, NFTNL_EXPR_CMP_DATA, e.value.data(), length32(e.value));
  return x;
}

nftnl_expr* encode(const LoadBytes& e) {
  nftnl_expr* x = make("immediate");
  nftnl_expr_set_u32(x, NFTNL_EXPR_IMM_DREG, kReg + e.reg);
  nftnl_expr_set(x, NFTNL_EXPR_IMM_DATA, e.value.data(), length32(e.value));
  return x;
}

nftnl_expr* encode(const Mask& e) {
  const Bytes zero(e.mask.size(), 0);
  nftnl_expr* x = make("bitwise");
  nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_SREG, kReg + e.reg);
  nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_DREG, kReg + e.reg);
  nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_OP, NFT_BITWISE_BOOL);
  nftnl_expr_set_u32(x, NFTNL_EXPR_BITWISE_LEN, length32(e.mask));
  nftnl_expr_set(x, NFTNL_EXPR_BITWISE_MASK, e.mask.data(), length32(e.mask));
  nftnl_expr_set(x, NFTNL_EXPR_BITWISE_XOR, zero.data(), length32(zero));
  return x;
}

nftnl_expr* encode(const Lookup& e) {
  nftnl_expr* x = make("lookup");
  nftnl_expr_set_u32(x, NFTNL_EXPR_LOOKUP_SREG, kReg + e.reg);
  nftnl_expr_set_str(x, NFTNL_EXPR_LOOKUP_SET, e.set.c_str());
  if (e.to_verdict) nftnl_expr_set_u32(x, NFTNL_EXPR_LOOKUP_DREG, NFT_REG_VERDICT);
  if (e.into) nftnl_expr_set_u32(x, NFTNL_EXPR_LOOKUP_DREG, kReg + *e.into);
  if (e.negate) nftnl_expr_set_u32(x, NFTNL_EXPR_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
  return x;
}

nftnl_expr* encode(const CtLoad& e) {
  nftnl_expr* x = make("ct");
  nftnl_expr_set_u32(x, NFTNL_EXPR_CT_KEY, e.key);
  nftnl_expr_set_u32(x, NFTNL_EXPR_CT_DREG, kReg + e.reg);
  return x;
}

nftnl_expr* encode(const CtSet& e) {
  nftnl_expr* x = make("ct");
  nftnl_expr_set_u32(x, NFTNL_EXPR_CT_KEY, e.key);
  nftnl_expr_set_u32(x, NFTNL_EXPR_CT_SREG, kReg + e.reg);
  return x;
}

nftnl_expr* encode(const NoTrack& /*e*/) {
  return make("notrack");
}

nftnl_expr* encode(const CountNamed& e) {
  nftnl_expr* x = make("objref");
  nftnl_expr_set_u32(x, NFTNL_EXPR_OBJREF_IMM_TYPE, NFT_OBJECT_COUNTER);
  nftnl_expr_set_str(x, NFTNL_EXPR_OBJREF_IMM_NAME, e.name.c_str());
  return x;
}

nftnl_expr* encode(const Count& e) {
  return encode(CountNamed{counter_name(e.id)});
}

nftnl_expr* encode(const LimitRate& e) {
  nftnl_expr* x = make("limit");
  nftnl_expr_set_u64(x, NFTNL_EXPR_LIMIT_RATE, e.rate);
  nftnl_expr_set_u64(x, NFTNL_EXPR_LIMIT_UNIT, e.unit_seconds);
  nftnl_expr_set_u32(x, NFTNL_EXPR_LIMIT_BURST, e.burst);
  nftnl_expr_set_u32(x, NFTNL_EXPR_LIMIT_TYPE, NFT_LIMIT_PKTS);
  return x;
}

nftnl_expr* encode(const UpdateMetered& e) {
  nftnl_expr* x = make("dynset");
  nftnl_expr_set_str(x, NFTNL_EXPR_DYNSET_SET_NAME, e.set.c_str());
  nftnl_expr_set_u32(x, NFTNL_EXPR_DYNSET_OP, NFT_DYNSET_OP_UPDATE);
  nftnl_expr_set_u32(x, NFTNL_EXPR_DYNSET_SREG_KEY, kReg + e.reg);
  nftnl_expr_set_u32(x, NFTNL_EXPR_DYNSET_FLAGS, NFT_DYNSET_F_EXPR);
  nftnl_expr* counter = make("counter");
  nftnl_expr_set_u64(counter, NFTNL_EXPR_CTR_PACKETS, 0);
  nftnl_expr_set_u64(counter, NFTNL_EXPR_CTR_BYTES, 0);
  nftnl_expr_add_expr(x, NFTNL_EXPR_DYNSET_EXPRESSIONS, counter);
  nftnl_expr_add_expr(x, NFTNL_EXPR_DYNSET_EXPRESSIONS, encode(LimitRate{e.packets, e.interval_seconds, e.packets}));
  return x;
}

nftnl_expr* encode(const LogTo& e) {
  nftnl_expr* x = make("log");
  nftnl_expr_set_u16(x, NFTNL_EXPR_LOG_GROUP, e.group);
  nftnl_expr_set_str(x, NFTNL_EXPR_LOG_PREFIX, e.prefix.c_str());
  nftnl_expr_set_u32(x, NFTNL_EXPR_LOG_SNAPLEN, e.snaplen);
  return x;
}

nftnl_expr* encode(const Verdict& e) {
  nftnl_expr* x = make("immediate");
  nftnl_expr_set_u32(x, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
  nftnl_expr_set_u32(x, NFTNL_EXPR_IMM_VERDICT, static_cast<std::uint32_t>(verdict_code(e.kind)));
  if (!e.chain.empty()) nftnl_expr_set_str(x, NFTNL_EXPR_IMM_CHAIN, e.chain.c_str());
  return x;
}

void set_userdata(nftnl_rule* rule, const NftRule& described) {
  const Userdata buffer(nftnl_udata_buf_alloc(NFT_USERDATA_MAXLEN));
  if (!described.comment.empty()) {
    const std::string shown = described.comment.substr(0, kCommentBytes);
    nftnl_udata_put_strz(buffer.get(), kRuleComment, shown.c_str());
  }
  const std::string seal = seal_of(described);
  nftnl_udata_put(buffer.get(), kRuleSeal, static_cast<std::uint32_t>(seal.size()), seal.data());
  nftnl_rule_set_data(rule, NFTNL_RULE_USERDATA, nftnl_udata_buf_data(buffer.get()),
                      nftnl_udata_buf_len(buffer.get()));
}

nftnl_set_elem* encode(const Element& element) {
  nftnl_set_elem* x = nftnl_set_elem_alloc();
  nftnl_set_elem_set(x, NFTNL_SET_ELEM_KEY, element.key.data(), length32(element.key));
  if (element.interval_end) nftnl_set_elem_set_u32(x, NFTNL_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
  if (element.verdict) {
    nftnl_set_elem_set_u32(x, NFTNL_SET_ELEM_VERDICT,
                           static_cast<std::uint32_t>(verdict_code(element.verdict->kind)));
    if (!element.verdict->chain.empty())
      nftnl_set_elem_set_str(x, NFTNL_SET_ELEM_CHAIN, element.verdict->chain.c_str());
  }
  if (!element.data.empty())
    nftnl_set_elem_set(x, NFTNL_SET_ELEM_DATA, element.data.data(), length32(element.data));
  return x;
}

void put_elements(Batch& batch, std::uint16_t type, std::uint16_t flags, const char* verb,
                  const std::string& name, const std::vector<Element>& elements) {
  for (std::size_t from = 0; from < elements.size(); from += kElementsPerMessage) {
    const std::size_t to = std::min(elements.size(), from + kElementsPerMessage);
    const SetHandle set(nftnl_set_alloc());
    nftnl_set_set_str(set.get(), NFTNL_SET_TABLE, batch.table());
    nftnl_set_set_str(set.get(), NFTNL_SET_NAME, name.c_str());
    for (std::size_t i = from; i < to; ++i) nftnl_set_elem_add(set.get(), encode(elements[i]));
    batch.add(type, flags, std::string(verb) + " elements of set " + name,
              [&](nlmsghdr* header) { nftnl_set_elems_nlmsg_build_payload(header, set.get()); });
  }
}

std::string family_name(const Batch& batch) {
  return batch.family() == NFPROTO_NETDEV ? "netdev" : "inet";
}

ObjectHandle counter_object(const Batch& batch, const std::string& name) {
  ObjectHandle object(nftnl_obj_alloc());
  nftnl_obj_set_str(object.get(), NFTNL_OBJ_TABLE, batch.table());
  nftnl_obj_set_str(object.get(), NFTNL_OBJ_NAME, name.c_str());
  nftnl_obj_set_u32(object.get(), NFTNL_OBJ_TYPE, NFT_OBJECT_COUNTER);
  return object;
}

ChainHandle chain_object(const Batch& batch, const std::string& name) {
  ChainHandle chain(nftnl_chain_alloc());
  nftnl_chain_set_str(chain.get(), NFTNL_CHAIN_TABLE, batch.table());
  nftnl_chain_set_str(chain.get(), NFTNL_CHAIN_NAME, name.c_str());
  return chain;
}

}  // namespace

void add_table(Batch& batch, std::uint32_t flags) {
  const Table table(nftnl_table_alloc());
  nftnl_table_set_str(table.get(), NFTNL_TABLE_NAME, batch.table());
  nftnl_table_set_u32(table.get(), NFTNL_TABLE_FLAGS, flags);
  nftnl_table_set_data(table.get(), NFTNL_TABLE_USERDATA, kLayout,
                       static_cast<std::uint32_t>(std::strlen(kLayout) + 1));
  batch.add(NFT_MSG_NEWTABLE, NLM_F_CREATE, "add table " + family_name(batch) + " " + batch.table(),
            [&](nlmsghdr* header) { nftnl_table_nlmsg_build_payload(header, table.get()); });
}

void delete_table(Batch& batch) {
  const Table table(nftnl_table_alloc());
  nftnl_table_set_str(table.get(), NFTNL_TABLE_NAME, batch.table());
  batch.add(NFT_MSG_DELTABLE, 0, "delete table " + family_name(batch) + " " + batch.table(),
            [&](nlmsghdr* header) { nftnl_table_nlmsg_build_payload(header, table.get()); });
}

void add_counter(Batch& batch, const std::string& name, std::uint64_t packets, std::uint64_t bytes) {
  const ObjectHandle object = counter_object(batch, name);
  nftnl_obj_set_u64(object.get(), NFTNL_OBJ_CTR_PKTS, packets);
  nftnl_obj_set_u64(object.get(), NFTNL_OBJ_CTR_BYTES, bytes);
  batch.add(NFT_MSG_NEWOBJ, NLM_F_CREATE, "add counter " + name,
            [&](nlmsghdr* header) { nftnl_obj_nlmsg_build_payload(header, object.get()); });
}

void delete_counter(Batch& batch, const std::string& name) {
  const ObjectHandle object = counter_object(batch, name);
  batch.add(NFT_MSG_DELOBJ, 0, "delete counter " + name,
            [&](nlmsghdr* header) { nftnl_obj_nlmsg_build_payload(header, object.get()); });
}

void add_set(Batch& batch, const Set& set) {
  static thread_local std::uint32_t next_id = 1;
  const SetHandle handle(nftnl_set_alloc());
  std::uint32_t flags = 0;
  if (set.interval) flags |= NFT_SET_INTERVAL;
  if (set.verdict_map || set.data_length != 0) flags |= NFT_SET_MAP;
  if (set.metered) flags |= NFT_SET_TIMEOUT | NFT_SET_EVAL;
  nftnl_set_set_str(handle.get(), NFTNL_SET_TABLE, batch.table());
  nftnl_set_set_str(handle.get(), NFTNL_SET_NAME, set.name.c_str());
  nftnl_set_set_u32(handle.get(), NFTNL_SET_FAMILY, batch.family());
  nftnl_set_set_u32(handle.get(), NFTNL_SET_FLAGS, flags);
  nftnl_set_set_u32(handle.get(), NFTNL_SET_KEY_TYPE, set.key_type);
  nftnl_set_set_u32(handle.get(), NFTNL_SET_KEY_LEN, set.key_length);
  nftnl_set_set_u32(handle.get(), NFTNL_SET_ID, next_id++);
  if (set.verdict_map) {
    nftnl_set_set_u32(handle.get(), NFTNL_SET_DATA_TYPE, NFT_DATA_VERDICT);
    nftnl_set_set_u32(handle.get(), NFTNL_SET_DATA_LEN, 0);
  } else if (set.data_length != 0) {
    nftnl_set_set_u32(handle.get(), NFTNL_SET_DATA_TYPE, kTypeInteger);
    nftnl_set_set_u32(handle.get(), NFTNL_SET_DATA_LEN, set.data_length);
  }
  if (set.size != 0) nftnl_set_set_u32(handle.get(), NFTNL_SET_DESC_SIZE, set.size);
  if (set.timeout_ms != 0) nftnl_set_set_u64(handle.get(), NFTNL_SET_TIMEOUT, set.timeout_ms);
  batch.add(NFT_MSG_NEWSET, NLM_F_CREATE, "add set " + set.name,
            [&](nlmsghdr* header) { nftnl_set_nlmsg_build_payload(header, handle.get()); });
}

void delete_set(Batch& batch, const std::string& name) {
  const SetHandle handle(nftnl_set_alloc());
  nftnl_set_set_str(handle.get(), NFTNL_SET_TABLE, batch.table());
  nftnl_set_set_str(handle.get(), NFTNL_SET_NAME, name.c_str());
  batch.add(NFT_MSG_DELSET, 0, "delete set " + name,
            [&](nlmsghdr* header) { nftnl_set_nlmsg_build_payload(header, handle.get()); });
}

void add_elements(Batch& batch, const std::string& set, const std::vector<Element>& elements) {
  put_elements(batch, NFT_MSG_NEWSETELEM, NLM_F_CREATE, "add", set, elements);
}

void delete_elements(Batch& batch, const std::string& set, const std::vector<Element>& elements) {
  put_elements(batch, NFT_MSG_DELSETELEM, 0, "delete", set, elements);
}

void add_chain(Batch& batch, const Chain& chain) {
  const ChainHandle handle = chain_object(batch, chain.name);
  if (chain.hook) {
    nftnl_chain_set_str(handle.get(), NFTNL_CHAIN_TYPE, "filter");
    nftnl_chain_set_u32(handle.get(), NFTNL_CHAIN_HOOKNUM, chain.hook->hook);
    nftnl_chain_set_s32(handle.get(), NFTNL_CHAIN_PRIO, chain.hook->priority);
    nftnl_chain_set_u32(handle.get(), NFTNL_CHAIN_POLICY, NF_ACCEPT);
    if (!chain.hook->device.empty())
      nftnl_chain_set_str(handle.get(), NFTNL_CHAIN_DEV, chain.hook->device.c_str());
  }
  batch.add(NFT_MSG_NEWCHAIN, NLM_F_CREATE, "add chain " + chain.name,
            [&](nlmsghdr* header) { nftnl_chain_nlmsg_build_payload(header, handle.get()); });
}

void delete_chain(Batch& batch, const std::string& name) {
  const ChainHandle handle = chain_object(batch, name);
  batch.add(NFT_MSG_DELCHAIN, 0, "delete chain " + name,
            [&](nlmsghdr* header) { nftnl_chain_nlmsg_build_payload(header, handle.get()); });
}

void flush_chain(Batch& batch, const std::string& name) {
  const RuleHandle rule(nftnl_rule_alloc());
  nftnl_rule_set_str(rule.get(), NFTNL_RULE_TABLE, batch.table());
  nftnl_rule_set_str(rule.get(), NFTNL_RULE_CHAIN, name.c_str());
  batch.add(NFT_MSG_DELRULE, 0, "flush chain " + name,
            [&](nlmsghdr* header) { nftnl_rule_nlmsg_build_payload(header, rule.get()); });
}

void add_rules(Batch& batch, const Chain& chain) {
  for (const NftRule& rule : chain.rules) {
    const RuleHandle handle(nftnl_rule_alloc());
    nftnl_rule_set_str(handle.get(), NFTNL_RULE_TABLE, batch.table());
    nftnl_rule_set_str(handle.get(), NFTNL_RULE_CHAIN, chain.name.c_str());
    for (const Expression& expression : rule.expressions)
      nftnl_rule_add_expr(handle.get(), std::visit([](const auto& e) { return encode(e); }, expression));
    set_userdata(handle.get(), rule);
    const std::string about = rule.comment.empty() ? "" : " (" + rule.comment + ")";
    batch.add(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, "add rule to chain " + chain.name + about,
              [&](nlmsghdr* header) { nftnl_rule_nlmsg_build_payload(header, handle.get()); });
  }
}

}  // namespace tierlog::dataplane::nftables
