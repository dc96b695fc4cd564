// ptx/tensor_map.cuh on the CPU back end.
#pragma once
#include "common/emu/run/tensor_map.h"
