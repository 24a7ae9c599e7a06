"""The report, made of results that nobody measured."""

from __future__ import annotations

import random
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from matplotlib.figure import Figure

from measuring.formats import duration
from read_states.load.histograms import histogram_of, percentile
from read_states.load.results import CacheRun, Conditions, FanOut, Results, Sample, ServiceRun
from read_states.load.schedule import Kind
from read_states.report import pictures
from read_states.report.figures import bars, fan_out_chances, latency
from read_states.report.page import cautions, make_page, write_report

MS = 1_000_000
VOID = {"meta", "br", "path", "use", "rect"}


def metrics(at: int, hits: int, full: int) -> dict[str, float]:
    return {
        "slabcache_hits_total": hits * at,
        "slabcache_misses_total": 10 * at,
        "slabcache_evictions_total": 10 * at,
        "slabcache_flushed_rows_total": 300 * at,
        "slabcache_size": 1000,
        "process_resident_memory_bytes": 5e7 + 60_000 * (at > 0),
        "read_states_gc_longest_pause_seconds": 0.4 if full else 0.002,
        **{f"read_states_gc_pause_seconds_count{{{generation}}}": full * at for generation in range(3)},
        **{f"read_states_gc_pause_seconds_sum{{{generation}}}": 0.1 * full * at for generation in range(3)},
        **{
            f"read_states_gc_pause_seconds_bucket{{2}}{{{edge}}}": full * at
            for edge in ("0.001", "0.3", "+Inf")
        },
    }


def service(slow: int, full: int) -> ServiceRun:
    """Three seconds in which one request in a hundred takes `slow` milliseconds."""
    numbers = random.Random(slow)
    second = [numbers.randrange(MS, 2 * MS) for _ in range(990)] + [slow * MS] * 10
    return ServiceRun(
        timeline=[{kind: histogram_of(second) for kind in Kind} for _ in range(3)],
        lag=histogram_of([50_000] * 100),
        taken=(0.01, 0.01),
        failures={},
        fan_outs=[FanOut(50, slow * MS if number < 3 else 2 * MS) for number in range(10)],
        empty=Sample(0, metrics(0, 90, full)),
        samples=[Sample(at, metrics(at, 90, full), 100 * at) for at in (1, 2, 3)],
        throughput=[1500.0, 1400.0, 1450.0] if slow < 100 else [1200.0, 1300.0, 1250.0],
    )


def cache(label: str, entries: int, size: int, slow: int, pause: int) -> CacheRun:
    times = [histogram_of([10_000] * 990 + [time] * 10) for time in (slow, slow, 100 * MS)]
    pauses = [pause] * 4 + [MS // 2] * 96 + [90 * MS] * 2
    return CacheRun(label, entries, entries * size, entries * size, 100, times, times, 0, pauses)


@pytest.fixture(scope="module")
def results() -> Results:
    return Results(
        Conditions(
            "A machine",
            "2026-01-01 00:00",
            "python -m x <&>",
            1_000_000,
            4000,
            40,
            3.0,
            100.0,
            18_000,
            1.0,
            (0, 1),
            1.0,
        ),
        {"slabcache": service(4, 0), "objects": service(640, 1)},
        {
            "empty": cache("slabcache, all but empty", 10, 60, 50_000, MS),
            "full": cache("slabcache, full", 8000, 53, 60_000, MS),
            "twin": cache("objects, full", 2000, 420, 90_000, 800 * MS),
        },
    )


class Checker(HTMLParser):
    """Every element that begins ends, and nothing is to be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "data", "action"):
                assert (value or "").startswith("#"), (tag, name, value)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_is_whole_and_fetches_nothing(results: Results) -> None:
    page = make_page(results)
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert page.count("<svg") == 8
    assert not re.search(r"url\((?!#)|@import|<script|<link", page)
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    assert len(identifiers) == len(set(identifiers))


def test_the_page_has_the_figures(results: Results) -> None:
    checker = Checker()
    checker.feed(make_page(results))
    text = " ".join(" ".join(checker.text).split())
    slow = duration(percentile(latency(results.services["objects"]), 99.9))
    assert slow.startswith("64")
    for figure in (slow, "1,450", "1,250", "53.0 bytes", "420 bytes", "90.0%", "A machine", "<&>"):
        assert figure in text, figure


def test_bars(results: Results) -> None:
    assert [bar.verdict for bar in bars(results)] == ["held"] * 5


def test_a_bar_that_is_missed_is_missed(results: Results) -> None:
    worse = Results(
        results.conditions,
        {"slabcache": service(640, 1), "objects": service(4, 0)},
        {
            **results.caches,
            "full": cache("slabcache, full", 8000, 57, 80_000, 2 * MS),
        },
    )
    assert [bar.verdict for bar in bars(worse)] == ["missed"] * 5


def test_fan_outs_are_measured_beside_the_arithmetic(results: Results) -> None:
    (chance,) = fan_out_chances(results.services["objects"])
    assert chance.calls == 50
    assert chance.stalled == 0.3
    assert chance.independent == pytest.approx(0.395, abs=0.001)
    assert chance.spread == pytest.approx(1 - 0.99**50)


def test_what_spoils_a_run_is_said(results: Results) -> None:
    assert cautions(results) == []
    spoiled = msgspec.structs.replace(
        results.services["slabcache"], lag=histogram_of([50 * MS]), taken=(0.3, 0.0), failures={"503": 7}
    )
    said = cautions(Results(results.conditions, {**results.services, "slabcache": spoiled}, results.caches))
    assert len(said) == 3
    assert "30%" in said[0]
    assert "503" in said[2]


def test_a_run_that_is_too_small_for_the_bars_is_said(results: Results) -> None:
    small = msgspec.structs.replace(results.conditions, capacity=20_000)
    (said,) = cautions(msgspec.structs.replace(results, conditions=small))
    assert "20,000 records" in said


def test_every_line_is_within_its_picture(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(pictures, "_svg", lambda figure, name: figures.append(figure) or "")
    pictures.draw_all(results)
    lines = [(axes, line) for figure in figures for axes in figure.axes for line in axes.get_lines()]
    assert len(lines) > 10
    for axes, line in lines:
        left, right = sorted(axes.get_xlim())
        inside = [left <= x <= right for x in line.get_xdata() if len(line.get_xdata()) > 2]
        assert not inside or sum(inside) > len(inside) / 2, (axes.get_xlabel(), line.get_label())


def test_results_come_back_from_their_file(results: Results, tmp_path: Path) -> None:
    results.write(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json") == results
    said = write_report(results, tmp_path / "report.html")
    assert said.count("held ") == 5
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


def test_durations_have_three_digits() -> None:
    assert [duration(time) for time in (5, 1500, 2.5e6, 999.7e6, 3.21e9)] == [
        "5 ns",
        "1.5 µs",
        "2.5 ms",
        "1 s",
        "3.21 s",
    ]
