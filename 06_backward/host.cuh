// The host part that the tensor-core landings share: the workspace, tiles that fit the card, the bytes they ask for.
#pragma once
#include "06_backward/tiles.cuh"
#include "common/kernel/tiles_seen.h"

namespace {

constexpr int kRowPadding = 128;  // workspace rows of a head are a multiple of this, which every kBlockM divides

int padded(int seqlen_q) { return ceil_div(seqlen_q, kRowPadding) * kRowPadding; }
size_t padded_rows(const flash::Problem& problem) {
  return size_t(problem.batch) * problem.heads * padded(problem.seqlen_q);
}
int key_tiles(const flash::Problem& problem, int block_n) {
  return problem.batch * problem.kv_heads * ceil_div(problem.seqlen_k, block_n);
}

Params make_params(const flash::BackwardArgs& args, void* workspace) {
  const size_t rows = padded_rows(args.problem);
  float* const lse2 = static_cast<float*>(workspace);
  return {args, lse2, lse2 + rows, lse2 + 2 * rows, padded(args.problem.seqlen_q)};
}

// Calls use(T()) with the largest tiles that fit so many bytes of shared memory, or the smallest there are.
template <template <int, int, int> class Tiles, int kHeadDim, class Use>
void with_tiles_of(size_t shared_bytes, const Use& use) {
#ifdef TILE_M
  use(Tiles<kHeadDim, TILE_M, TILE_N>());
#else
  using Large = Tiles<kHeadDim, 8192 / kHeadDim, 128>;   // H100, H200
  using Medium = Tiles<kHeadDim, 4096 / kHeadDim, 128>;  // A100
  using Small = Tiles<kHeadDim, 4096 / kHeadDim, 64>;    // all others
  static_assert(Small::kSharedBytes <= 99 * 1024);
  if (shared_bytes >= Large::kSharedBytes) return use(Large());
  if (shared_bytes >= Medium::kSharedBytes) return use(Medium());
  use(Small());
#endif
}
template <template <int, int, int> class Tiles, class Use>
void with_tiles(int head_dim, size_t shared_bytes, const Use& use) {
  if (head_dim == 64) return with_tiles_of<Tiles, 64>(shared_bytes, use);
  with_tiles_of<Tiles, 128>(shared_bytes, use);
}

// prepare_kernel's, and backward_kernel's without dQ.
flash::Traffic dk_and_dv_traffic(const flash::Problem& problem, int block_m, int block_n) {
  const double heads = double(problem.batch) * problem.heads, rows = heads * problem.seqlen_q;
  const double kv_rows = double(problem.batch) * problem.kv_heads * problem.seqlen_k;
  const double row = 2 * problem.head_dim;  // bytes
  double query_rows = 0, steps = 0;         // of all key tiles, over one head
  for (int key = 0; key < problem.seqlen_k; key += block_n) {
    const int queries = flash::queries_visited(problem, key, block_m);
    query_rows += queries;
    steps += ceil_div(queries, block_m);
  }
  const double prepared = 2 * rows * row + 4 * rows;                                   // O, dO; the LSE
  const double walked = heads * (2 * query_rows * row + steps * block_m * 8);          // Q, dO; LSE and D
  const double written = 8.0 * padded_rows(problem) + 2 * kv_rows * row + rows * row;  // LSE and D; dK, dV; dQ
  return {prepared + 2 * kv_rows * row + walked, written};
}

// The accumulator's: zeros, atomic additions, and what round_dq_kernel reads.
flash::Traffic dq_accumulator_traffic(const flash::Problem& problem, int block_m, int block_n, int key_splits) {
  const double heads = double(problem.batch) * problem.heads, float_row = 4 * problem.head_dim;  // bytes
  double added = 0;
  for (int key = 0; key < problem.seqlen_k; key += block_n) {
    added += ceil_div(flash::queries_visited(problem, key, block_m), block_m) * block_m * key_splits;
  }
  return {heads * problem.seqlen_q * float_row, (padded_rows(problem) + heads * added) * float_row};
}

template <class T>
void plan_tiles(flash::Plan* plan, const flash::Problem& problem, T) {
  plan->block_m = T::kBlockM;
  plan->block_n = T::kBlockN;
  plan->shared_bytes = T::kSharedBytes;
  const flash::Traffic dkv = dk_and_dv_traffic(problem, T::kBlockM, T::kBlockN);
  const flash::Traffic dq = dq_accumulator_traffic(problem, T::kBlockM, T::kBlockN, T::kKeySplits);
  plan->traffic = {dkv.read_bytes + dq.read_bytes, dkv.write_bytes + dq.write_bytes};
}

inline std::string deterministic_refusal(const std::string& name) {
  return name + " adds to dQ by atomics, in an order that varies: --deterministic is for 06_backward/4_deterministic";
}

}  // namespace
