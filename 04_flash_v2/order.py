#!/usr/bin/env python3
"""How much sooner does a causal 04 end when the longest query tiles of all heads start first?

A GPU gives the next block, in the order of their numbers, to the first place that is free. A block takes as long as the
key tiles it walks over, and one more for its beginning and end."""
import heapq

HEADS, PLACES = 32, 528  # batch 2 x heads 16; 132 SMs x 4 blocks
BLOCK_M, BLOCK_N = 64, 32  # at head_dim 64


def time(tiles):
    free = [0] * PLACES  # when each place is free again
    for tile in tiles:
        heapq.heappush(free, heapq.heappop(free) + 1 + (tile + 1) * BLOCK_M // BLOCK_N)
    return max(free)


for seqlen in (1024, 2048, 4096, 8192):
    last_first = range(seqlen // BLOCK_M - 1, -1, -1)
    head_by_head = time([tile for head in range(HEADS) for tile in last_first])
    longest_first = time([tile for tile in last_first for head in range(HEADS)])
    print(f"seqlen {seqlen}: {head_by_head} and {longest_first} key tiles, {head_by_head / longest_first:.2f} times as fast")
