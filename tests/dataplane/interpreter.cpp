#include "tests/dataplane/interpreter.h"

#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "dataplane/nftables/constants.h"
#include "dataplane/nftables/expr.h"

namespace tierlog::dataplane::nftables {

class Machine {
 public:
  Machine(const Interpreter& program, const policy::Packet& packet) : program_(program), packet_(packet) {
    const bool v4 = packet.source.family == Family::V4;
    network_.assign(v4 ? 20 : 40, 0);
    const Bytes from = address_bytes(packet.source), to = address_bytes(packet.destination);
    std::copy(from.begin(), from.end(), network_.begin() + (v4 ? 12 : 8));
    std::copy(to.begin(), to.end(), network_.begin() + (v4 ? 16 : 24));
    if (protocol::has_ports(packet.protocol)) {
      transport_ = big_endian16(packet.source_port);
      const Bytes port = big_endian16(packet.destination_port);
      transport_.insert(transport_.end(), port.begin(), port.end());
      transport_.resize(20);
      constexpr std::uint8_t kSyn = 2;
      if (packet.protocol == protocol::kTcp) transport_[13] = kSyn;
    } else {
      transport_ = {packet.icmp_type, packet.icmp_code};
      transport_.resize(20);
    }
  }

  Walk run(const std::string& chain) {
    follow(chain, 0);
    walk_.allowed = !walk_.denied && label_ != Bytes(16, 0);
    return walk_;
  }

 private:
  enum class End { Next, Chain, Done };  // go on with the next rule, leave the chain, leave all

  End follow(const std::string& name, int depth) {
    if (name == "deny") {
      walk_.denied = true;
      return End::Done;
    }
    const auto chain = program_.chains_.find(name);
    if (chain == program_.chains_.end() || depth > 16) {
      walk_.lost = "chain " + name;
      return End::Done;
    }
    for (const NftRule& rule : chain->second->rules) {
      registers_.assign(80, 0);
      std::optional<Verdict> verdict;
      bool holds = true;
      for (const Expression& expression : rule.expressions) {
        holds = std::visit([&](const auto& e) { return apply(e, verdict); }, expression);
        if (!holds || verdict) break;
      }
      if (!holds || !verdict) continue;
      switch (verdict->kind) {
        case VerdictKind::Accept:
        case VerdictKind::Drop:
          return End::Done;
        case VerdictKind::Return:
          return End::Chain;
        case VerdictKind::Jump:
          if (follow(verdict->chain, depth + 1) == End::Done) return End::Done;
          continue;
        case VerdictKind::Goto:
          return follow(verdict->chain, depth + 1) == End::Done ? End::Done : End::Chain;
      }
    }
    return End::Chain;
  }

  void load(std::uint32_t reg, const Bytes& bytes) {
    std::fill_n(registers_.begin() + reg * 4, (bytes.size() + 3) / 4 * 4, std::uint8_t{0});
    std::copy(bytes.begin(), bytes.end(), registers_.begin() + reg * 4);
  }
  Bytes at(std::uint32_t reg, std::size_t length) const {
    return {registers_.begin() + reg * 4, registers_.begin() + reg * 4 + static_cast<std::ptrdiff_t>(length)};
  }

  using To = std::optional<Verdict>;
  bool apply(const MetaLoad& e, To&) {
    if (e.key == NFT_META_L4PROTO) load(e.reg, {packet_.protocol});
    if (e.key == NFT_META_NFPROTO)
      load(e.reg, {static_cast<std::uint8_t>(packet_.source.family == Family::V4 ? AF_INET : AF_INET6)});
    return true;
  }
  bool apply(const MetaSet&, To&) { return true; }
  bool apply(const PayloadLoad& e, To&) {
    const Bytes& header = e.base == NFT_PAYLOAD_NETWORK_HEADER ? network_ : transport_;
    load(e.reg, {header.begin() + e.offset, header.begin() + e.offset + e.length});
    return true;
  }
  bool apply(const Compare& e, To&) {
    const Bytes value = at(e.reg, e.value.size());
    switch (e.op) {
      case NFT_CMP_EQ:
        return value == e.value;
      case NFT_CMP_NEQ:
        return value != e.value;
      case NFT_CMP_GTE:
        return value >= e.value;
      default:
        return value <= e.value;
    }
  }
  bool apply(const LoadBytes& e, To&) {
    load(e.reg, e.value);
    return true;
  }
  bool apply(const Mask& e, To&) {
    for (std::size_t i = 0; i < e.mask.size(); ++i) registers_[e.reg * 4 + i] &= e.mask[i];
    return true;
  }
  bool apply(const Lookup& e, To& verdict) {
    const auto set = program_.sets_.find(e.set);
    if (set == program_.sets_.end()) {
      walk_.lost = "set " + e.set;
      return false;
    }
    const Element* found = nullptr;
    if (!set->second.empty()) {
      const Bytes key = at(e.reg, set->second.begin()->first.size());
      if (program_.interval_.at(e.set)) {
        const auto after = set->second.upper_bound(key);
        if (after != set->second.begin() && !std::prev(after)->second->interval_end)
          found = std::prev(after)->second;
      } else if (const auto exact = set->second.find(key); exact != set->second.end()) {
        found = exact->second;
      }
    }
    if (e.negate) return found == nullptr;
    if (found == nullptr) return false;
    if (e.to_verdict) verdict = found->verdict;
    if (e.into) load(*e.into, found->data);
    return true;
  }
  bool apply(const CtLoad& e, To&) {
    if (e.key == NFT_CT_LABELS) load(e.reg, label_);
    if (e.key == NFT_CT_STATE) load(e.reg, host_word(kCtNew));
    return true;
  }
  bool apply(const CtSet& e, To&) {
    for (std::size_t i = 0; i < label_.size(); ++i) label_[i] |= registers_[e.reg * 4 + i];
    return true;
  }
  bool apply(const NoTrack&, To&) { return true; }
  bool apply(const Count& e, To&) {
    walk_.counted.push_back(e.id);
    return true;
  }
  bool apply(const CountNamed&, To&) { return true; }
  bool apply(const UpdateMetered&, To&) { return false; }
  bool apply(const LimitRate&, To&) { return false; }
  bool apply(const LogTo&, To&) { return true; }
  bool apply(const Verdict& e, To& verdict) {
    verdict = e;
    return true;
  }

  const Interpreter& program_;
  const policy::Packet& packet_;
  Bytes network_, transport_, registers_, label_ = Bytes(16, 0);
  Walk walk_;
};

Interpreter::Interpreter(const TableObjects& objects) {
  for (const Chain& chain : objects.chains) chains_[chain.name] = &chain;
  for (const Set& set : objects.sets) {
    auto& elements = sets_[set.name];
    interval_[set.name] = set.interval;
    for (const Element& element : set.elements) {
      const auto [entry, is_new] = elements.try_emplace(element.key, &element);
      // Where one interval ends another may begin.
      if (!is_new && !element.interval_end) entry->second = &element;
    }
  }
}

Walk Interpreter::walk(const std::string& chain, const policy::Packet& packet) const {
  return Machine(*this, packet).run(chain);
}

std::size_t Interpreter::depth(const std::string& chain) const {
  const auto [entry, is_new] = depths_.try_emplace(chain, 0);
  if (!is_new) return entry->second;
  std::size_t below = 0;
  const auto look_at = [&](const Verdict& verdict) {
    if (!verdict.chain.empty()) below = std::max(below, depth(verdict.chain));
  };
  for (const NftRule& rule : chains_.at(chain)->rules)
    for (const Expression& expression : rule.expressions) {
      if (const auto* verdict = std::get_if<Verdict>(&expression)) look_at(*verdict);
      const auto* lookup = std::get_if<Lookup>(&expression);
      if (lookup == nullptr || !lookup->to_verdict) continue;
      for (const auto& [key, element] : sets_.at(lookup->set))
        if (element->verdict) look_at(*element->verdict);
    }
  return depths_[chain] = below + 1;
}

}  // namespace tierlog::dataplane::nftables
