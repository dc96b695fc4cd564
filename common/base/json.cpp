#include "common/base/json.h"

#include <cmath>
#include <cstdint>

#include "common/base/text.h"

namespace flash {

std::string json_string(const std::string& text) {
  std::string quoted = "\"";
  for (unsigned char c : text) {
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += char(c);
    } else if (c == '\n') {
      quoted += "\\n";
    } else if (c < 0x20) {
      quoted += format("\\u%04x", c);
    } else {
      quoted += char(c);
    }
  }
  return quoted + "\"";
}

void JsonWriter::begin(const std::string& key) {
  if (has_entries_.empty()) return;  // the outermost object
  if (has_entries_.back()) text_ += ',';
  has_entries_.back() = true;
  text_ += '\n' + std::string(2 * has_entries_.size(), ' ');
  if (!key.empty()) text_ += json_string(key) + ": ";
}

void JsonWriter::begin_object(const std::string& key) {
  begin(key);
  text_ += '{';
  has_entries_.push_back(false);
}

void JsonWriter::begin_array(const std::string& key) {
  begin(key);
  text_ += '[';
  has_entries_.push_back(false);
}

void JsonWriter::end_object() {
  const bool had_entries = has_entries_.back();
  has_entries_.pop_back();
  if (had_entries) text_ += '\n' + std::string(2 * has_entries_.size(), ' ');
  text_ += '}';
  if (has_entries_.empty()) text_ += '\n';
}

void JsonWriter::end_array() {
  const bool had_entries = has_entries_.back();
  has_entries_.pop_back();
  if (had_entries) text_ += '\n' + std::string(2 * has_entries_.size(), ' ');
  text_ += ']';
}

void JsonWriter::raw(const std::string& key, const std::string& json) {
  begin(key);
  text_ += json;
}

void JsonWriter::members_of(const std::string& object) {
  const size_t first = object.find('{') + 1, last = object.rfind('}');
  const std::string members = object.substr(first, last - first);
  if (members.find_first_not_of(" \n") == std::string::npos) return;
  begin("");
  text_ += members.substr(members.find_first_not_of(" \n"),
                          members.find_last_not_of(" \n") + 1 - members.find_first_not_of(" \n"));
}

void JsonWriter::value(const std::string& key, double number) {
  if (!std::isfinite(number)) return null(key);
  // The shortest of these that reads back as the same number.
  std::string digits = format("%.6g", number);
  if (std::stod(digits) != number) digits = format("%.17g", number);
  raw(key, digits);
}

void JsonWriter::value(const std::string& key, const std::string& text) { raw(key, json_string(text)); }
void JsonWriter::value(const std::string& key, const char* text) { raw(key, json_string(text)); }
void JsonWriter::value(const std::string& key, uint64_t number) { raw(key, std::to_string(number)); }
void JsonWriter::value(const std::string& key, int number) { raw(key, std::to_string(number)); }
void JsonWriter::value(const std::string& key, bool truth) { raw(key, truth ? "true" : "false"); }
void JsonWriter::null(const std::string& key) { raw(key, "null"); }

void JsonWriter::value(const std::string& key, const std::vector<int>& numbers) {
  std::string list;
  for (int n : numbers) list += (list.empty() ? "" : ", ") + std::to_string(n);
  raw(key, "[" + list + "]");
}

void JsonWriter::value(const std::string& key, const std::vector<std::string>& texts) {
  std::string list;
  for (const std::string& text : texts) list += (list.empty() ? "" : ", ") + json_string(text);
  raw(key, "[" + list + "]");
}

}  // namespace flash
