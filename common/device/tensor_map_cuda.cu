// make_tensor_map() on a GPU: the driver's encoder, found at run time, so that nothing links libcuda.
#include <cuda.h>
#include <cuda_runtime.h>

#include "common/base/error.h"
#include "common/device/tensor_layout.h"

namespace flash {

CUtensorMap encode_tensor_map(const TensorLayout&);  // for ptx/tensor_map.cuh

namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

Encode find_encoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
  const cudaError_t status =
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found);
#else
  const cudaError_t status = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found);
#endif
  if (status != cudaSuccess || found != cudaDriverEntryPointSuccess || function == nullptr) {
    throw Error(kDeviceError, "make_tensor_map: this driver has no tensor maps; they came with CUDA 12.0");
  }
  return reinterpret_cast<Encode>(function);
}

CUtensorMapDataType type_of(TensorElement element) {
  switch (element) {
    case TensorElement::fp16: return CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    case TensorElement::bf16: return CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    case TensorElement::fp32: return CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
    case TensorElement::int32: return CU_TENSOR_MAP_DATA_TYPE_INT32;
    default: return CU_TENSOR_MAP_DATA_TYPE_UINT8;
  }
}

CUtensorMapSwizzle swizzle_of(Swizzle swizzle) {
  switch (swizzle) {
    case Swizzle::bytes32: return CU_TENSOR_MAP_SWIZZLE_32B;
    case Swizzle::bytes64: return CU_TENSOR_MAP_SWIZZLE_64B;
    case Swizzle::bytes128: return CU_TENSOR_MAP_SWIZZLE_128B;
    default: return CU_TENSOR_MAP_SWIZZLE_NONE;
  }
}

}  // namespace

CUtensorMap encode_tensor_map(const TensorLayout& layout) {
  if (const std::string rule = broken_rule(layout); !rule.empty())
    throw Error(kDeviceError, "make_tensor_map: " + rule);
  static const Encode encode = find_encoder();
  cuuint64_t dims[kMaxTensorDims], strides[kMaxTensorDims];
  cuuint32_t box[kMaxTensorDims], every_element[kMaxTensorDims];
  for (int i = 0; i < layout.rank; ++i) {
    dims[i] = layout.dims[i], box[i] = layout.box[i], every_element[i] = 1;
    if (i > 0) strides[i - 1] = layout.stride[i];
  }
  CUtensorMap map;
  const CUresult result =
      encode(&map, type_of(layout.element), cuuint32_t(layout.rank), const_cast<void*>(layout.data), dims, strides, box,
             every_element, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle_of(layout.swizzle),
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    throw Error(kDeviceError, "make_tensor_map: the driver refused the map, error " + std::to_string(int(result)));
  }
  return map;
}

}  // namespace flash
