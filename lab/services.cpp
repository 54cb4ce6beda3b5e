#include "lab/services.h"

namespace tierlog::lab {
namespace {

Result<void> load(const Place& node, const std::string& script) {
  TL_ASSIGN(const Captured said, capture_in(node, {{"nft", "-f", "-"}, {}}, script));
  if (said.exit_code == 0) return {};
  if (said.exit_code == 127) return fail(ErrorCode::NotFound, "there is no `nft` (Debian package nftables)");
  return fail(ErrorCode::Refused, "nft: " + said.errors);
}

}  // namespace

Result<void> program_services(const LabState& state) {
  if (state.services.empty() && !state.masquerade) return {};
  for (const auto& node : state.nodes) {
    std::string script;
    for (const Family family : {Family::V4, Family::V6}) {
      if (state.has(family)) script += nat_rules(state, node, family);
    }
    const auto loaded = load(node.place(), script);
    if (!loaded) return fail(loaded.error().in("Services on " + node.name));
  }
  return {};
}

}  // namespace tierlog::lab
