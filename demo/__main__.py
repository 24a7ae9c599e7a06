"""Run the demo: ``python -m demo``; ``--help`` names the options."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .report import Conditions
    from .service import Run
    from .workload import Workload

# A dict made for this many entries lacks little to its next rehash, so that one falls into the run, as one
# does now and then in a service that runs for long.
ENTRIES, QUICK_ENTRIES = 1_320_000, 80_000
REQUESTS, QUICK_REQUESTS = 450_000, 40_000
RATE = 50_000
#: The picture's windows: as many as can be told apart, each with enough requests to have a p99.
WINDOWS, REQUESTS_PER_WINDOW = 90, 500
#: What the demo imports beside the standard library.
NEEDED = {
    "slabcache": "slabcache",
    "numpy": "numpy",
    "lru": "lru-dict",
    "matplotlib": "matplotlib",
    "tqdm": "tqdm",
}


def main() -> int:
    """Exit code: 0 when all went well, 1 when the comparison failed, 2 for what the user can put right."""
    options = _parse()
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        return _fail(2, f"not installed: {', '.join(missing)}")
    from .report import AnswersDifferError
    from .workload import DemoError

    try:
        _run(options)
    except DemoError as error:
        return _fail(2, str(error))
    except (AnswersDifferError, RuntimeError) as error:
        return _fail(1, str(error))
    except MemoryError:
        return _fail(2, "not enough memory: take fewer --entries or --requests")
    except KeyboardInterrupt:
        return _fail(130, "interrupted")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m demo", description="Read States in Python objects and in slabcache."
    )
    parser.add_argument(
        "--trace", type=Path, metavar="PATH", help=".npz file with an array 'keys', to replay"
    )
    parser.add_argument(
        "--entries", type=_at_least(1), metavar="N", help=f"entries in each cache ({ENTRIES:,})"
    )
    parser.add_argument(
        "--requests",
        type=_at_least(REQUESTS_PER_WINDOW * 2),
        metavar="N",
        help=f"requests to each cache ({REQUESTS:,})",
    )
    parser.add_argument(
        "--rate", type=_at_least(1), metavar="N", default=RATE, help=f"requests a second ({RATE:,})"
    )
    parser.add_argument("--quick", action="store_true", help="small, for a check that all works")
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path("build/demo"), help="for the results")
    options = parser.parse_args()
    options.entries = options.entries or (QUICK_ENTRIES if options.quick else ENTRIES)
    options.requests = options.requests or (QUICK_REQUESTS if options.quick else REQUESTS)
    return options


def _at_least(smallest: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < smallest:
            raise argparse.ArgumentTypeError(f"must be a whole number, at least {smallest:,}")
        return int(text)

    return number


def _run(options: argparse.Namespace) -> None:
    from . import report, workload

    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise workload.DemoError(f"cannot write to {options.out}: {error.strerror}") from None
    if options.trace:
        work = workload.from_trace(options.trace, options.entries, options.requests)
    else:
        work = workload.generate(options.entries, options.requests)
    print(*work.description, sep="\n")
    interval = max(1, round(1e9 / options.rate))
    stolen, ticks = report.cpu_times()
    runs = _measure(work, interval)
    stolen, ticks = (now - then for now, then in zip(report.cpu_times(), (stolen, ticks), strict=True))
    report.check_answers(runs)
    conditions = report.Conditions(
        work.entries, interval, work.description, report.timer_cost(), steal=stolen / ticks if ticks else 0.0
    )
    _show(options.out, conditions, runs)


def _measure(work: Workload, interval: int) -> dict[str, Run]:
    """Run all contenders, one after another, each with a progress bar."""
    from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

    from .contenders import CONTENDERS
    from .runner import run_alone

    runs: dict[str, Run] = {}
    with tempfile.TemporaryDirectory(prefix="slabcache-demo-") as name:
        folder = Path(name)
        work.warm.tofile(folder / "warm")
        work.requests.tofile(folder / "requests")
        total = work.entries + len(work.requests)
        for contender in CONTENDERS.values():
            bar = tqdm(
                total=total,
                desc=contender.label.ljust(25),
                bar_format="{desc} {bar:40} {percentage:3.0f} %  {postfix} {elapsed}",
                disable=None,  # no bar where there is no terminal
            )

            def advance(done: int, bar: tqdm[None] = bar) -> None:
                bar.set_postfix_str("filling" if done < work.entries else "serving", refresh=False)
                bar.update(done - bar.n)

            with bar:
                runs[contender.name] = run_alone(contender.name, work.entries, interval, folder, advance)
                advance(total)
                bar.set_postfix_str("done")
            if bar.disable:
                print(f"{contender.label}: done", flush=True)
    return runs


def _show(out: Path, conditions: Conditions, runs: dict[str, Run]) -> None:
    from . import picture, report, summary

    summaries = {
        name: summary.summarize(run, conditions.interval, conditions.entries) for name, run in runs.items()
    }
    requests = len(runs["floor"].ended)
    count = max(2, min(WINDOWS, requests // REQUESTS_PER_WINDOW))
    picture_path, raw_path = out / "read_states.png", out / "read_states.json"
    picture.draw(picture_path, runs, summaries, conditions, count)
    report.write_raw(raw_path, conditions, runs, summaries, count)
    print("", report.table(summaries), "", report.footer(conditions, runs, summaries), "", sep="\n")
    print(report.takeaway(summaries))
    print(f"Picture: {picture_path}   raw results: {raw_path}")


def _fail(code: int, message: str) -> int:
    print(f"demo: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
