// exporters/prometheus/exposition.h - families of samples as the text that Prometheus reads.
//
//   collectors --family(), sample()--> [Exposition] --text--> http/
//
// Written as it comes: a family's samples stand together, and families come in the table's order.
#pragma once

#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "exporters/prometheus/ledger.h"
#include "exporters/prometheus/metric.h"

namespace tierlog::prometheus {

enum class Format : std::uint8_t { Text, OpenMetrics };
// What the Accept header prefers; Text when it says nothing of the two.
Format negotiate(std::string_view accept);
std::string content_type(Format format);

// How the labels of kappie_ metrics are written.
enum class LabelStyle : std::uint8_t { Aks, Snake };

// What this process counted; told is what all lives did (ledger.h), times `unit` where that is not 1.
struct SinceStart {
  std::uint64_t count = 0;
  double unit = 1;
  bool if_any = false;  // no sample where nothing was counted in any life
};
// Over all lives, by somebody who may not have kept the last part of it.
struct AtLeast {
  std::uint64_t count = 0;
};
using Value = std::variant<std::uint64_t, double, SinceStart, AtLeast>;

class Exposition {
 public:
  // Without a ledger counts go over no life but this one.
  Exposition(Format format, std::string_view node, std::string_view cluster,
             LabelStyle style = LabelStyle::Aks, Ledger* ledger = nullptr);

  // Begins the family; until the next one, samples are of it.
  void family(Metric metric);
  // `values` in the order of the family's labels, without node and cluster.
  void sample(std::span<const std::string_view> values, Value value);
  void sample(std::initializer_list<std::string_view> values, Value value);
  // A family of one sample without labels.
  void single(Metric metric, Value value);

  std::size_t samples() const { return samples_; }
  std::string finish();  // the whole answer

 private:
  void header(const Spec& spec);
  void append(const Value& value, std::string_view series);

  Format format_;
  LabelStyle style_;
  Ledger* ledger_;
  std::string common_, kappie_common_;  // the labels that all have
  std::string text_;
  std::string name_;                 // of the running family's samples
  std::vector<std::string> labels_;  // its label names with '="', without node and cluster
  bool kappie_ = false;
  std::size_t samples_ = 0;
};

// A label's value: escaped, and valid UTF-8 whatever the bytes were.
void append_escaped(std::string& text, std::string_view value);

}  // namespace tierlog::prometheus
