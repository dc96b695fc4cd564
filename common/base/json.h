// Writes JSON (RFC 8259), indented. Keys come out in the order they are given.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace flash {

class JsonWriter {
 public:
  // Inside an array the key is "".
  void begin_object(const std::string& key = "");
  void end_object();
  void begin_array(const std::string& key);
  void end_array();
  void value(const std::string& key, const std::string& text);
  void value(const std::string& key, const char* text);
  void value(const std::string& key, double number);  // NaN and infinity, which JSON lacks, become null
  void value(const std::string& key, uint64_t number);
  void value(const std::string& key, int number);
  void value(const std::string& key, bool truth);
  void value(const std::string& key, const std::vector<int>& numbers);
  void value(const std::string& key, const std::vector<std::string>& texts);
  void null(const std::string& key);
  void raw(const std::string& key, const std::string& json);  // `json` is JSON already

  void members_of(const std::string& object);  // those of a JSON object, put among this level's own

  const std::string& text() const { return text_; }

 private:
  void begin(const std::string& key);  // comma, line break, indent, key
  std::string text_;
  std::vector<bool> has_entries_;  // a level: has anything been written into it
};

std::string json_string(const std::string& text);  // quoted and escaped

}  // namespace flash
