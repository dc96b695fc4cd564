// Algorithm 1 of FlashAttention (arXiv 2205.14135) in ordinary C++, in the paper's names and with its line numbers. What
// the paper does for a tile at once, this does for one row of the tile after the other: no row needs another.
#include <algorithm>
#include <cmath>
#include <vector>

#include "common/problem/problem.h"

namespace flash::plain {

// Q, K, V, O and softmax_lse as in common/problem/problem.h, fp32. M: the floats that fit the fast memory.
void flash_v1(const Problem& problem, const float* q, const float* k, const float* v, float* o, float* softmax_lse,
              int M) {
  const int d = problem.head_dim, N_q = problem.seqlen_q, N_k = problem.seqlen_k;
  const int B_c = (M + 4 * d - 1) / (4 * d), B_r = std::min(B_c, d);  // line 1
  for (int head = 0; head < problem.batch * problem.heads; ++head) {
    const int kv_head = head / (problem.heads / problem.kv_heads);  // of all batch * kv_heads
    const float* Q = q + size_t(head) * N_q * d;
    const float* K = k + size_t(kv_head) * N_k * d;
    const float* V = v + size_t(kv_head) * N_k * d;
    float* O = o + size_t(head) * N_q * d;
    std::fill(O, O + size_t(N_q) * d, 0.0f);  // line 2
    std::vector<float> l(N_q, 0.0f), m(N_q, -INFINITY), S(B_c);
    for (int j0 = 0; j0 < N_k; j0 += B_c) {  // lines 5, 6: the tile K_j, V_j
      const int keys = std::min(B_c, N_k - j0);
      for (int i0 = 0; i0 < N_q; i0 += B_r) {  // lines 7, 8: the tile Q_i with its O_i, l_i, m_i
        for (int i = i0; i < std::min(i0 + B_r, N_q); ++i) {
          float m_tile = -INFINITY, l_tile = 0;
          for (int j = 0; j < keys; ++j) {  // line 9: S_ij = Q_i K_j^T
            float dot = 0;
            for (int x = 0; x < d; ++x) dot += Q[size_t(i) * d + x] * K[size_t(j0 + j) * d + x];
            const bool seen = !problem.causal || j0 + j <= i + N_k - N_q;
            S[j] = seen ? dot * problem.softmax_scale : -INFINITY;
            m_tile = std::max(m_tile, S[j]);
          }
          if (m_tile == -INFINITY) continue;  // causal: no key of this tile is seen
          for (int j = 0; j < keys; ++j) {
            S[j] = std::exp(S[j] - m_tile);  // line 10: S is P~ now
            l_tile += S[j];
          }
          const float m_new = std::max(m[i], m_tile);  // line 11
          const float old_share = std::exp(m[i] - m_new) * l[i], tile_factor = std::exp(m_tile - m_new);
          const float l_new = old_share + tile_factor * l_tile;
          for (int x = 0; x < d; ++x) {  // line 12: O_i, divided by its l at all times
            float pv = 0;
            for (int j = 0; j < keys; ++j) pv += S[j] * V[size_t(j0 + j) * d + x];
            O[size_t(i) * d + x] = (old_share * O[size_t(i) * d + x] + tile_factor * pv) / l_new;
          }
          l[i] = l_new;  // line 13
          m[i] = m_new;
        }
      }
    }
    for (int i = 0; i < N_q; ++i) softmax_lse[size_t(head) * N_q + i] = m[i] + std::log(l[i]);
  }
}

}  // namespace flash::plain
