#include "common/device/print_counts.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <map>
#include <ostream>
#include <regex>
#include <utility>
#include <vector>

namespace flash {

namespace {

constexpr size_t kHottestLines = 12;

// 123 456 789 -> "123.5 M"; exact below 100,000.
std::string count_text(uint64_t n) {
  if (n < 100000) return std::to_string(n);
  char text[32];
  const char* units[] = {"k", "M", "G", "T"};
  double value = double(n) / 1000;
  int unit = 0;
  while (value >= 1000 && unit < 3) value /= 1000, ++unit;
  std::snprintf(text, sizeof text, "%.*f %s", value < 10 ? 2 : 1, value, units[unit]);
  return text;
}

std::string ratio(uint64_t part, uint64_t whole) {
  if (whole == 0) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", double(part) / double(whole));
  return text;
}

// Of the threads' own accesses; what the copy engine asks for has no requests.
std::string sectors_a_request(const AccessCounts& c) { return ratio(c.sectors - c.tma_sectors, c.requests); }

// Rows of cells, the first row the heading; numbers to the right, the last column to the left.
void print_table(std::ostream& out, const std::vector<std::vector<std::string>>& rows) {
  auto width_of = [](const std::string& text) {  // of UTF-8: continuation bytes take no room
    return size_t(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
  };
  std::vector<size_t> widths(rows[0].size());
  for (const auto& row : rows) {
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width_of(row[c]));
  }
  for (const auto& row : rows) {
    out << " ";
    for (size_t c = 0; c + 1 < row.size(); ++c) {
      const std::string space(widths[c] - width_of(row[c]), ' ');
      out << " " << (c == 0 ? row[c] + space : space + row[c]) << " ";
    }
    out << (row.back().empty() ? "" : " " + row.back()) << "\n";
  }
}

// Exercises and tests name places by labels (common/exercises/labels.py); a reader of the report needs none.
std::string without_label(const std::string& line) {
  static const std::regex before_text("// @[a-z0-9-]+: "), alone(" *// @[a-z0-9-]+$");
  return std::regex_replace(std::regex_replace(line, before_text, "// "), alone, "");
}

std::string source_line(const std::string& file, int line) {
  static std::map<std::string, std::vector<std::string>> files;
  auto at = files.find(file);
  if (at == files.end()) {
    at = files.emplace(file, std::vector<std::string>()).first;
    std::ifstream in(file);
    for (std::string text; std::getline(in, text);) at->second.push_back(without_label(text));
  }
  if (line < 1 || size_t(line) > at->second.size()) return "";
  const std::string& text = at->second[size_t(line) - 1];
  const size_t begin = text.find_first_not_of(" \t");
  return begin == std::string::npos ? "" : text.substr(begin, 90);
}

// How much memory traffic a line makes: sectors and wavefronts are the hardware's own units of work.
uint64_t heat(const Counts& c) {
  return c.global_read.sectors + c.global_write.sectors + c.shared_read.wavefronts + c.shared_write.wavefronts;
}

std::string lines_of_access(const AccessCounts& c, bool is_shared) {
  if (c.requests == 0) return "";
  if (is_shared) {
    return count_text(c.requests) + " requests, " + count_text(c.wavefronts) + " wavefronts, " +
           count_text(c.conflicts) + " conflicts";
  }
  return count_text(c.requests) + " requests, " + count_text(c.sectors - c.tma_sectors) + " sectors, " +
         sectors_a_request(c) + " a request";
}

void print_lines(std::ostream& out, const KernelCounts& kernel) {
  struct Row {
    const LineCounts* line;
    const char* what;
    std::string text;
    uint64_t heat;
  };
  std::vector<Row> hottest;
  for (const LineCounts& line : kernel.lines) {
    const Counts& c = line.counts;
    auto add = [&](const char* what, const AccessCounts& access, bool is_shared) {
      if (access.requests == 0) return;
      hottest.push_back({&line, what, lines_of_access(access, is_shared), access.sectors + access.wavefronts});
    };
    if (const uint64_t copies = c.tma_loads + c.tma_stores + c.tma_reductions) {
      const uint64_t sectors = c.global_read.tma_sectors + c.global_write.tma_sectors;
      hottest.push_back({&line, c.tma_loads ? "TMA to shared  " : "TMA from shared",
                         count_text(copies) + " copies, " + count_text(c.tma_shared_bytes) + " bytes, " +
                             count_text(sectors) + " sectors",
                         sectors});
    }
    add("global read ", c.global_read, false);
    add("global write", c.global_write, false);
    add("shared read ", c.shared_read, true);
    add("shared write", c.shared_write, true);
  }
  if (hottest.empty()) return;
  std::stable_sort(hottest.begin(), hottest.end(), [](const Row& a, const Row& b) { return a.heat > b.heat; });
  const size_t all = hottest.size();
  if (all > kHottestLines) hottest.resize(kHottestLines);
  uint64_t total = heat(kernel.total);
  out << "\n  " << kernel.name << ": its hottest lines (of " << all << "), by sectors and wavefronts\n";
  for (const Row& row : hottest) {
    char share[16];
    std::snprintf(share, sizeof share, "%5.1f%%", total ? 100.0 * double(row.heat) / double(total) : 0.0);
    out << "  " << share << "  " << row.line->file << ":" << row.line->line << "  " << row.what << "  "
        << (row.line->exact ? "" : "≈ ") << row.text << "\n";
    const std::string source = source_line(row.line->file, row.line->line);
    if (!source.empty()) out << "          | " << source << "\n";
  }
}

std::string percent(double share) {
  char text[16];
  std::snprintf(text, sizeof text, "%.0f %%", 100 * share);
  return text;
}

// ---- JSON -----------------------------------------------------------------------------------------------------------

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", c);
      out += code;
    } else {
      out += c;
    }
  }
  return out + "\"";
}

class JsonObject {
 public:
  void add_raw(const std::string& key, const std::string& value) {
    text_ += (text_.empty() ? "" : ", ") + quoted(key) + ": " + value;
  }
  void add(const std::string& key, uint64_t value) { add_raw(key, std::to_string(value)); }
  void add(const std::string& key, double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.6g", value);
    add_raw(key, text);
  }
  void add(const std::string& key, const std::string& value) { add_raw(key, quoted(value)); }
  std::string text() const { return "{" + text_ + "}"; }

 private:
  std::string text_;
};

template <class Items, class ToJson>
std::string json_array(const Items& items, ToJson to_json) {
  std::string text;
  for (const auto& item : items) text += (text.empty() ? "" : ", ") + to_json(item);
  return "[" + text + "]";
}

void add_counts(JsonObject& json, const Counts& c) {
  auto add = [&](const std::string& what, const AccessCounts& a, bool is_shared) {
    json.add(what + "_requests", a.requests);
    json.add(what + "_bytes", a.bytes);
    if (!is_shared) json.add(what + "_sectors", a.sectors);
    if (is_shared) json.add(what + "_wavefronts", a.wavefronts);
    if (is_shared) json.add(what + "_conflicts", a.conflicts);
  };
  add("global_read", c.global_read, false);
  add("global_write", c.global_write, false);
  add("shared_read", c.shared_read, true);
  add("shared_write", c.shared_write, true);
  json.add("atomics", c.atomics);
  json.add("shuffles", c.shuffles);
  json.add("barriers", c.barriers);
  json.add("exps", c.exps);
  json.add("mmas", c.mmas);
  json.add("ldmatrixes", c.ldmatrixes);
  json.add("async_copies", c.async_copies);
  json.add("stmatrixes", c.stmatrixes);
  json.add("tma_loads", c.tma_loads);
  json.add("tma_stores", c.tma_stores);
  json.add("tma_reductions", c.tma_reductions);
  json.add("tma_global_bytes", c.tma_global_bytes);
  json.add("tma_shared_bytes", c.tma_shared_bytes);
  json.add("mbarrier_arrivals", c.mbarrier_arrivals);
  json.add("mbarrier_waits", c.mbarrier_waits);
  json.add("named_barriers", c.named_barriers);
  json.add("wgmmas", c.wgmmas);
  json.add("wgmma_flops", c.wgmma_flops);
  json.add("wgmma_operand_bytes", c.wgmma_operand_bytes);
}

std::string product_shares_json(const Counts& c) {
  if (c.wgmma_flops == 0) return "null";
  const ProductShares shares = product_shares(c);
  JsonObject json;
  json.add("operands", shares.operands);
  json.add("tma", shares.tma);
  json.add("threads", shares.threads);
  json.add("exps", shares.exps);
  return json.text();
}

}  // namespace

ProductShares product_shares(const Counts& c) {
  constexpr double kFlopsAClock = 4096, kSharedBytesAClock = 128, kExpsAClock = 16;
  ProductShares shares;
  if (c.wgmma_flops == 0) return shares;
  const double clocks = double(c.wgmma_flops) / kFlopsAClock;
  shares.operands = double(c.wgmma_operand_bytes) / kSharedBytesAClock / clocks;
  shares.tma = double(c.tma_shared_bytes) / kSharedBytesAClock / clocks;
  shares.threads = double(c.shared_read.wavefronts + c.shared_write.wavefronts) / clocks;
  shares.exps = double(c.exps) / kExpsAClock / clocks;
  return shares;
}

void print_watch_report(std::ostream& out, const WatchReport& report) {
  if (!report.watched) {
    out << "No counts: this kernel was built without watching (WATCH=0), or runs on a GPU.\n";
    return;
  }
  out << "What the kernels asked of memory (counts, not times; a request is one warp's access)\n\n";
  std::vector<std::vector<std::string>> global = {{"global memory", "blocks", "bytes read", "sectors/request",
                                                   "distinct", "bytes written", "sectors/request", "distinct", ""}};
  std::vector<std::vector<std::string>> shared = {
      {"shared memory", "reads", "conflicts", "writes", "conflicts", "barriers", ""}};
  for (const KernelCounts& kernel : report.kernels) {
    const Counts& c = kernel.total;
    const auto guess = [](const LineCounts& line) { return !line.exact; };
    const std::string name = kernel.name + (std::any_of(kernel.lines.begin(), kernel.lines.end(), guess) ? " ≈" : "");
    global.push_back({name, count_text(kernel.blocks), count_text(c.global_read.bytes),
                      sectors_a_request(c.global_read), count_text(kernel.distinct_read_bytes),
                      count_text(c.global_write.bytes), sectors_a_request(c.global_write),
                      count_text(kernel.distinct_write_bytes), ""});
    if (c.shared_read.requests + c.shared_write.requests + c.barriers == 0) continue;
    shared.push_back({name, count_text(c.shared_read.requests), count_text(c.shared_read.conflicts),
                      count_text(c.shared_write.requests), count_text(c.shared_write.conflicts), count_text(c.barriers),
                      ""});
  }
  print_table(out, global);
  if (shared.size() > 1) {
    out << "\n";
    print_table(out, shared);
  }
  bool is_first = true;
  for (const KernelCounts& kernel : report.kernels) {
    const Counts& c = kernel.total;
    std::string text;
    auto add = [&](uint64_t n, const char* what) {
      if (n) text += (text.empty() ? "" : ", ") + count_text(n) + " " + what;
    };
    add(c.exps, "exp");
    add(c.shuffles, "shuffles");
    add(c.atomics, "atomics");
    add(c.mmas, "mma");
    add(c.ldmatrixes, "ldmatrix");
    add(c.stmatrixes, "stmatrix");
    add(c.async_copies, "cp.async");
    add(c.tma_loads, "TMA loads");
    add(c.tma_stores, "TMA stores");
    add(c.tma_reductions, "TMA reductions");
    add(c.tma_shared_bytes, "bytes by TMA");
    add(c.mbarrier_arrivals, "mbarrier arrivals");
    add(c.mbarrier_waits, "waits");
    add(c.named_barriers, "named barriers");
    add(c.wgmmas, "wgmma");
    add(c.wgmma_flops, "FLOP by wgmma");
    add(c.wgmma_operand_bytes, "bytes of operands");
    if (text.empty()) continue;
    out << (is_first ? "\n  " : "  ") << kernel.name << ": " << text << "\n";
    is_first = false;
    if (c.wgmma_flops == 0) continue;
    const ProductShares shares = product_shares(c);
    out << "  of the products' time at wgmma's full rate, shared memory needs " << percent(shares.shared())
        << " (operands " << percent(shares.operands) << ", TMA " << percent(shares.tma) << ", threads "
        << percent(shares.threads) << "), the exponentials " << percent(shares.exps) << "\n";
  }
  for (const KernelCounts& kernel : report.kernels) print_lines(out, kernel);
  for (const KernelCounts& kernel : report.kernels) {
    const auto guess = [](const LineCounts& l) { return !l.exact; };
    if (!std::any_of(kernel.lines.begin(), kernel.lines.end(), guess)) continue;
    out << "\n  ≈ the threads of a warp ran the line different numbers of times: its requests are a guess\n";
    break;
  }
  print_faults(out, report);
}

void print_traffic(std::ostream& out, const WatchReport& report, const Traffic& step, const Traffic& least) {
  if (!report.watched) return;
  const Counts counted = report.total();
  auto text = [](double bytes) { return count_text(uint64_t(bytes + 0.5)); };
  auto times = [](double a, double b) {
    char out_text[32];
    std::snprintf(out_text, sizeof out_text, "%.2fx", b > 0 ? a / b : 0.0);
    return std::string(out_text);
  };
  const double read = double(counted.global_read.bytes), written = double(counted.global_write.bytes);
  const double sum = read + written, step_sum = step.read_bytes + step.write_bytes;
  const double least_sum = least.read_bytes + least.write_bytes;
  out << "\nGlobal memory, bytes the threads asked for\n\n";
  print_table(out, {{"", "read", "written", "both", "", ""},
                    {"counted", text(read), text(written), text(sum), "", ""},
                    {"the step's formula", text(step.read_bytes), text(step.write_bytes), text(step_sum),
                     times(sum, step_sum), "counted / formula"},
                    {"the least possible", text(least.read_bytes), text(least.write_bytes), text(least_sum),
                     times(sum, least_sum), "counted / least"}});
}

void print_faults(std::ostream& out, const WatchReport& report) {
  if (report.faults.empty()) return;
  out << "\n" << report.faults.size() << (report.faults.size() == 1 ? " fault:\n" : " faults:\n");
  for (const WatchFault& fault : report.faults) {
    out << "\n  " << fault.message;
    if (fault.times > 1) out << " (" << fault.times << " times)";
    out << "\n";
    for (const Site& site : {fault.here, fault.other}) {
      const std::string source = source_line(site.file, site.line);
      if (!source.empty()) out << "    " << site.file << ":" << site.line << " | " << source << "\n";
    }
  }
}

std::string watch_report_json(const WatchReport& report) {
  auto counts_json = [](const Counts& c) {
    JsonObject json;
    add_counts(json, c);
    return json;
  };
  JsonObject all, counts = counts_json(report.total());
  uint64_t distinct_read = 0, distinct_write = 0;
  for (const KernelCounts& kernel : report.kernels) {
    distinct_read += kernel.distinct_read_bytes, distinct_write += kernel.distinct_write_bytes;
  }
  counts.add("distinct_read_bytes", distinct_read);
  counts.add("distinct_write_bytes", distinct_write);
  all.add_raw("watched", report.watched ? "true" : "false");
  all.add_raw("counts", counts.text());
  all.add_raw("kernels", json_array(report.kernels, [&](const KernelCounts& kernel) {
                JsonObject json, total = counts_json(kernel.total);
                total.add("distinct_read_bytes", kernel.distinct_read_bytes);
                total.add("distinct_write_bytes", kernel.distinct_write_bytes);
                json.add("name", kernel.name);
                json.add("launches", kernel.launches);
                json.add("blocks", kernel.blocks);
                json.add("threads", kernel.threads);
                json.add_raw("counts", total.text());
                json.add_raw("product_shares", product_shares_json(kernel.total));
                json.add_raw("lines", json_array(kernel.lines, [&](const LineCounts& line) {
                               JsonObject entry;
                               entry.add("file", line.file);
                               entry.add("line", uint64_t(line.line));
                               entry.add_raw("exact", line.exact ? "true" : "false");
                               entry.add_raw("counts", counts_json(line.counts).text());
                               return entry.text();
                             }));
                return json.text();
              }));
  all.add_raw("faults", json_array(report.faults, [](const WatchFault& fault) {
                JsonObject json;
                json.add("kind", fault.kind);
                json.add("message", fault.message);
                json.add("kernel", fault.kernel);
                json.add("array", fault.array);
                json.add("file", fault.here.file);
                json.add("line", uint64_t(fault.here.line));
                json.add("other_file", fault.other.file);
                json.add("other_line", uint64_t(fault.other.line));
                json.add("times", fault.times);
                return json.text();
              }));
  return all.text();
}

}  // namespace flash
