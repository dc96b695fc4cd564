#include "common/emu/run/tensor_map.h"

#include "common/base/error.h"
#include "common/emu/run/runtime.h"

namespace flash {

CUtensorMap encode_tensor_map(const TensorLayout& layout) {
  if (const std::string rule = broken_rule(layout); !rule.empty())
    throw Error(kDeviceError, "make_tensor_map: " + rule);
  CUtensorMap map{};
  map.layout = layout;
  const emu::Allocation* const array = emu::find_allocation(layout.data);
  map.allocation = array == nullptr ? 0 : array->serial;
  return map;
}

}  // namespace flash
