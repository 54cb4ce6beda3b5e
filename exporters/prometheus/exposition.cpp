#include "exporters/prometheus/exposition.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

namespace tierlog::prometheus {
namespace {

// What the agent of AKS writes for the labels that its documentation names.
constexpr std::pair<std::string_view, std::string_view> kSnake[] = {
    {"Direction", "direction"}, {"Reason", "reason"},
    {"State", "state"},         {"Address", "address"},
    {"Port", "port"},           {"Statistic", "statistic_name"},
    {"Flag", "flag"},           {"InterfaceName", "interface_name"},
    {"NodeName", "node_name"},  {"Cluster", "cluster"}};

std::string_view styled(std::string_view label, LabelStyle style) {
  if (style == LabelStyle::Aks) return label;
  for (const auto& [aks, snake] : kSnake)
    if (aks == label) return snake;
  return label;
}

// Bytes of the UTF-8 character at the beginning; 0: these bytes are none.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  const bool overlong = (lead == 0xe0 && byte(1) < 0xa0) || (lead == 0xf0 && byte(1) < 0x90);
  const bool beyond = (lead == 0xf4 && byte(1) > 0x8f) || (lead == 0xed && byte(1) > 0x9f);
  return overlong || beyond ? 0 : length;
}

void append_number(std::string& text, double value) {
  if (std::isnan(value)) {
    text += "NaN";
  } else if (std::isinf(value)) {
    text += value > 0 ? "+Inf" : "-Inf";
  } else {
    std::array<char, 32> digits;
    text.append(digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr);
  }
}

void append_number(std::string& text, std::uint64_t value) {
  std::array<char, 24> digits;
  text.append(digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr);
}

std::string pair_of(std::string_view name, std::string_view value) {
  std::string text(name);
  text += "=\"";
  append_escaped(text, value);
  return text + "\"";
}

// q of a media range ("application/openmetrics-text; version=1.0.0; q=0.5"), in thousandths.
int quality(std::string_view range) {
  const auto at = range.find("q=");
  if (at == std::string_view::npos) return 1000;
  const std::string number(range.substr(at + 2, 5));
  double value = 1;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
  return error == std::errc() && end != number.data() ? static_cast<int>(value * 1000) : 1000;
}

}  // namespace

Format negotiate(std::string_view accept) {
  int open_metrics = 0, text = 0;
  while (!accept.empty()) {
    const auto end = accept.find(',');
    const std::string_view range = accept.substr(0, end);
    if (range.find("application/openmetrics-text") != std::string_view::npos)
      open_metrics = std::max(open_metrics, quality(range));
    else if (range.find("text/plain") != std::string_view::npos ||
             range.find("*/*") != std::string_view::npos || range.find("text/*") != std::string_view::npos)
      text = std::max(text, quality(range));
    accept = end == std::string_view::npos ? std::string_view() : accept.substr(end + 1);
  }
  return open_metrics > 0 && open_metrics >= text ? Format::OpenMetrics : Format::Text;
}

std::string content_type(Format format) {
  return format == Format::OpenMetrics ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                                       : "text/plain; version=0.0.4; charset=utf-8";
}

void append_escaped(std::string& text, std::string_view value) {
  while (!value.empty()) {
    // Most of it needs nothing.
    std::size_t plain = 0;
    while (plain < value.size() && static_cast<unsigned char>(value[plain]) < 0x80 && value[plain] != '\\' &&
           value[plain] != '"' && value[plain] != '\n')
      ++plain;
    text.append(value.substr(0, plain));
    value.remove_prefix(plain);
    if (value.empty()) return;
    const std::size_t length = utf8_length(value);
    const char c = value.front();
    if (length == 0)
      text += "\xef\xbf\xbd";
    else if (c == '\\')
      text += "\\\\";
    else if (c == '"')
      text += "\\\"";
    else if (c == '\n')
      text += "\\n";
    else
      text.append(value.substr(0, length));
    value.remove_prefix(length == 0 ? 1 : length);
  }
}

Exposition::Exposition(Format format, std::string_view node, std::string_view cluster, LabelStyle style,
                       Ledger* ledger)
    : format_(format),
      style_(style),
      ledger_(ledger),
      common_(pair_of("node", node) + "," + pair_of("cluster", cluster)),
      kappie_common_(pair_of(styled("NodeName", style), node) + "," +
                     pair_of(styled("Cluster", style), cluster)) {
  text_.reserve(1 << 20);
}

void Exposition::header(const Spec& spec) {
  std::string name = spec.name;
  const char* type = spec.type == Type::Counter ? "counter" : "gauge";
  if (format_ == Format::OpenMetrics && spec.type == Type::Counter) {
    if (name.ends_with("_total"))
      name.resize(name.size() - 6);
    else
      type = "unknown";
  }
  text_ += "# HELP " + name + " ";
  for (const char* c = spec.help; *c != '\0'; ++c)
    if (*c == '\\' || (*c == '"' && format_ == Format::OpenMetrics))
      text_ += std::string("\\") + *c;
    else
      text_ += *c;
  text_ += "\n# TYPE " + name + " " + type + "\n";
}

void Exposition::family(Metric metric) {
  const Spec& spec = spec_of(metric);
  header(spec);
  name_ = spec.name;
  kappie_ = is_kappie(spec);
  labels_.clear();
  for (const std::string_view label : label_names(spec))
    if (!kappie_ || (label != "NodeName" && label != "Cluster"))
      labels_.push_back(std::string(kappie_ ? styled(label, style_) : label) + "=\"");
}

void Exposition::append(const Value& value, std::string_view series) {
  if (const auto* own = std::get_if<SinceStart>(&value)) {
    const std::uint64_t all = ledger_ != nullptr ? ledger_->since_start(series, own->count) : own->count;
    if (own->unit == 1)
      append_number(text_, all);
    else
      append_number(text_, static_cast<double>(all) * own->unit);
  } else if (const auto* least = std::get_if<AtLeast>(&value)) {
    append_number(text_, ledger_ != nullptr ? ledger_->at_least(series, least->count) : least->count);
  } else if (const auto* number = std::get_if<double>(&value)) {
    append_number(text_, *number);
  } else {
    append_number(text_, std::get<std::uint64_t>(value));
  }
}

void Exposition::sample(std::span<const std::string_view> values, Value value) {
  const std::size_t begin = text_.size();
  text_ += name_;
  text_ += '{';
  for (std::size_t i = 0; i < labels_.size(); ++i) {
    text_ += labels_[i];
    append_escaped(text_, i < values.size() ? values[i] : std::string_view());
    text_ += "\",";
  }
  text_ += kappie_ ? kappie_common_ : common_;
  text_ += "} ";
  // A copy: the text grows.
  const bool kept = std::holds_alternative<SinceStart>(value) || std::holds_alternative<AtLeast>(value);
  const std::size_t number = text_.size();
  append(value, kept ? text_.substr(begin, number - begin - 1) : std::string());
  if (const auto* own = std::get_if<SinceStart>(&value);
      own != nullptr && own->if_any && std::string_view(text_).substr(number) == "0") {
    text_.resize(begin);
    return;
  }
  text_ += '\n';
  ++samples_;
}

void Exposition::sample(std::initializer_list<std::string_view> values, Value value) {
  sample(std::span<const std::string_view>(values.begin(), values.size()), value);
}

void Exposition::single(Metric metric, Value value) {
  family(metric);
  sample({}, value);
}

std::string Exposition::finish() {
  if (format_ == Format::OpenMetrics) text_ += "# EOF\n";
  return std::move(text_);
}

}  // namespace tierlog::prometheus
