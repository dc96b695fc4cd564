// CUtensorMap on the CPU back end: as large as the driver's, and legible.
#pragma once
#include "common/device/tensor_layout.h"

struct CUtensorMap {
  flash::TensorLayout layout;
  uint64_t allocation;  // Allocation::serial of the array the map was made for; 0: none
};
static_assert(sizeof(CUtensorMap) == 128, "as the driver's");

namespace flash {
CUtensorMap encode_tensor_map(const TensorLayout&);
}
