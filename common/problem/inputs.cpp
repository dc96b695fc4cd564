#include "common/problem/inputs.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "common/base/parallel.h"
#include "common/problem/dtype.h"

namespace flash {
namespace {

// splitmix64 (Steele, Lea, Flood 2014): a counter, well mixed. One stream a tensor.
class Random {
 public:
  Random(uint64_t seed, uint64_t stream) : state_(mix(seed) ^ mix(~stream)) {}

  void skip(uint64_t numbers) { state_ += numbers * 0x9e3779b97f4a7c15ull; }

  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15ull;
    return mix(state_);
  }

  // The sum of twelve uniform 16-bit numbers is normal enough (mean 12 * 65535 / 2, standard deviation 65536, never
  // past 6 of them), and integer arithmetic gives it to the bit on every machine. Box-Muller needs a logarithm and a
  // cosine, which differ in the last bits from one C library to the next. Multiples of 2^-16: exact in fp32.
  float normal() {
    uint32_t sum = 0;
    for (int draw = 0; draw < 3; ++draw) {
      const uint64_t bits = next();
      const uint64_t pairs = (bits & 0x0000ffff0000ffffull) + ((bits >> 16) & 0x0000ffff0000ffffull);
      sum += uint32_t(pairs) + uint32_t(pairs >> 32);
    }
    return float(int32_t(sum) - 6 * 65535) * (1.0f / 65536);
  }

  // Multiples of 2^-23 in [-1, 1).
  float uniform() { return float(int64_t(next() >> 40) - (int64_t(1) << 23)) * (1.0f / (1 << 23)); }

 private:
  static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }

  uint64_t state_;
};

enum class Tensor { q, k, v, d_o };

float draw(Random& random, Dist dist, Tensor tensor) {
  const bool makes_scores = tensor == Tensor::q || tensor == Tensor::k;
  switch (dist) {
    case Dist::uniform: return random.uniform();
    case Dist::outliers: {
      const float value = random.normal();
      return random.next() % 1000 == 0 ? 20 * value : value;
    }
    case Dist::large: return makes_scores ? 8 * random.normal() : random.normal();
    case Dist::negative: {
      const float value = random.normal();
      if (!makes_scores) return value;
      return tensor == Tensor::q ? 4 + std::fabs(value) : -4 - std::fabs(value);
    }
    case Dist::normal: break;
  }
  return random.normal();
}

// How many times draw() calls next().
uint64_t numbers_drawn(Dist dist) { return dist == Dist::uniform ? 1 : dist == Dist::outliers ? 4 : 3; }

// In pieces, each of which takes up the stream where the one before leaves it.
void fill(std::vector<float>* values, Dtype dtype, Dist dist, uint64_t seed, Tensor tensor) {
  constexpr size_t kPiece = 1 << 16;
  parallel_for((values->size() + kPiece - 1) / kPiece, [&](size_t piece) {
    const size_t begin = piece * kPiece, end = std::min(begin + kPiece, values->size());
    Random random(seed, uint64_t(tensor));
    random.skip(begin * numbers_drawn(dist));
    for (size_t i = begin; i < end; ++i) (*values)[i] = round_to(dtype, draw(random, dist, tensor));
  });
}

struct Name {
  Dist dist;
  const char* name;
};
const Name kNames[] = {{Dist::normal, "normal"},
                       {Dist::uniform, "uniform"},
                       {Dist::outliers, "outliers"},
                       {Dist::large, "large"},
                       {Dist::negative, "negative"}};

}  // namespace

bool parse_dist(const std::string& name, Dist* dist) {
  for (const Name& known : kNames) {
    if (name == known.name) {
      *dist = known.dist;
      return true;
    }
  }
  return false;
}

const char* dist_name(Dist dist) {
  for (const Name& known : kNames)
    if (dist == known.dist) return known.name;
  return "?";
}

Inputs make_inputs(const Problem& p, Direction direction, Dist dist, uint64_t seed) {
  Inputs inputs;
  inputs.q.resize(q_elements(p));
  inputs.k.resize(kv_elements(p));
  inputs.v.resize(kv_elements(p));
  if (direction == Direction::backward) inputs.d_o.resize(q_elements(p));
  fill(&inputs.q, p.dtype, dist, seed, Tensor::q);
  fill(&inputs.k, p.dtype, dist, seed, Tensor::k);
  fill(&inputs.v, p.dtype, dist, seed, Tensor::v);
  fill(&inputs.d_o, p.dtype, dist, seed, Tensor::d_o);
  return inputs;
}

}  // namespace flash
