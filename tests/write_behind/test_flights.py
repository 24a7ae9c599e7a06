"""Which loads are under way, and which keys each of them brings: every step against a plain model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from slabcache.behind.flights import Flight, Flights

KEYS = st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), min_size=1, max_size=5)
LIMIT = 2
STRAYS_MAX = 16  # as in behind/flights.pyx


class Model:
    """A flight."""

    def __init__(self) -> None:
        self.keys: dict[bytes, int] = {}
        self.kept: set[bytes] = set()
        self.state = "next"  # then "departed", and "landed" or "given up" and "landed"


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.real = Flights(LIMIT, Flight(None))
        self.pairs: list[tuple[Flight, Model]] = [(self.real.next, Model())]
        self.places: dict[bytes, Model] = {}
        self.calls: list[tuple[list[bytes], list[Flight]]] = []
        self.landings = 0

    def model(self, flight: Flight) -> Model:
        return next(model for real, model in self.pairs if real is flight)

    def under_way(self, state: str = "departed") -> list[tuple[Flight, Model]]:
        return [pair for pair in self.pairs if pair[1].state == state]

    @rule(keys=KEYS, keeps=st.booleans(), since=st.integers(0, 9))
    def join(self, keys: list[bytes], keeps: bool, since: int) -> None:
        flights: list[Flight] = [None] * len(keys)  # type: ignore[list-item]
        before = self.real.next.since
        departures = self.real.join(keys, flights, since, keeps, self.landings)
        assert departures == self.real.departures
        assert self.real.next.since == min(before, since)
        for key, flight in zip(keys, flights, strict=True):
            model = self.places.setdefault(key, self.pairs[-1][1])
            assert self.model(flight) is model
            model.keys[key] = model.keys.get(key, 0) + 1
            if keeps:
                model.kept.add(key)
        self.calls.append((keys, flights))

    @rule(keys=KEYS)
    def join_late(self, keys: list[bytes]) -> None:
        """A flight has landed since, perhaps with these keys."""
        flights: list[Flight] = [None] * len(keys)  # type: ignore[list-item]
        assert self.real.join(keys, flights, 0, True, self.landings + 1) == -1
        assert flights == [None] * len(keys)

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0, 30))
    def withdraw(self, which: int) -> None:
        keys, flights = self.calls.pop(which % len(self.calls))
        self.real.withdraw(keys, flights)
        for key, flight in zip(keys, flights, strict=True):
            model = self.model(flight)
            if model.state == "next":
                model.keys[key] -= 1
                if not model.keys[key]:
                    del model.keys[key], self.places[key]
                    model.kept.discard(key)

    @rule(nested=st.booleans())
    def depart(self, nested: bool) -> None:
        following = Flight(None)
        flight, model = self.pairs[-1]
        is_room = len(self.under_way()) < LIMIT and len(self.under_way("given up")) < STRAYS_MAX
        may = nested or is_room
        assert self.real.depart(flight, following, 7, 0.5, nested) is may
        if may:
            model.state = "departed"
            assert (flight.carrier, flight.started) == (7, 0.5)
            self.pairs.append((following, Model()))
        assert not self.real.depart(self.pairs[0][0], Flight(None), 7, 0.5, True) or len(self.pairs) == 1

    @precondition(lambda self: self.under_way() or self.under_way("given up"))
    @rule(which=st.integers(0, 30))
    def land(self, which: int) -> None:
        candidates = self.under_way() + self.under_way("given up")
        flight, model = candidates[which % len(candidates)]
        self.real.land(flight)
        self.real.land(flight)  # once more changes nothing
        self.leave(model)
        model.state = "landed"
        self.landings += 1

    @precondition(lambda self: self.under_way())
    @rule(which=st.integers(0, 30))
    def give_up(self, which: int) -> None:
        flight, model = self.under_way()[which % len(self.under_way())]
        self.real.give_up(flight)
        self.real.give_up(flight)
        self.leave(model)
        model.state = "given up"
        self.landings += 1

    def leave(self, model: Model) -> None:
        self.places = {key: place for key, place in self.places.items() if place is not model}

    @invariant()
    def agrees(self) -> None:
        assert self.real.next is self.pairs[-1][0]
        assert self.real.running == len(self.under_way())
        assert self.real.strays == len(self.under_way("given up"))
        assert self.real.landings == self.landings
        assert self.real.may_depart() == bool(
            self.pairs[-1][1].keys and self.real.running < LIMIT and self.real.strays < STRAYS_MAX
        )
        assert {key: self.model(flight) for key, flight in self.real.places.items()} == self.places
        for flight, model in self.pairs:
            assert flight.keys == model.keys
            assert set(flight.kept) == model.kept
            assert self.real.is_done(flight) == flight.done == (model.state == "landed")
            assert bool(flight.departure) == (model.state != "next")


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_what_is_called_by_hand_raises_and_crashes_nothing() -> None:
    flights = Flights(1, Flight(None))
    for call in (
        lambda: flights.join([b"a"], [], 0, True, 0),
        lambda: flights.withdraw([b"a"], [1]),
        lambda: flights.join([[]], [None], 0, True, 0),
        lambda: flights.depart(None, Flight(None), 0, 0.0, False),
        lambda: flights.land(None),
        lambda: Flights(1, None),
    ):
        with pytest.raises((TypeError, ValueError)):
            call()
    assert flights.join([b"a"], [None], 0, True, 0) == 0


def test_the_next_flight_is_looked_at_while_it_departs() -> None:
    """Without a GIL, nobody may take a reference to it in the moment when the last one is dropped."""
    flights, rounds = Flights(1000, Flight(None)), 20_000

    def look(_: int) -> None:
        for _ in range(rounds):
            assert flights.next is not None

    def depart(_: int) -> None:
        for _ in range(rounds):
            flight = flights.next
            if flights.depart(flight, Flight(None), 1, 0.0, True):
                flights.land(flight)

    with ThreadPoolExecutor(4) as pool:
        for call in [
            pool.submit(look, 0),
            pool.submit(look, 1),
            pool.submit(depart, 0),
            pool.submit(depart, 1),
        ]:
            call.result()
    assert flights.running == 0
