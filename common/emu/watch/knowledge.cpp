#include "common/emu/watch/knowledge.h"

#include <algorithm>

namespace flash::emu {
namespace {

void join_times(std::vector<uint32_t>& mine, const std::vector<uint32_t>& others) {
  if (mine.size() < others.size()) mine.resize(others.size());
  for (size_t i = 0; i < others.size(); ++i) mine[i] = std::max(mine[i], others[i]);
}

// All that `known` says, and the floor `barrier`, is fenced now.
void fence(std::vector<uint32_t>& fenced, const std::vector<uint32_t>& known, unsigned threads, unsigned me,
           uint32_t now, uint32_t barrier) {
  fenced.resize(threads);
  for (unsigned t = 0; t < threads; ++t) fenced[t] = std::max({fenced[t], known[t], barrier});
  fenced[me] = now;
}

}  // namespace

void Row::join(const Row& other) {
  join_times(known, other.known);
  join_times(to_async, other.to_async);
  join_times(to_device, other.to_device);
}

void Knowledge::begin_block(unsigned threads) {
  active_ = news_ = false;
  threads_ = threads;
  columns_ = 0;
}

void Knowledge::set_column(Row& row, unsigned index, uint32_t time) {
  if (row.known.size() <= index) row.known.resize(index + 1);
  row.known[index] = time;
}

void Knowledge::arrive(unsigned me, SyncPoint& point, uint32_t now) {
  point.gathering.join(rows_[me]);
  point.gathering.known[me] = now;
}

void Knowledge::pass(unsigned me, const SyncPoint& point) { join(me, point.published); }

void Knowledge::learn(unsigned me, unsigned column, uint32_t time) {
  set_column(rows_[me], threads_ + column, time);
  news_ = true;
}

void Knowledge::fence_async(unsigned me, uint32_t now, uint32_t barrier) {
  fence(rows_[me].to_async, rows_[me].known, threads_, me, now, barrier);
  news_ = true;
}

void Knowledge::fence_device(unsigned me, uint32_t now, uint32_t barrier) {
  fence(rows_[me].to_device, rows_[me].known, threads_, me, now, barrier);
  news_ = true;
}

void Knowledge::warp_barrier(unsigned warp, uint32_t mask, uint32_t now) {
  if (!active_) return;
  Row all;
  for (unsigned l = 0; l < kLanes; ++l) {
    if (mask >> l & 1) all.join(rows_[warp * kLanes + l]);
  }
  for (unsigned l = 0; l < kLanes; ++l) {
    if (mask >> l & 1) all.known[warp * kLanes + l] = now;
  }
  for (unsigned l = 0; l < kLanes; ++l) {
    if (mask >> l & 1) rows_[warp * kLanes + l] = all;
  }
  news_ = true;
}

void Knowledge::block_barrier() {
  if (!active_ || !news_) return;
  news_ = false;
  Row all;
  for (const Row& row : rows_) {
    if (row.known.size() > threads_) {
      if (all.known.size() < row.known.size()) all.known.resize(row.known.size());
      for (size_t i = threads_; i < row.known.size(); ++i) all.known[i] = std::max(all.known[i], row.known[i]);
    }
    join_times(all.to_async, row.to_async);
    join_times(all.to_device, row.to_device);
  }
  for (Row& row : rows_) row.join(all);
}

}  // namespace flash::emu
