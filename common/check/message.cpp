#include "common/check/message.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace flash {
namespace {

std::string number(double value) {
  if (std::isnan(value)) return "NaN";
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

std::string short_number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2g", value);
  return text;
}

// "O[b 0, h 1, i 63, column 5]"; dK and dV name their key/value head and their key.
std::string element_name(const TensorCheck& t, const std::vector<int>& index) {
  const bool of_keys = t.tensor == "dK" || t.tensor == "dV";
  std::string name = t.tensor + "[b " + std::to_string(index[0]) + (of_keys ? ", kv head " : ", h ") +
                     std::to_string(index[1]) + (of_keys ? ", key " : ", row ") + std::to_string(index[2]);
  if (index.size() > 3) name += ", column " + std::to_string(index[3]);
  return name + "]";
}

std::string rows_text(const TensorCheck& t) {
  if (t.rows_checked >= t.rows_total) return "all " + std::to_string(t.rows_total) + " rows";
  return std::to_string(t.rows_checked) + " of " + std::to_string(t.rows_total) + " rows";
}

std::string story(const TensorCheck& t, int columns) {
  if (t.verdict == Verdict::skip)
    return t.tensor + " can't be checked: a plain computation in this precision overflows at " +
           element_name(t, t.first_index) + " (expected " + number(t.first_expected) + ").";
  const std::string figures = "max error " + short_number(t.max_error) + " (bound " + short_number(t.max_bound) +
                              "), RMS " + short_number(t.rms_error) + " (bound " + short_number(t.rms_bound) + ")";
  if (t.verdict == Verdict::pass) return t.tensor + " is right: " + figures + ", " + rows_text(t) + ".";
  std::string text;
  if (t.wrong > 0) {
    text = t.tensor + " is wrong: " + std::to_string(t.wrong) + " of " + std::to_string(t.rows_checked * columns) +
           " elements; " + rows_text(t) + " were checked.\n";
    text += "  first: " + element_name(t, t.first_index) + " is " + number(t.first_got) + ", expected " +
            number(t.first_expected) + "\n";
    text += "  worst: " + element_name(t, t.worst_index) + " is " + number(t.worst_got) + ", expected " +
            number(t.worst_expected);
  } else {
    text = t.tensor + " is wrong: no element alone, but the errors together are too large.\n  " + figures;
  }
  if (!t.pattern.empty()) text += "\n  pattern: " + t.pattern;
  return text;
}

// What follows from one tensor being right and another wrong; "" if nothing does.
std::string compare_tensors(const std::vector<TensorCheck>& tensors) {
  auto is = [&](const char* name, Verdict verdict) {
    for (const TensorCheck& t : tensors)
      if (t.tensor == name) return t.verdict == verdict;
    return false;
  };
  if (is("O", Verdict::fail) && is("LSE", Verdict::pass))
    return "LSE is right, so the scores, the maximum and the sum are: look at what O alone goes through (P V, the "
           "rescaling "
           "of the accumulator, the division by the sum, the store).";
  if (is("O", Verdict::pass) && is("LSE", Verdict::fail))
    return "O is right, so the maximum and the sum agree: look at how LSE = maximum + log(sum) is put together.";
  if (is("dV", Verdict::pass) && is("dQ", Verdict::fail) && is("dK", Verdict::fail))
    return "dV is right, so P is: look at dS = P (dP - D), at D and at softmax_scale.";
  if (is("dQ", Verdict::pass) && is("dV", Verdict::pass) && is("dK", Verdict::fail))
    return "dQ is right, so dS is: look at the sum that makes dK.";
  if (is("dQ", Verdict::fail) && is("dV", Verdict::pass) && is("dK", Verdict::pass))
    return "dK is right, so dS is: look at the sum that makes dQ.";
  if (is("dQ", Verdict::pass) && is("dV", Verdict::fail) && is("dK", Verdict::pass))
    return "dQ and dK are right, so P is: look at the sum that makes dV.";
  return "";
}

}  // namespace

std::string check_message(const Problem& p, const std::vector<TensorCheck>& tensors, const std::string& reference) {
  auto passes = [](const TensorCheck& t) { return t.verdict == Verdict::pass; };
  if (std::all_of(tensors.begin(), tensors.end(), passes)) {
    std::string line;
    for (const TensorCheck& t : tensors)
      line += (line.empty() ? "" : "; ") + t.tensor + " max error " + short_number(t.max_error) + " (bound " +
              short_number(t.max_bound) + ")";
    return line + "; " + rows_text(tensors.front()) + " checked against " + reference;
  }
  std::string message;
  for (const TensorCheck& t : tensors)
    message += (message.empty() ? "" : "\n") + story(t, t.tensor == "LSE" ? 1 : p.head_dim);
  const std::string hint = compare_tensors(tensors);
  if (!hint.empty()) message += "\n" + hint;
  return message;
}

}  // namespace flash
