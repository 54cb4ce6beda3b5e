// Our objects as text, close to nft's syntax where nft has one.
#include <algorithm>
#include <cstdio>

#include "dataplane/nftables/build.h"
#include "dataplane/nftables/constants.h"
#include "dataplane/nftables/ruleset.h"

namespace tierlog::dataplane::nftables {
namespace {

std::string hex(const Bytes& bytes) {
  std::string text = "0x";
  for (const std::uint8_t byte : bytes) {
    char two[3];
    std::snprintf(two, sizeof two, "%02x", byte);
    text += two;
  }
  return text;
}

std::string reg(std::uint32_t number) {
  return "r" + std::to_string(number);
}

std::string meta_name(std::uint32_t key) {
  switch (key) {
    case NFT_META_L4PROTO:
      return "l4proto";
    case NFT_META_NFPROTO:
      return "nfproto";
    case NFT_META_MARK:
      return "mark";
    case NFT_META_PROTOCOL:
      return "protocol";
    case NFT_META_IIFNAME:
      return "iifname";
    case NFT_META_PKTTYPE:
      return "pkttype";
    default:
      return std::to_string(key);
  }
}

std::string ct_name(std::uint32_t key) {
  switch (key) {
    case NFT_CT_STATE:
      return "state";
    case NFT_CT_DIRECTION:
      return "direction";
    case NFT_CT_STATUS:
      return "status";
    case NFT_CT_LABELS:
      return "label";
    default:
      return std::to_string(key);
  }
}

std::string header_name(std::uint32_t base) {
  if (base == NFT_PAYLOAD_LL_HEADER) return "ll";
  return base == NFT_PAYLOAD_NETWORK_HEADER ? "nh" : "th";
}

std::string compare_name(std::uint32_t op) {
  switch (op) {
    case NFT_CMP_EQ:
      return "==";
    case NFT_CMP_NEQ:
      return "!=";
    case NFT_CMP_GTE:
      return ">=";
    case NFT_CMP_LTE:
      return "<=";
    default:
      return "?";
  }
}

std::string text(const MetaLoad& e) {
  return reg(e.reg) + " = meta " + meta_name(e.key);
}
std::string text(const MetaSet& e) {
  return "meta " + meta_name(e.key) + " set " + reg(e.reg);
}
std::string text(const PayloadLoad& e) {
  return reg(e.reg) + " = @" + header_name(e.base) + "+" +
         std::to_string(e.offset) + "," + std::to_string(e.length);
}
std::string text(const Compare& e) {
  return reg(e.reg) + " " + compare_name(e.op) + " " + hex(e.value);
}
std::string text(const LoadBytes& e) {
  return reg(e.reg) + " = " + hex(e.value);
}
std::string text(const Mask& e) {
  return reg(e.reg) + " &= " + hex(e.mask);
}
std::string text(const Lookup& e) {
  if (e.into) return reg(*e.into) + " = " + reg(e.reg) + " map @" + e.set;
  return reg(e.reg) + (e.to_verdict ? " vmap @" : e.negate ? " != @" : " @") + e.set;
}
std::string text(const CtLoad& e) {
  return reg(e.reg) + " = ct " + ct_name(e.key);
}
std::string text(const CtSet& e) {
  return "ct " + ct_name(e.key) + " set " + reg(e.reg);
}
std::string text(const NoTrack& /*e*/) {
  return "notrack";
}
std::string text(const Count& e) {
  return "counter " + counter_name(e.id);
}
std::string text(const CountNamed& e) {
  return "counter " + e.name;
}
std::string text(const UpdateMetered& e) {
  return "update @" + e.set + " {" + reg(e.reg) + " counter limit " + std::to_string(e.packets) + "/" +
         std::to_string(e.interval_seconds) + "s}";
}
std::string text(const LimitRate& e) {
  return "limit " + std::to_string(e.rate) + "/" + std::to_string(e.unit_seconds) + "s";
}
std::string text(const LogTo& e) {
  return "log group " + std::to_string(e.group) + " \"" + e.prefix + "\"";
}
std::string text(const Verdict& e) {
  switch (e.kind) {
    case VerdictKind::Accept:
      return "accept";
    case VerdictKind::Drop:
      return "drop";
    case VerdictKind::Jump:
      return "jump " + e.chain;
    case VerdictKind::Goto:
      return "goto " + e.chain;
    case VerdictKind::Return:
      return "return";
  }
  return {};
}

}  // namespace

std::string to_text(const NftRule& rule) {
  std::string line;
  for (const Expression& expression : rule.expressions)
    line += (line.empty() ? "" : "; ") + std::visit([](const auto& e) { return text(e); }, expression);
  if (!rule.comment.empty()) line += "  # " + rule.comment;
  return line;
}

std::string to_text(const Chain& chain) {
  std::string all = "chain " + chain.name + " {\n";
  if (chain.hook)
    all += "  hook " + std::to_string(chain.hook->hook) + " priority " +
           std::to_string(chain.hook->priority) +
           (chain.hook->device.empty() ? "" : " device " + chain.hook->device) + "\n";
  for (const NftRule& rule : chain.rules) all += "  " + to_text(rule) + "\n";
  return all + "}\n";
}

std::string to_text(const Set& set) {
  std::string all = "set " + set.name + " { key " + std::to_string(set.key_length) + " bytes";
  if (set.interval) all += ", interval";
  if (set.metered)
    all += ", size " + std::to_string(set.size) + ", timeout " + std::to_string(set.timeout_ms) + " ms";
  all += " }";
  for (const Element& element : set.elements)
    all += "\n  " + hex(element.key) + (element.interval_end ? " end" : "") +
           (element.verdict        ? " : " + text(*element.verdict)
            : element.data.empty() ? ""
                                   : " : " + hex(element.data));
  return all + "\n";
}

}  // namespace tierlog::dataplane::nftables
