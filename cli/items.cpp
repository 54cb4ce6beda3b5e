#include "cli/items.h"

#include <nlohmann/json.hpp>

namespace tierlog::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

std::string item_of(const Diagnostic& finding) {
  return dump(Json{{"severity", finding.severity == Severity::Error ? "error" : "warning"},
                   {"file", finding.place.file},
                   {"line", finding.place.line == 0 ? Json() : Json(finding.place.line)},
                   {"column", finding.place.column == 0 ? Json() : Json(finding.place.column)},
                   {"message", finding.message}});
}

std::string item_of(const lab::Lab& lab) {
  Json hosts = Json::array();
  for (const lab::LabHost& host : lab.hosts()) {
    Json addresses = Json::array();
    for (const IpAddr& address : host.addresses) addresses.push_back(address.to_string());
    hosts.push_back(Json{{"name", host.name}, {"addresses", std::move(addresses)}});
  }
  Json nodes = Json::array();
  for (const lab::LabNode& node : lab.nodes())
    nodes.push_back(Json{{"name", node.name}, {"database", node.database}, {"socket", node.socket}});
  return dump(Json{{"name", lab.name()},
                   {"folder", lab.folder()},
                   {"database", lab.database()},
                   {"socket", lab.socket()},
                   {"nodes", std::move(nodes)},
                   {"hosts", std::move(hosts)}});
}

}  // namespace tierlog::cli
