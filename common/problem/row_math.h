// Sums over rows for the reference and the checker. Inner loops of eight: compilers vectorise them.
#pragma once

namespace flash {

// In double precision, in whatever order is fast.
template <typename A, typename B>
double dot(const A* a, const B* b, int n) {
  double sums[8] = {};
  int c = 0;
  for (; c + 8 <= n; c += 8)
    for (int lane = 0; lane < 8; ++lane) sums[lane] += double(a[c + lane]) * double(b[c + lane]);
  for (; c < n; ++c) sums[0] += double(a[c]) * double(b[c]);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

// sum += factor * row, in the precision of the sum
template <typename Sum, typename Row>
void add_scaled(Sum* __restrict sum, Sum factor, const Row* __restrict row, int n) {
  int c = 0;
  for (; c + 8 <= n; c += 8)
    for (int lane = 0; lane < 8; ++lane) sum[c + lane] += factor * Sum(row[c + lane]);
  for (; c < n; ++c) sum[c] += factor * Sum(row[c]);
}

// sum += factor * row * row, an element at a time
template <typename Row>
void add_scaled_squares(double* __restrict sum, double factor, const Row* __restrict row, int n) {
  int c = 0;
  for (; c + 8 <= n; c += 8)
    for (int lane = 0; lane < 8; ++lane) sum[c + lane] += factor * (double(row[c + lane]) * double(row[c + lane]));
  for (; c < n; ++c) sum[c] += factor * (double(row[c]) * double(row[c]));
}

}  // namespace flash
