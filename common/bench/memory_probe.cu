// Measures what docs/memory_hierarchy.md speaks of, on the GPU at hand: the latency of a load by where its data lies, and
// the bandwidth of shared memory, L2 and device memory. `make probe` builds and runs it; it needs a GPU.
//
// Latency: one thread follows a chain of indices, each load waiting for the one before; the chain goes round an array of
// the size under test in steps of one 128-byte line, shuffled, so that no prefetcher can guess. Bandwidth: all SMs read.
#include <algorithm>
#include <cstdio>
#include <numeric>
#include <random>
#include <vector>

#include "common/kernel/cuda.cuh"

namespace {

constexpr int kLineInts = 32;  // 128 bytes

__global__ void chase_global(const int* chain, int steps, long long* cycles, int* sink) {
  int at = 0;
  for (int i = 0; i < steps; ++i) at = chain[at];  // a warm-up round
  const long long begin = clock64();
  for (int i = 0; i < steps; ++i) at = chain[at];
  *cycles = clock64() - begin;
  *sink = at;
}

// As chase_global, but past the L1 cache: ld.global.cg.
__global__ void chase_l2(const int* chain, int steps, long long* cycles, int* sink) {
  int at = 0;
  for (int i = 0; i < steps; ++i) at = __ldcg(&chain[at]);
  const long long begin = clock64();
  for (int i = 0; i < steps; ++i) at = __ldcg(&chain[at]);
  *cycles = clock64() - begin;
  *sink = at;
}

__global__ void chase_shared(int steps, long long* cycles, int* sink) {
  __shared__ int chain[1024];
  for (int i = 0; i < 1024; ++i) chain[i] = (i + 33) % 1024;
  int at = 0;
  const long long begin = clock64();
  for (int i = 0; i < steps; ++i) at = chain[at];
  *cycles = clock64() - begin;
  *sink = at;
}

// Every thread reads 16 bytes a step, neighbours side by side, `rounds` times over the whole array.
__global__ void read_all(const float4* data, size_t count, int rounds, float* sink) {
  const size_t stride = size_t(gridDim.x) * blockDim.x;
  float sum = 0;
  for (int r = 0; r < rounds; ++r) {
    for (size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
      const float4 v = __ldcg(&data[i]);
      sum += v.x + v.y + v.z + v.w;
    }
  }
  if (sum == 1e30f) *sink = sum;  // never: keeps the loads
}

__global__ void read_shared(int rounds, float* sink) {
  __shared__ float4 data[1024];
  for (int i = threadIdx.x; i < 1024; i += blockDim.x) data[i] = make_float4(i, 1, 2, 3);
  __syncthreads();
  float4 sum = make_float4(0, 0, 0, 0);
  int at = threadIdx.x;
  for (int r = 0; r < rounds; ++r) {
    const float4 v = data[at];
    at = (at + 32) % 1024;
    sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
  }
  if (sum.x + sum.y + sum.z + sum.w == 1e30f) *sink = sum.x;
}

// A chain through every line of an array, in random order.
std::vector<int> shuffled_chain(size_t bytes) {
  const size_t lines = bytes / (kLineInts * sizeof(int));
  std::vector<int> order(lines), chain(lines * kLineInts);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin() + 1, order.end(), std::mt19937(1));
  for (size_t i = 0; i < lines; ++i) chain[size_t(order[i]) * kLineInts] = order[(i + 1) % lines] * kLineInts;
  return chain;
}

struct Results {
  long long* cycles;
  int* sink;
};

template <class Kernel>
double cycles_per_load(Kernel kernel, size_t bytes, const Results& results) {
  const std::vector<int> chain = shuffled_chain(bytes);
  int* device_chain;
  CUDA_CHECK(cudaMalloc(&device_chain, bytes));
  CUDA_CHECK(cudaMemcpy(device_chain, chain.data(), bytes, cudaMemcpyHostToDevice));
  const int steps = int(std::min<size_t>(bytes / 128, 200000));
  kernel<<<1, 1>>>(device_chain, steps, results.cycles, results.sink);
  CUDA_CHECK(cudaGetLastError());
  long long cycles;
  CUDA_CHECK(cudaMemcpy(&cycles, results.cycles, sizeof cycles, cudaMemcpyDeviceToHost));
  CUDA_CHECK(cudaFree(device_chain));
  return double(cycles) / steps;
}

template <class Work>
double milliseconds(Work work) {
  cudaEvent_t begin, end;
  CUDA_CHECK(cudaEventCreate(&begin));
  CUDA_CHECK(cudaEventCreate(&end));
  std::vector<float> times(5);
  for (float& ms : times) {
    CUDA_CHECK(cudaEventRecord(begin));
    work();
    CUDA_CHECK(cudaGetLastError());
    CUDA_CHECK(cudaEventRecord(end));
    CUDA_CHECK(cudaEventSynchronize(end));
    CUDA_CHECK(cudaEventElapsedTime(&ms, begin, end));
  }
  CUDA_CHECK(cudaEventDestroy(begin));
  CUDA_CHECK(cudaEventDestroy(end));
  std::sort(times.begin(), times.end());
  return times[2];
}

double read_gb_per_s(size_t bytes, int rounds, int sm_count, float* sink) {
  float4* data;
  CUDA_CHECK(cudaMalloc(&data, bytes));
  CUDA_CHECK(cudaMemset(data, 0, bytes));
  const double ms = milliseconds([&] { read_all<<<sm_count * 4, 512>>>(data, bytes / 16, rounds, sink); });
  CUDA_CHECK(cudaFree(data));
  return double(bytes) * rounds / ms * 1e-6;
}

void probe() {
  cudaDeviceProp device;
  CUDA_CHECK(cudaGetDeviceProperties(&device, 0));
  int driver = 0, toolkit = 0;
  CUDA_CHECK(cudaDriverGetVersion(&driver));
  CUDA_CHECK(cudaRuntimeGetVersion(&toolkit));
  std::printf("%s, driver for CUDA %d.%d, toolkit %d.%d\n", device.name, driver / 1000, driver % 1000 / 10,
              toolkit / 1000, toolkit % 1000 / 10);
  std::printf("%d SMs, %zu KB of registers and %zu KB of shared memory an SM, %d MB of L2, %.0f GB\n\n",
              device.multiProcessorCount, size_t(device.regsPerMultiprocessor) * 4 / 1024,
              device.sharedMemPerMultiprocessor / 1024, device.l2CacheSize >> 20, double(device.totalGlobalMem) * 1e-9);

  Results results;
  CUDA_CHECK(cudaMalloc(&results.cycles, sizeof(long long)));
  CUDA_CHECK(cudaMalloc(&results.sink, sizeof(int)));
  float* sink = reinterpret_cast<float*>(results.sink);

  chase_shared<<<1, 1>>>(10000, results.cycles, results.sink);
  CUDA_CHECK(cudaGetLastError());
  long long cycles;
  CUDA_CHECK(cudaMemcpy(&cycles, results.cycles, sizeof cycles, cudaMemcpyDeviceToHost));
  const size_t l2 = device.l2CacheSize;
  std::printf("| where the data lies | latency, clock cycles |\n|---|---:|\n");
  std::printf("| shared memory | %.0f |\n", double(cycles) / 10000);
  std::printf("| L1 (16 KB walked) | %.0f |\n", cycles_per_load(chase_global, 16 << 10, results));
  std::printf("| L2 (%zu MB walked, past L1) | %.0f |\n", l2 / 8 >> 20, cycles_per_load(chase_l2, l2 / 8, results));
  std::printf("| device memory (%zu MB walked) | %.0f |\n\n", l2 * 16 >> 20,
              cycles_per_load(chase_l2, l2 * 16, results));

  const int blocks = device.multiProcessorCount * 2, rounds = 20000;
  const double shared_ms = milliseconds([&] { read_shared<<<blocks, 512>>>(rounds, sink); });
  std::printf("| read from | GB/s, all SMs together |\n|---|---:|\n");
  std::printf("| shared memory | %.0f |\n", double(blocks) * 512 * 16 * rounds / shared_ms * 1e-6);
  std::printf("| L2 (%zu MB) | %.0f |\n", l2 / 4 >> 20, read_gb_per_s(l2 / 4, 200, device.multiProcessorCount, sink));
  std::printf("| device memory (4 GB) | %.0f |\n", read_gb_per_s(size_t(4) << 30, 1, device.multiProcessorCount, sink));
  CUDA_CHECK(cudaFree(results.cycles));
  CUDA_CHECK(cudaFree(results.sink));
}

}  // namespace

int main() {
  try {
    probe();
  } catch (const flash::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return error.status;
  }
}
