// ./run --list: the steps in this program, for a person and for the tools.
#pragma once
#include <iosfwd>
#include <string>

namespace flash {

void print_step_list(std::ostream&);
// {"main": "05.6", "steps": [{number, name, idea, direction, dtypes, head_dims, least_compute_capability,
// runs_on_later, uses_tensor_cores}, ...]}; docs/json.md describes it.
std::string step_list_as_json();

}  // namespace flash
