#include "cli/explain_text.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <iterator>
#include <vector>

#include "cli/format.h"

namespace tierlog::cli {
namespace {

using policy::Action;
using policy::ExplainedDirection;
using policy::ExplainedStep;
using policy::Explanation;
using policy::StepResult;

// More rules of one policy that did not match are summed up in one line.
constexpr std::size_t kManyRules = 6;
constexpr std::size_t kLongestSubject = 40;
constexpr std::size_t kLeastWhy = 24;

struct Line {
  std::string heading;  // of a direction; the rest is empty then
  std::string tier, subject, rule, why, mark;
  std::string place;  // behind the mark
  Style style = Style::Plain;
  bool runs_on = false;  // without regard to columns
};

using Steps = std::vector<ExplainedStep>;
using Iterator = Steps::const_iterator;

std::string without_column(const std::string& place) {
  const auto last = place.rfind(':');
  const auto before = last == std::string::npos ? last : place.rfind(':', last - 1);
  return before == std::string::npos ? place : place.substr(0, last);
}

// A file below the current folder by its path from here, which is what people type; any other as it is.
std::string from_here(const std::string& place) {
  std::error_code error;
  const std::string here = std::filesystem::current_path(error).string() + "/";
  return !error && place.starts_with(here) ? place.substr(here.size()) : place;
}

Style style_of_step(const ExplainedStep& step) {
  if (step.staged) return Style::Staged;
  if (step.result == StepResult::Denied) return Style::Deny;
  return step.result == StepResult::Allowed ? Style::Allow : Style::Plain;
}

void add_mark(Line& line, const ExplainedStep& step) {
  if (!step.decides) return;
  line.mark = "<- decides";
  if (step.source.empty()) return;
  line.mark += ", ";
  line.place = from_here(without_column(step.source));
}

Line rule_line(const ExplainedStep& step) {
  Line line;
  line.rule = "[" + std::to_string(step.rule_index.value_or(0)) + "] " + step.action;
  line.why = step.why;
  add_mark(line, step);
  line.style = style_of_step(step);
  return line;
}

// All steps of one enforced policy: a line for each rule that was looked at.
std::vector<Line> policy_lines(Iterator from, Iterator to, bool wide) {
  const auto unmatched = static_cast<std::size_t>(
      std::count_if(from, to, [](const ExplainedStep& step) { return step.result == StepResult::NoMatch; }));
  const bool shorten = !wide && unmatched > kManyRules;
  std::vector<Line> lines;
  if (shorten || !from->rule_index) {
    Line& line = lines.emplace_back();
    line.why = from->rule_index ? counted(unmatched, "rule") + " did not match (-o wide shows each)"
                                : "no rule matched";
  }
  for (Iterator step = from; step != to; ++step)
    if (step->rule_index && !(shorten && step->result == StepResult::NoMatch))
      lines.push_back(rule_line(*step));
  lines.front().subject = under_tier(from->policy);
  lines.front().tier = from->tier;
  return lines;
}

// What a staged policy would have done: one line, its last step tells.
Line staged_line(Iterator from, Iterator to) {
  const ExplainedStep& last = *(to - 1);
  const bool decides = last.result == StepResult::Allowed || last.result == StepResult::Denied ||
                       last.result == StepResult::Passed;
  Line line;
  line.tier = "staged";
  line.style = Style::Staged;
  line.subject = from->policy;
  line.runs_on = true;
  if (!decides) {
    line.why = "no rule matched";
    return line;
  }
  std::string verb = last.action;
  if (!verb.empty()) verb[0] = static_cast<char>(verb[0] | 0x20);
  line.subject += " would " + verb;
  line.rule = "[" + std::to_string(last.rule_index.value_or(0)) + "] " + last.action;
  return line;
}

Line end_of_tier_line(const ExplainedStep& step) {
  Line line;
  line.tier = step.tier;
  line.subject = "(end of tier)";
  line.rule = step.action;
  line.why = step.why;
  add_mark(line, step);
  line.style = step.result == StepResult::Denied ? Style::Deny : Style::Plain;
  return line;
}

// Nothing in any tier decided: what holds then.
Line fallback_line(const ExplainedStep& step, Reason reason) {
  Line line;
  line.subject = reason == Reason::NoPolicy  ? "(no policy selects it)"
                 : reason == Reason::Profile ? "(every tier passed)"
                                             : "(" + std::string(name(reason)) + ")";
  line.rule = step.action;
  line.why = step.why;
  add_mark(line, step);
  line.style = style_of_step(step);
  return line;
}

Line skipped_line(const std::string& tier) {
  Line line;
  line.tier = tier;
  line.subject = "(no policy selects it)";
  return line;
}

bool is_built_in(const std::string& tier) {
  return tier == "kube-admin" || tier == "kube-baseline";
}

class DirectionLines {
 public:
  DirectionLines(const ExplainedDirection& direction, bool wide) : direction_(direction), wide_(wide) {}

  std::vector<Line> make() {
    const Steps& steps = direction_.steps;
    for (Iterator from = steps.begin(); from != steps.end();) {
      const Iterator to = std::find_if(from, steps.end(), [&](const ExplainedStep& step) {
        return step.policy != from->policy || step.tier != from->tier || step.staged != from->staged ||
               step.policy.empty();
      });
      const Iterator end = to == from ? from + 1 : to;
      skip_up_to(from->tier);
      add(from, end);
      from = end;
    }
    hide_repeated_tiers();
    std::move(staged_.begin(), staged_.end(), std::back_inserter(lines_));
    return std::move(lines_);
  }

 private:
  // Tiers that nobody asked between the last step and the one of `tier`. The built-in ones that are empty
  // in most clusters are only shown with -o wide.
  void skip_up_to(const std::string& tier) {
    while (next_ < direction_.tiers.size() && direction_.tiers[next_] != tier) {
      const std::string& passed = direction_.tiers[next_++];
      const auto& skipped = direction_.skipped_tiers;
      const bool is_skipped = std::find(skipped.begin(), skipped.end(), passed) != skipped.end();
      const bool nobody_anywhere = direction_.reason == Reason::NoPolicy && !wide_;
      if (is_skipped && !nobody_anywhere && (wide_ || !is_built_in(passed)))
        lines_.push_back(skipped_line(passed));
    }
  }

  void add(Iterator from, Iterator to) {
    if (from->staged) {
      staged_.push_back(staged_line(from, to));
    } else if (from->policy.empty()) {
      lines_.push_back(from->rule_index ? end_of_tier_line(*from) : fallback_line(*from, direction_.reason));
    } else {
      for (Line& line : policy_lines(from, to, wide_)) lines_.push_back(std::move(line));
    }
  }

  void hide_repeated_tiers() {
    std::string current;
    for (Line& line : lines_) {
      if (line.tier == current) line.tier.clear();
      if (!line.tier.empty()) current = line.tier;
    }
  }

  const ExplainedDirection& direction_;
  bool wide_;
  std::size_t next_ = 0;  // into direction_.tiers
  std::vector<Line> lines_;
  std::vector<Line> staged_;  // beside what decides: behind all of it
};

std::vector<Line> direction_lines(const std::optional<ExplainedDirection>& direction, bool wide) {
  if (!direction) return {};
  Line heading;
  const bool in = direction->direction == Direction::Ingress;
  heading.heading = (in ? "ingress to " : "egress from ") + direction->endpoint;
  const bool denied = direction->action == Action::Deny;
  heading.mark = denied ? "DENY" : "allow";
  heading.style = denied ? Style::Deny : Style::Allow;
  std::vector<Line> lines = {heading};
  for (Line& line : DirectionLines(*direction, wide).make()) lines.push_back(std::move(line));
  return lines;
}

std::vector<Line> lines_by_policies_alone(const Explanation& explanation, bool wide) {
  constexpr std::string_view kDecides = "<- decides", kWouldDecide = "<- would decide";
  std::vector<Line> lines = direction_lines(explanation.by_policies_alone, wide);
  for (Line& line : lines) {
    if (!line.heading.empty()) line.heading = "by policies alone (host_to_pod: policy), " + line.heading;
    if (line.mark.starts_with(kDecides)) line.mark.replace(0, kDecides.size(), kWouldDecide);
  }
  return lines;
}

// Where the columns stand. Only marked lines keep clear of the marks: other explanations may run on.
struct Places {
  std::size_t subject = 0, rule = 0, why = 0, mark = 0;
};

constexpr std::size_t kGap = 2;

Places places_of(const std::vector<Line>& lines, const View& view) {
  std::size_t tier = 8, subject = 0, rule = 0, why = 0, marked_why = 0, mark = 0;
  for (const Line& line : lines) {
    if (!line.heading.empty()) continue;
    tier = std::max(tier, display_width(line.tier));
    if (line.runs_on) continue;
    if (!line.rule.empty() || !line.why.empty()) subject = std::max(subject, display_width(line.subject));
    rule = std::max(rule, display_width(line.rule));
    if (!line.rule.empty()) why = std::max(why, display_width(line.why));
    mark = std::max(mark, display_width(line.mark + line.place));
    if (!line.mark.empty()) marked_why = std::max(marked_why, display_width(line.why));
  }
  if (!view.wide) subject = std::min(subject, kLongestSubject);
  Places places;
  places.subject = kGap + tier + kGap;
  places.rule = places.subject + subject + kGap;
  places.why = places.rule + rule + kGap;
  places.mark = places.why + why + kGap;
  if (!view.wide && places.mark + mark > view.width)
    places.mark = std::max(places.why + std::min(marked_why, kLeastWhy) + kGap,
                           view.width > mark ? view.width - mark : 0);
  return places;
}

// Appends parts of a line, each at its place; what is too long for its place is cut.
class Row {
 public:
  explicit Row(const View& view) : view_(view) {}

  void put(std::size_t place, const std::string& text, std::size_t next, Style style = Style::Plain,
           Cut cut = Cut::End) {
    if (text.empty()) return;
    if (used_ > 0) place = std::max(place, used_ + 1);
    const std::size_t room = next > place ? next - place : 1;
    const std::string shown = view_.wide ? text : fit(text, room, cut);
    line_.append(place - used_, ' ');
    line_ += styled(shown, style, view_.colour);
    used_ = place + display_width(shown);
  }
  // Right behind what stands there; a path keeps its end.
  void append(const std::string& text, std::size_t width, Style style) {
    const std::size_t room = width > used_ + 1 ? width - used_ : 1;
    const std::string shown = view_.wide ? text : fit(text, room, Cut::Start);
    line_ += styled(shown, style, view_.colour);
    used_ += display_width(shown);
  }
  std::string line() const { return line_ + "\n"; }
  std::size_t used() const { return used_; }

 private:
  const View& view_;
  std::string line_;
  std::size_t used_ = 0;
};

std::string text_of(const Line& line, const Places& places, const View& view) {
  Row row(view);
  if (!line.heading.empty()) {
    row.put(0, line.heading, view.width);
    row.put(places.mark, line.mark, view.width, line.style);
    return row.line();
  }
  row.put(kGap, line.tier, places.subject - 1);
  if (line.runs_on) {
    row.put(places.subject, line.subject, view.width, line.style);
    row.put(row.used() + 3, line.rule.empty() ? line.why : line.rule, view.width, line.style);
    return row.line();
  }
  const bool alone = line.rule.empty() && line.why.empty();
  row.put(places.subject, line.subject, alone ? view.width : places.rule - 1, Style::Plain, Cut::Middle);
  row.put(places.rule, line.rule, places.why - 1, line.style);
  row.put(line.rule.empty() ? places.rule : places.why, line.why,
          line.mark.empty() ? view.width : places.mark - 1);
  row.put(places.mark, line.mark, view.width, line.style);
  row.append(line.place, view.width, line.style);
  return row.line();
}

std::string end_text(const std::string& name, const IpAddr& address) {
  return name.starts_with("outside ") ? name : name + " (" + address.to_string() + ")";
}

std::string title(const Explanation& explanation, const View& view) {
  const policy::Packet& packet = explanation.packet;
  const bool denied = explanation.action == Action::Deny;
  return styled(denied ? "DENY" : "ALLOW", denied ? Style::Deny : Style::Allow, view.colour) + "  " +
         printable(end_text(explanation.source_name, packet.source)) + " -> " +
         printable(end_text(explanation.destination_name, packet.destination)) + " " +
         port_text(packet.protocol, packet.destination_port, packet.icmp_type, packet.icmp_code) + "\n\n";
}

// What stands between the title and the picture when a Service was asked about.
std::string service_text(const policy::ExplainedService& service, const policy::Packet& shown, const View& view) {
  const auto with_port = [](const IpAddr& address, std::uint16_t port) {
    const std::string text = address.to_string();
    return (address.family == Family::V6 ? "[" + text + "]" : text) + ":" + std::to_string(port);
  };
  std::string text = "Service " + printable(service.name) + " (" + with_port(service.address, service.port) + ") ";
  if (!service.has_port)
    return text + "has no such port: judged as it was sent; nothing answers there\n\n";
  if (service.backends.empty())
    return text + "has no backend: judged as it was sent; nothing answers there\n\n";
  text += "leads to " + counted(service.backends.size(), "backend") + ":\n";
  for (const policy::ExplainedService::Backend& backend : service.backends) {
    const bool denied = backend.action == Action::Deny;
    const bool is_shown = backend.address == shown.destination && backend.port == shown.destination_port;
    text += "  " + styled(denied ? "DENY " : "ALLOW", denied ? Style::Deny : Style::Allow, view.colour) + " " +
            printable(backend.name) + " " + with_port(backend.address, backend.port) +
            (is_shown && service.backends.size() > 1 ? "  (explained below)" : "") + "\n";
  }
  return text + "\n";
}

void make_printable(std::vector<Line>& lines) {
  for (Line& line : lines)
    for (std::string* part : {&line.heading, &line.tier, &line.subject, &line.rule, &line.why, &line.place})
      *part = printable(*part);
}

}  // namespace

std::string explain_text(const Explanation& explanation, const View& view) {
  std::vector<Line> lines;
  for (const auto* direction :
       {&explanation.host_ingress, &explanation.egress, &explanation.ingress, &explanation.host_egress})
    for (Line& line : direction_lines(*direction, view.wide)) lines.push_back(std::move(line));
  for (Line& line : lines_by_policies_alone(explanation, view.wide)) lines.push_back(std::move(line));
  make_printable(lines);
  const Places places = places_of(lines, view);
  std::string text = title(explanation, view);
  if (explanation.service) text += service_text(*explanation.service, explanation.packet, view);
  for (const Line& line : lines) text += text_of(line, places, view);
  const bool egress_denied = explanation.egress && explanation.egress->action == Action::Deny;
  if (!explanation.ingress && egress_denied && !explanation.destination_name.starts_with("outside "))
    text +=
        "ingress to " + printable(explanation.destination_name) + ": not asked, egress is denied already\n";
  if (lines.empty()) text += "neither end is an enforced pod or host endpoint: no policy is asked\n";
  return text;
}

const ExplainedStep* deciding_step(const Explanation& explanation) {
  const std::optional<ExplainedDirection>* direction = nullptr;
  const std::array in_order{&explanation.host_ingress, &explanation.egress, &explanation.ingress,
                            &explanation.host_egress};
  for (const auto* candidate : in_order)
    if (direction == nullptr && *candidate && (*candidate)->action == Action::Deny) direction = candidate;
  for (const auto* candidate : {in_order[2], in_order[1], in_order[0], in_order[3]})
    if (direction == nullptr && *candidate) direction = candidate;
  if (direction == nullptr) return nullptr;
  const auto found = std::find_if((*direction)->steps.begin(), (*direction)->steps.end(),
                                  [](const ExplainedStep& step) { return step.decides; });
  return found == (*direction)->steps.end() ? nullptr : &*found;
}

}  // namespace tierlog::cli
