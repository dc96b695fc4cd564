"""Implementations timed by turns: in every round each makes one burst of calls, all bursts about equally long. A ratio of
two is the median of the rounds' ratios, so that a clock that sinks, or a card that warms, shows in both. Each round has
an order of its own: at its power limit a card is faster for whoever comes after a slow one, by up to 3 per cent."""
import random
import statistics


def by_turns(implementations, rounds, burst_ms, burst):
    """{name: call} -> {name: [ms of a call, a round each]}. burst(call, n) makes n calls and returns the milliseconds they
    took together."""
    calls = {}
    for name, call in implementations.items():
        burst(call, 2)  # the first is loading, choosing, compiling
        once = burst(call, 3) / 3
        calls[name] = max(1, min(1000, round(burst_ms / max(once, 1e-3))))
    for name, call in implementations.items():
        burst(call, calls[name])  # a first burst reads a few per cent high: it isn't kept
    times = {name: [] for name in implementations}
    order, shuffled = list(implementations.items()), random.Random(0)
    for _ in range(rounds):
        shuffled.shuffle(order)
        for name, call in order:
            times[name].append(burst(call, calls[name]) / calls[name])
    return times


def spread(values):
    """-> (median, least, greatest)"""
    return statistics.median(values), min(values), max(values)
