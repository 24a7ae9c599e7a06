"""Latencies as HDR histograms: each value to two digits, from a microsecond to minutes, and they add up."""

from __future__ import annotations

from collections.abc import Iterable

from hdrh.histogram import HdrHistogram

__all__ = ["add_up", "distribution", "histogram_of", "percentile", "share_above"]

LONGEST = 10 * 60 * 10**9  # nanoseconds; what takes longer counts as this
DIGITS = 2


def histogram_of(nanoseconds: Iterable[int]) -> str:
    """A histogram in the interchange format of HdrHistogram, which its other tools read."""
    histogram = HdrHistogram(1, LONGEST, DIGITS)
    for value in nanoseconds:
        histogram.record_value(min(max(value, 1), LONGEST))
    return str(histogram.encode().decode())


def add_up(encoded: Iterable[str]) -> HdrHistogram:
    """One histogram of all that is in several."""
    total = HdrHistogram(1, LONGEST, DIGITS)
    for one in encoded:
        total.decode_and_add(one)
    return total


def percentile(histogram: HdrHistogram, percent: float) -> float:
    """In nanoseconds; 100 is the longest."""
    return float(histogram.get_value_at_percentile(percent))


def share_above(histogram: HdrHistogram, nanoseconds: float) -> float:
    """Which part of the values is greater."""
    above = sum(
        item.count_added_in_this_iter_step
        for item in histogram.get_recorded_iterator()
        if item.value_iterated_to > nanoseconds
    )
    return float(above / histogram.total_count) if histogram.total_count else 0.0


def distribution(histogram: HdrHistogram) -> tuple[list[float], list[float]]:
    """Shares of the values that are slower than each, 1 to 0, and those values."""
    slower, values = [], []
    for item in histogram.get_recorded_iterator():
        slower.append(1 - item.total_count_to_this_value / histogram.total_count)
        values.append(float(item.value_iterated_to))
    return slower, values
