#include "common/run/step_list.h"

#include <ostream>

#include "common/base/json.h"
#include "common/base/text.h"
#include "common/kernel/step.h"

namespace flash {

void print_step_list(std::ostream& out) {
  for (const StepInfo& step : linked_steps()) {
    std::string types, dims;
    for (Dtype t : step.dtypes) types += (types.empty() ? "" : ", ") + std::string(dtype_name(t));
    for (int d : step.head_dims) dims += (dims.empty() ? "" : ", ") + std::to_string(d);
    const Architectures& runs_on = step.architectures;
    out << format("%-5s %-26s %s\n", step.number.c_str(), step.name.c_str(), step.idea.c_str())
        << format("      %s; head_dim %s; compute capability %d.%d %s\n", types.c_str(), dims.c_str(),
                  runs_on.least / 10, runs_on.least % 10, runs_on.later_too ? "and up" : "alone");
  }
}

std::string step_list_as_json() {
  JsonWriter json;
  json.begin_object();
  json.value("main", main_step().number);
  json.begin_array("steps");
  for (const StepInfo& step : linked_steps()) {
    json.begin_object();
    json.value("number", step.number);
    json.value("name", step.name);
    json.value("idea", step.idea);
    json.value("direction", step.direction == Direction::forward ? "forward" : "backward");
    std::vector<std::string> dtypes;
    for (Dtype t : step.dtypes) dtypes.push_back(dtype_name(t));
    json.value("dtypes", dtypes);
    json.value("head_dims", step.head_dims);
    json.value("least_compute_capability", step.architectures.least);
    json.value("runs_on_later", step.architectures.later_too);
    json.value("uses_tensor_cores", step.uses_tensor_cores);
    json.end_object();
  }
  json.end_array();
  json.end_object();
  return json.text();
}

}  // namespace flash
