"""The load on Read States: who is drawn, when requests are due, how latencies add up."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram

from read_states.load.generator import CONNECTIONS, to_calls
from read_states.load.histograms import add_up, distribution, histogram_of, percentile, share_above
from read_states.load.population import CHANNELS, GUILD, SKEW, Population, draw_ranks
from read_states.load.schedule import FAN_OUTS, MIX, Kind, Request, make_schedule


@pytest.fixture(scope="module")
def population() -> Population:
    return Population(1000)


@pytest.fixture(scope="module")
def requests(population: Population) -> list[Request]:
    return make_schedule(population, rate=1000, seconds=10)


def test_users_and_channels_are_distinct_and_fit_63_bits(population: Population) -> None:
    records = {(user, channel) for user, channels in population.everybody() for channel in channels}
    assert len(records) == population.records == 1000 * CHANNELS
    assert max(max(record) for record in records) < 2**63


def test_a_guild_shares_its_channels(population: Population) -> None:
    for rank in (0, 500, 999):
        members = population.guild(rank)
        assert len(members) == GUILD
        assert population.user(rank) in members
        ranks = [other for other in range(1000) if population.user(other) in members]
        assert {population.channel(other, 7) for other in ranks} == {population.channel(rank, 7)}


def test_everybody_ends_with_the_most_active(population: Population) -> None:
    assert list(population.everybody())[-1] == (population.user(0), population.channels(0))


def test_ranks_follow_the_law() -> None:
    ranks = draw_ranks(np.random.default_rng(1), 1_000_000, 10_000)
    assert ranks.min() == 0
    assert ranks.max() <= 9_999
    counts = np.bincount(ranks, minlength=10_000)
    here, there = counts[50:150].mean(), counts[500:1500].mean()
    assert here / there == pytest.approx(10**SKEW, rel=0.1)


def test_a_schedule_is_the_same_each_time_and_differs_by_its_seed(
    population: Population, requests: list[Request]
) -> None:
    assert make_schedule(population, 1000, 10) == requests
    assert make_schedule(population, 1000, 10, seed=1) != requests


def test_actions_are_due_at_a_fixed_rate(requests: list[Request]) -> None:
    due = [request.due for request in requests]
    assert due == sorted(due)
    actions = [request.due for request in requests if request.kind is not Kind.CALL]
    actions += {
        request.fan_out: request.due for request in reversed(requests) if request.fan_out >= 0
    }.values()
    assert sorted(actions) == pytest.approx([number / 1000 for number in range(10_000)])


def test_the_mix_is_as_stated(requests: list[Request]) -> None:
    counts = Counter(request.kind for request in requests)
    counts[Kind.CALL] = len({request.fan_out for request in requests if request.fan_out >= 0})
    for kind, share in MIX.items():
        assert counts[kind] / 10_000 == pytest.approx(share, rel=0.35)


def test_fan_outs_are_whole_and_spaced(requests: list[Request]) -> None:
    calls: dict[int, list[Request]] = {}
    for request in requests:
        if request.kind is Kind.CALL:
            calls.setdefault(request.fan_out, []).append(request)
    assert {len(fan_out) for fan_out in calls.values()} == set(FAN_OUTS)
    for fan_out in calls.values():
        assert len({request.users[0] for request in fan_out}) == 1
        assert len({request.channels[0] for request in fan_out}) == len(fan_out)
        assert np.diff([request.due for request in fan_out]) == pytest.approx(0.001)


def test_acks_and_pins_move_forward(requests: list[Request]) -> None:
    for kind in (Kind.ACK, Kind.PIN):
        numbers = [request.number for request in requests if request.kind is kind]
        assert numbers == sorted(set(numbers))


def test_calls_are_what_the_service_takes(requests: list[Request]) -> None:
    pairs = list(zip(requests, to_calls("http://host", requests), strict=True))
    shapes = {kind: next(call for request, call in pairs if request.kind is kind) for kind in Kind}
    assert {kind: call.method for kind, call in shapes.items()} == {
        kind: "GET" if kind in (Kind.READ, Kind.CALL) else "POST" for kind in Kind
    }
    assert shapes[Kind.MENTION].url.path == "/mentions"
    assert shapes[Kind.BATCH].url.path.endswith("/channels:batch")
    assert CONNECTIONS < 2000  # what the service admits


def test_histograms_add_up() -> None:
    numbers = random.Random(2)
    values = [int(numbers.lognormvariate(14, 2)) for _ in range(5000)]
    merged = add_up([histogram_of(values[:100]), histogram_of(values[100:]), histogram_of([])])
    whole = add_up([histogram_of(values)])
    for percent in (50, 99, 99.9, 100):
        assert percentile(merged, percent) == percentile(whole, percent)
    for percent in (50, 99, 100):
        exact = np.percentile(values, percent, method="inverted_cdf")
        assert percentile(whole, percent) == pytest.approx(exact, rel=0.01)
    assert merged.total_count == len(values)
    assert share_above(merged, 2e6) == pytest.approx(np.mean(np.array(values) > 2e6), abs=0.01)
    slower, latencies = distribution(merged)
    assert slower == sorted(slower, reverse=True)
    assert latencies == sorted(latencies)
    assert slower[-1] == 0


def test_histograms_are_those_of_other_tools() -> None:
    assert HdrHistogram.decode(histogram_of([1000, 2000])).get_total_count() == 2


def test_what_is_too_long_or_too_short_counts_nevertheless() -> None:
    histogram = add_up([histogram_of([-5, 0, 10**18])])
    assert histogram.total_count == 3
