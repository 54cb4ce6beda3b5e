#include "cli/compile_ebpf.h"

#include <set>
#include <utility>

#include "cli/format.h"
#include "cli/text.h"
#include "dataplane/ebpf/address_table.h"
#include "dataplane/ebpf/encode_class.h"
#include "dataplane/ebpf/layout.h"

namespace tierlog::cli {
namespace {

namespace ebpf = dataplane::ebpf;
using ebpf::Blob;
using policy::Program;

tl_rule rule_at(const Blob& blob, std::uint32_t index) {
  const auto head = blob.get<tl_class>(0);
  return blob.get<tl_rule>(head.rules + index * static_cast<std::uint32_t>(sizeof(tl_rule)));
}

EbpfTier tier_of(const Blob& blob, std::uint32_t index) {
  const auto head = blob.get<tl_class>(0);
  const auto tier = blob.get<tl_tier>(head.tiers + index * static_cast<std::uint32_t>(sizeof(tl_tier)));
  EbpfTier told;
  told.first_word = tier.word;
  told.words = tier.word_end - tier.word;
  told.log_words = tier.log_end - tier.log_word;
  for (std::uint32_t position = tier.word * 64; position < tier.log_end * 64; ++position)
    if (const tl_rule rule = rule_at(blob, position); rule.id != 0) told.positions.push_back(RuleId{rule.id});
  if (tier.end != TL_NONE) told.end = RuleId{rule_at(blob, tier.end).id};
  return told;
}

}  // namespace

Result<EbpfObjects> ebpf_objects(const Program& program, const ebpf::Limits& limits) {
  TL_TRY(ebpf::check_limits(program, limits));
  EbpfObjects objects;
  ebpf::GroupNumbers groups;
  ebpf::IdentityNumbers identities;
  std::set<std::uint32_t> wanted;
  for (const policy::ProgramEndpoint& endpoint : program.endpoints)
    wanted.insert({endpoint.ingress_class, endpoint.egress_class});
  for (const std::uint32_t index : wanted) {
    const auto slot_of = [](RuleId id) -> Result<std::uint32_t> { return number(id); };
    TL_ASSIGN(const ebpf::EncodedClass encoded, ebpf::encode_class(program, index, groups, slot_of, limits));
    const policy::EndpointClass& source = program.classes[index];
    EbpfClass& told = objects.classes.emplace_back();
    told.index = index;
    told.direction = name(source.direction);
    told.bytes = encoded.blob.size();
    told.fallback = source.fallback;
    for (const policy::ProgramEndpoint& endpoint : program.endpoints)
      if (endpoint.class_of(source.direction) == index)
        told.endpoints.push_back(program.cluster->endpoints[endpoint.endpoint].display());
    for (std::uint32_t tier = 0; tier < source.tiers.size(); ++tier) {
      told.tiers.push_back(tier_of(encoded.blob, tier));
      told.tiers.back().tier = program.tiers[source.tiers[tier].tier].name;
    }
  }
  TL_ASSIGN(const ebpf::AddressPlan plan, ebpf::plan_addresses(program, groups, identities, limits));
  TL_ASSIGN(const ebpf::AddressTable addresses, ebpf::AddressTable::encode(plan));
  objects.address_bytes = addresses.blob().size();
  return objects;
}

std::string text_of(const EbpfObjects& objects) {
  std::string text;
  for (const EbpfClass& one : objects.classes) {
    text += "class " + std::to_string(one.index) + " " + one.direction + ", " + with_commas(one.bytes) +
            " bytes:";
    for (const std::string& endpoint : one.endpoints) text += " " + endpoint;
    text += "\n";
    for (const EbpfTier& tier : one.tiers) {
      text += "  tier " + tier.tier + ": " + with_commas(tier.positions.size()) + " matches in " +
              counted(tier.words + tier.log_words, "word") + " from " + std::to_string(tier.first_word) + ":";
      for (const RuleId id : tier.positions) text += " 0x" + to_hex(id);
      if (tier.end != RuleId::None) text += "; end 0x" + to_hex(tier.end);
      text += "\n";
    }
    text += "  else 0x" + to_hex(one.fallback) + "\n";
  }
  return text + "addresses: " + with_commas(objects.address_bytes) + " bytes\n";
}

}  // namespace tierlog::cli
