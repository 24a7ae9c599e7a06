"""The fuzzers find what is broken on purpose, make it small, and find it again from its seed."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from fuzz import behind, cache, crowd
from fuzz.__main__ import fuzz
from fuzz.faults import InjectingStore
from support.model import ModelCache

SOME = 300  # cases; each of these mistakes shows in the first few


def forget_to_count(self: ModelCache, key: Any, value: Any, put: Any = ModelCache.put) -> int:
    evicted: int = put(self, key, value)
    self.updates = 0
    return evicted


def test_a_mistake_is_found_and_made_small(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ModelCache, "put", forget_to_count)
    number = next(number for number in range(SOME) if fails(cache, number))
    assert not fuzz(cache, 7, 0.0, number)
    told = capsys.readouterr().out
    assert f"--seed 7 --only cache --case {number}" in told
    program = told[told.index("cache = SlabCache(") :].split("the cache is")[0]
    assert program.count("\n") <= 4, program


def test_rows_that_change_places_on_their_way_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def save(self: Any, keys: Any, values: Any, save: Any = InjectingStore.save_many) -> None:
        save(self, keys, values[::-1])

    monkeypatch.setattr(InjectingStore, "save_many", save)
    assert any(fails(behind, number) for number in range(SOME))


def fails(module: Any, number: int) -> bool:
    try:
        module.run_case(module.draw_case(Random(f"7/{number}")))
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("module", [cache, crowd, behind])
def test_a_seed_gives_the_same_case(module: Any) -> None:
    cases = [module.draw_case(Random("7/1")) for _ in range(2)]
    assert cases[0] == cases[1]
    assert cases[0].program() == cases[1].program()
