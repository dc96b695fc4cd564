// Step 05.3, pipeline: the loops of 05.2, arranged so that the tensor cores rarely wait.
//
// Idea: cp.async copies the next K and V tile into a second pair of buffers while this one is multiplied, so a tile costs
// one barrier; a warp owns 32 query rows, two m16 tiles that share every K and V fragment it loads; O is rescaled only when
// a row's maximum has grown by more than 2^8, which one warp vote finds out; causal blocks start with the longest.
//
// Traffic: as 04: Q, O and LSE once, K and V once a query tile. The copies read exactly the rows that exist.
// Limits: fp16 and bf16, head_dim 64 and 128, compute capability 8.0 on (cp.async, m16n8k16); shared memory 64 and 96 KB,
// below the 99 KB of a consumer card. No spills: two blocks of 128 threads fill an SM's registers with 255 a thread.
#include <algorithm>
#include <cmath>

#include "common/attention.h"
#include "common/cuda.cuh"
#include "common/ptx.cuh"

namespace {

#ifdef TILE_M  // make step 5.3 TILE=64x32
template <int kHeadDim>
constexpr int kBlockMOf = TILE_M;
template <int kHeadDim>
constexpr int kBlockNOf = TILE_N;
#else
template <int kHeadDim>
constexpr int kBlockMOf = 128;  // query rows a block: 4 warps of 32
template <int kHeadDim>
constexpr int kBlockNOf = kHeadDim == 64 ? 96 : 64;  // keys a tile: as many as the registers for S allow
#endif

constexpr int kRowsPerWarp = 32;
template <int kHeadDim>
constexpr int kThreadsOf = kBlockMOf<kHeadDim> / kRowsPerWarp* kWarpSize;
constexpr int kBuffers = 2;            // of K and of V each
constexpr float kLog2e = 1.44269504f;  // e^x = 2^(x log2 e): the hardware has exp2
constexpr float kLn2 = 0.69314718f;
constexpr float kRescaleAbove = 8.0f;  // P may grow to 2^8 before the maximum it is relative to is moved
constexpr float kLowest = -3.0e38f;    // where maxima start: finite, so that no -inf - -inf can arise
constexpr float kMinusInfinity = -INFINITY;

// Where 16-byte chunk `chunk` of row `row` lies in a shared tile, in elements: the low three bits of the chunk's number
// are xored with the row's, so that the 8 rows of an 8 x 8 matrix fall into 8 different columns of the 128-byte line.
// For a row that is fixed, chunk 2k + h of it lies at swizzle(row, h) ^ 16k: one xor a step in the loops below.
template <int kHeadDim>
__device__ __forceinline__ int swizzle(int row, int chunk) {
  return row * kHeadDim + (chunk ^ (row % 8)) * 8;
}

// Copies rows first_row .. of a [rows, kHeadDim] matrix to a swizzled tile; rows from `limit` on are filled with zeros.
template <int kRows, int kHeadDim, int kThreads, class Element>
__device__ __forceinline__ void copy_ragged_tile(Element* tile, const Element* matrix, int first_row, int limit) {
  constexpr int kChunks = kHeadDim / 8, kRowsPerPass = kThreads / kChunks;
  const int row = threadIdx.x / kChunks, chunk = threadIdx.x % kChunks;
#pragma unroll
  for (int pass = 0; pass < kRows; pass += kRowsPerPass) {
    const int r = pass + row;
    const bool exists = first_row + r < limit;
    const Element* from = matrix + (exists ? size_t(first_row + r) * kHeadDim + chunk * 8 : 0);
    cp_async<16>(tile + swizzle<kHeadDim>(r, chunk), from, exists);
  }
}

// A block computes kBlockM rows of O of one head. Tiles in shared memory, swizzled: Q, then kBuffers of K, then of V.
template <class Element, int kHeadDim, bool kCausal>
__global__ void __launch_bounds__(kThreadsOf<kHeadDim>, 256 / kThreadsOf<kHeadDim>)
    pipeline_kernel(const Element* __restrict__ q, const Element* __restrict__ k, const Element* __restrict__ v,
                    Element* __restrict__ o, float* __restrict__ softmax_lse, int heads, int kv_heads, int seqlen_q,
                    int seqlen_k, float softmax_scale_log2) {
  constexpr int kBlockM = kBlockMOf<kHeadDim>, kBlockN = kBlockNOf<kHeadDim>;
  constexpr int kThreads = kThreadsOf<kHeadDim>;
  constexpr int kMmaM = kRowsPerWarp / 16;  // m16 tiles of rows a warp
  constexpr int kMmaN = kBlockN / 8;        // n8 tiles of keys in S; two of them are one k16 step of P V
  constexpr int kMmaK = kHeadDim / 16;      // k16 steps of Q K^T
  constexpr int kMmaD = kHeadDim / 8;       // n8 tiles of columns in O
  constexpr int kTile = kBlockN * kHeadDim;
  constexpr int kChunks = kHeadDim / 8, kRowsPerPass = kThreads / kChunks;
  // 64 x 2 bytes of a row of Q fit into registers beside S and O (32 registers a thread); 128 don't and are read again.
  constexpr bool kKeepQ = kHeadDim == 64;
  static_assert(kBlockM % kRowsPerWarp == 0, "TILE: a warp owns 32 query rows, so kBlockM is a multiple of 32");
  static_assert(kBlockN % 16 == 0, "TILE: P V takes 16 keys a step, so kBlockN is a multiple of 16");
  static_assert(
      kBlockN % kRowsPerPass == 0,
      "TILE: the block's threads copy 2 * kBlockM / head_dim * 4 rows at a time, so kBlockN is a multiple of that");

  Element* const q_tile = dynamic_shared<Element>();
  Element* const k_tiles = q_tile + kBlockM * kHeadDim;
  Element* const v_tiles = k_tiles + kBuffers * kTile;
  const int lane = threadIdx.x % kWarpSize, warp = threadIdx.x / kWarpSize;

  // Full: the tiles of a head run side by side and share its K and V in L2. Causal: a tile's work grows with its rows,
  // so all heads' longest tiles start first and the short ones fill the gaps at the end.
  const int tiles_m = ceil_div(seqlen_q, kBlockM), batch_heads = gridDim.x / tiles_m;
  const int tile_m = kCausal ? tiles_m - 1 - blockIdx.x / batch_heads : blockIdx.x % tiles_m;
  const int batch_head = kCausal ? blockIdx.x % batch_heads : blockIdx.x / tiles_m;
  const int first_row = tile_m * kBlockM, warp_row = first_row + warp * kRowsPerWarp;
  const int diagonal = seqlen_k - seqlen_q;  // causal: row i sees the keys j <= i + diagonal
  const size_t kv_head = size_t(batch_head / heads) * kv_heads + batch_head % heads / (heads / kv_heads);
  q += size_t(batch_head) * seqlen_q * kHeadDim;
  o += size_t(batch_head) * seqlen_q * kHeadDim;
  softmax_lse += size_t(batch_head) * seqlen_q;
  k += kv_head * seqlen_k * kHeadDim;
  v += kv_head * seqlen_k * kHeadDim;
  const int keys = kCausal ? min(seqlen_k, max(0, min(first_row + kBlockM, seqlen_q) + diagonal)) : seqlen_k;
  const int tiles_n = ceil_div(keys, kBlockN);

  // Row i = 0, 1 of m tile m: warp_row + 16 m + 8 i + lane / 4. Maxima are in units of the exponent, base 2, and may lag
  // behind the true ones by kRescaleAbove; sums are of this lane's own columns until the end.
  float o_acc[kMmaM][kMmaD][4] = {};
  float row_max[kMmaM][2], row_sum[kMmaM][2];
  for (int m = 0; m < kMmaM; ++m) {
    for (int i = 0; i < 2; ++i) row_max[m][i] = kLowest, row_sum[m][i] = 0.0f;
  }

  // What this lane addresses for ldmatrix: its row of the first matrix of a tile (ptx.cuh), in elements from q_tile.
  const int q_lane = swizzle<kHeadDim>(warp * kRowsPerWarp + lane % 16, lane / 16);
  const int k_lane = int(k_tiles - q_tile) + swizzle<kHeadDim>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
  const int v_lane = int(v_tiles - q_tile) + swizzle<kHeadDim>(lane % 16, lane / 16);
  // What this thread copies: one chunk of every kRowsPerPass-th row of a tile.
  const int copy_row = threadIdx.x / kChunks, copy_chunk = threadIdx.x % kChunks;

  // Key tiles go from the last to the first, so that a ragged one comes first, is copied here, and all others are whole.
  uint32_t q_kept[kMmaK][kMmaM][4];
  const int last = tiles_n - 1;
  if (tiles_n > 0) {
    copy_ragged_tile<kBlockM, kHeadDim, kThreads>(q_tile, q, first_row, seqlen_q);
    copy_ragged_tile<kBlockN, kHeadDim, kThreads>(k_tiles + last % 2 * kTile, k, last * kBlockN, seqlen_k);
    copy_ragged_tile<kBlockN, kHeadDim, kThreads>(v_tiles + last % 2 * kTile, v, last * kBlockN, seqlen_k);
    cp_async_commit();
    if (kKeepQ) {
      cp_async_wait<0>();
      __syncthreads();  // for the reads of Q just below: other threads copied it
#pragma unroll
      for (int kk = 0; kk < kMmaK; ++kk) {
        for (int m = 0; m < kMmaM; ++m) {
          ldmatrix_x4(q_kept[kk][m], q_tile + (q_lane ^ kk * 16) + m * 16 * kHeadDim);
        }
      }
    }
  }
  const Element* k_from = k + size_t(max(last, 0)) * kTile + copy_row * kHeadDim + copy_chunk * 8;
  const Element* v_from = v + size_t(max(last, 0)) * kTile + copy_row * kHeadDim + copy_chunk * 8;

#pragma unroll 1
  for (int tile = last; tile >= 0; --tile) {
    cp_async_wait<0>();
    // Two things at once. Tile `tile` is complete: the copies of all threads have landed. And no warp still reads tile
    // + 1, whose buffers the copies below overwrite.
    __syncthreads();
    const int buffer = tile % 2 * kTile, other_buffer = kTile - buffer;
    k_from -= kTile;
    v_from -= kTile;
    auto copy_next_tile = [&] {
      if (tile > 0) {
#pragma unroll
        for (int r = 0; r < kBlockN; r += kRowsPerPass) {
          const int to = other_buffer + swizzle<kHeadDim>(r + copy_row, copy_chunk);
          cp_async<16>(k_tiles + to, k_from + r * kHeadDim);
          cp_async<16>(v_tiles + to, v_from + r * kHeadDim);
        }
      }
      cp_async_commit();
    };
    const int first_key = tile * kBlockN;
    if (kCausal && first_key > warp_row + kRowsPerWarp - 1 + diagonal) {  // wholly above this warp's diagonal
      copy_next_tile();
      continue;
    }

    // S = Q K^T
    float s_acc[kMmaM][kMmaN][4] = {};
#pragma unroll
    for (int kk = 0; kk < kMmaK; ++kk) {
      uint32_t q_frag[kMmaM][4];
#pragma unroll
      for (int m = 0; m < kMmaM; ++m) {
        if (kKeepQ) {
          for (int i = 0; i < 4; ++i) q_frag[m][i] = q_kept[kk][m][i];
        } else {
          ldmatrix_x4(q_frag[m], q_tile + (q_lane ^ kk * 16) + m * 16 * kHeadDim);
        }
      }
#pragma unroll
      for (int n = 0; n < kMmaN; n += 2) {
        uint32_t k_frag[2][2];  // of n tiles n and n + 1
        ldmatrix_x4(k_frag, q_tile + ((buffer + k_lane) ^ kk * 16) + n * 8 * kHeadDim);
#pragma unroll
        for (int m = 0; m < kMmaM; ++m) {
          mma_m16n8k16<Element>(s_acc[m][n], q_frag[m], k_frag[0]);
          mma_m16n8k16<Element>(s_acc[m][n + 1], q_frag[m], k_frag[1]);
        }
      }
      if (kk == 0) copy_next_tile();  // not before: the tensor cores have work by now
    }

    // Masks, where the tile needs them: the last keys' tile, and those the diagonal crosses in this warp's rows.
    if (first_key + kBlockN > seqlen_k || (kCausal && first_key + kBlockN - 1 > warp_row + diagonal)) {
#pragma unroll
      for (int m = 0; m < kMmaM; ++m) {
#pragma unroll
        for (int n = 0; n < kMmaN; ++n) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const int row = warp_row + m * 16 + e / 2 * 8 + lane / 4, key = first_key + n * 8 + lane % 4 * 2 + e % 2;
            if (key >= seqlen_k || (kCausal && key > row + diagonal)) s_acc[m][n][e] = kMinusInfinity;
          }
        }
      }
    }

    // Has any row of this warp outgrown its maximum? Then move all its maxima to the true ones and rescale.
    float tile_max[kMmaM][2];
    bool outgrown = false;
#pragma unroll
    for (int m = 0; m < kMmaM; ++m) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        tile_max[m][i] = kMinusInfinity;
#pragma unroll
        for (int n = 0; n < kMmaN; ++n) {
          tile_max[m][i] = fmaxf(tile_max[m][i], fmaxf(s_acc[m][n][2 * i], s_acc[m][n][2 * i + 1]));
        }
        outgrown |= tile_max[m][i] * softmax_scale_log2 - kRescaleAbove > row_max[m][i];
      }
    }
    if (__any_sync(0xffffffff, outgrown)) {
#pragma unroll
      for (int m = 0; m < kMmaM; ++m) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float new_max = tile_max[m][i];  // over the four lanes that share the row:
          new_max = fmaxf(new_max, __shfl_xor_sync(0xffffffff, new_max, 1));
          new_max = fmaxf(new_max, __shfl_xor_sync(0xffffffff, new_max, 2));
          new_max = fmaxf(new_max * softmax_scale_log2, row_max[m][i]);
          const float rescale = ex2(row_max[m][i] - new_max);
          row_max[m][i] = new_max;
          row_sum[m][i] *= rescale;
#pragma unroll
          for (int n = 0; n < kMmaD; ++n) o_acc[m][n][2 * i] *= rescale, o_acc[m][n][2 * i + 1] *= rescale;
        }
      }
    }

    // P = 2^(S - max), 16 keys at a time, and O += P V with them: the exps of the next 16 run beside these mmas.
#pragma unroll
    for (int kk = 0; kk < kMmaN / 2; ++kk) {
      uint32_t p_frag[kMmaM][4];
#pragma unroll
      for (int m = 0; m < kMmaM; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {  // S's n tile 2 kk + half is P's columns 8 half .. 8 half + 7
          float p[4];
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            p[e] = ex2(s_acc[m][2 * kk + half][e] * softmax_scale_log2 - row_max[m][e / 2]);
          }
          row_sum[m][0] += p[0] + p[1];
          row_sum[m][1] += p[2] + p[3];
          p_frag[m][2 * half] = pack<Element>(p[0], p[1]);
          p_frag[m][2 * half + 1] = pack<Element>(p[2], p[3]);
        }
      }
#pragma unroll
      for (int n = 0; n < kMmaD; n += 2) {
        uint32_t v_frag[2][2];
        ldmatrix_x4_trans(v_frag, q_tile + ((buffer + v_lane) ^ n * 8) + kk * 16 * kHeadDim);
#pragma unroll
        for (int m = 0; m < kMmaM; ++m) {
          mma_m16n8k16<Element>(o_acc[m][n], p_frag[m], v_frag[0]);
          mma_m16n8k16<Element>(o_acc[m][n + 1], p_frag[m], v_frag[1]);
        }
      }
    }
  }

  // O / l goes through the warp's own rows of q_tile, which nobody else reads, so that rows leave in 16-byte pieces.
  __syncwarp();  // for the lanes that may still read Q there
#pragma unroll
  for (int m = 0; m < kMmaM; ++m) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float sum = row_sum[m][i];
      sum += __shfl_xor_sync(0xffffffff, sum, 1);
      sum += __shfl_xor_sync(0xffffffff, sum, 2);
      const float inverse = sum > 0.0f ? 1.0f / sum : 0.0f;  // a row that sees no key: O = 0, LSE = -inf
      const int row = m * 16 + i * 8 + lane / 4;
      if (lane % 4 == 0 && warp_row + row < seqlen_q) {
        softmax_lse[warp_row + row] = sum > 0.0f ? (row_max[m][i] + log2f(sum)) * kLn2 : kMinusInfinity;
      }
#pragma unroll
      for (int n = 0; n < kMmaD; ++n) {
        Element* to = q_tile + swizzle<kHeadDim>(warp * kRowsPerWarp + row, n) + lane % 4 * 2;
        *reinterpret_cast<uint32_t*>(to) =
            pack<Element>(o_acc[m][n][2 * i] * inverse, o_acc[m][n][2 * i + 1] * inverse);
      }
    }
  }
  __syncwarp();  // for the reads below: a row comes from four lanes
#pragma unroll
  for (int r = lane / kChunks; r < kRowsPerWarp; r += kWarpSize / kChunks) {
    const int chunk = lane % kChunks;
    if (warp_row + r < seqlen_q) {
      const uint4 row_part =
          *reinterpret_cast<const uint4*>(q_tile + swizzle<kHeadDim>(warp * kRowsPerWarp + r, chunk));
      *reinterpret_cast<uint4*>(o + size_t(warp_row + r) * kHeadDim + chunk * 8) = row_part;
    }
  }
}

template <int kHeadDim>
constexpr size_t kSharedBytes = (kBlockMOf<kHeadDim> + 2 * kBuffers * kBlockNOf<kHeadDim>)*kHeadDim * 2;

template <class Element, int kHeadDim, bool kCausal>
void start(const flash::ForwardArgs& args, flash::Stream stream) {
  const flash::Problem& p = args.problem;
  constexpr int kBlockM = kBlockMOf<kHeadDim>;
  launch(pipeline_kernel<Element, kHeadDim, kCausal>, ceil_div(p.seqlen_q, kBlockM) * p.batch * p.heads,
         kThreadsOf<kHeadDim>, kSharedBytes<kHeadDim>, stream, static_cast<const Element*>(args.q),
         static_cast<const Element*>(args.k), static_cast<const Element*>(args.v), static_cast<Element*>(args.o),
         args.softmax_lse, p.heads, p.kv_heads, p.seqlen_q, p.seqlen_k, p.softmax_scale * kLog2e);
}

template <class Element>
void start(const flash::ForwardArgs& args, flash::Stream stream) {
  if (args.problem.head_dim == 64) {
    args.problem.causal ? start<Element, 64, true>(args, stream) : start<Element, 64, false>(args, stream);
  } else {
    args.problem.causal ? start<Element, 128, true>(args, stream) : start<Element, 128, false>(args, stream);
  }
}

void forward(const flash::ForwardArgs& args, void*, flash::Stream stream) {
  args.problem.dtype == flash::Dtype::bf16 ? start<__nv_bfloat16>(args, stream) : start<__half>(args, stream);
}

std::string supports(const flash::Problem& p, const flash::Device& device) {
  const size_t bytes = p.head_dim == 64 ? kSharedBytes<64> : kSharedBytes<128>;
  if (bytes <= device.shared_bytes_per_block) return "";
  return "05_tensor_core/3_pipeline keeps " + std::to_string(bytes / 1024) + " KB of tiles in shared memory, and " +
         device.name + " gives a block " + std::to_string(device.shared_bytes_per_block / 1024) + " KB";
}

flash::Traffic traffic(const flash::Problem& p) {
  const int block_m = p.head_dim == 64 ? kBlockMOf<64> : kBlockMOf<128>;
  const int block_n = p.head_dim == 64 ? kBlockNOf<64> : kBlockNOf<128>;
  double rows = 0;  // of Q, K and V that the blocks of one head read
  for (int first_row = 0; first_row < p.seqlen_q; first_row += block_m) {
    const int end_row = std::min(first_row + block_m, p.seqlen_q);
    const int keys = p.causal ? std::min(p.seqlen_k, std::max(0, end_row + p.seqlen_k - p.seqlen_q)) : p.seqlen_k;
    if (keys > 0) rows += end_row - first_row + 2.0 * std::min(ceil_div(keys, block_n) * block_n, p.seqlen_k);
  }
  const double row_bytes = 2.0 * p.head_dim;
  return {rows * p.batch * p.heads * row_bytes, q_rows(p) * (row_bytes + 4)};
}

flash::StepInfo step_info() {
  flash::StepInfo info;
  info.number = "05.3";
  info.name = "05_tensor_core/3_pipeline";
  info.idea = "copies that overlap with the maths, 32 rows a warp, a maximum that may lag behind";
  info.dtypes = {flash::Dtype::bf16, flash::Dtype::fp16};
  info.head_dims = {64, 128};
  info.min_compute_capability = 80;
  info.uses_tensor_cores = true;
  info.supports = supports;
  info.traffic = traffic;
  info.forward = forward;
  return info;
}

const flash::RegisterStep registered(step_info());

}  // namespace
