"""Every example in a docstring, in the README and in the docs runs and shows what it says."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import slabcache

ROOT = Path(__file__).parent.parent
MODULES = [
    "",
    "._base",
    "._batch",
    "._core",
    ".cache",
    ".codec.dtypes",
    ".codec.record",
    ".mapping",
    ".prometheus",
    ".stats",
    ".stores.cassandra_table",
    ".stores.sqlite",
    ".stores.timestamps",
    ".write_behind",
]
PLAIN = ("keys", "values", "update", "reset_stats")  # shown by the examples of their neighbours
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def examples_of(module: ModuleType) -> list[doctest.DocTest]:
    """Doctests of a module; those of extension types are found by hand, as doctest looks at Python
    functions alone."""
    found = {test.name: test for test in doctest.DocTestFinder().find(module)}
    parser = doctest.DocTestParser()
    for owner in vars(module).values():
        if isinstance(owner, type) and owner.__module__ == module.__name__:
            for name, member in [("", owner), *vars(owner).items()]:
                text = getattr(member, "__doc__", None)
                label = f"{module.__name__}.{owner.__name__}.{name}".rstrip(".")
                if isinstance(text, str) and ">>>" in text and label not in found:
                    found[label] = parser.get_doctest(text, {}, label, None, 0)
    return [test for test in found.values() if test.examples]


@pytest.mark.parametrize("suffix", MODULES)
def test_docstrings(suffix: str) -> None:
    module = importlib.import_module(slabcache.__name__ + suffix)
    tests = examples_of(module)
    assert tests, "no examples were found"
    for test in tests:
        result = doctest.DocTestRunner().run(test)
        assert result.failed == 0, test.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages(page: Path) -> None:
    with np.printoptions(legacy=False):
        result = doctest.testfile(str(page), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_each_public_method_has_an_example() -> None:
    """A method of the interface without one would be documented by its name alone."""
    bare = []
    for name in dir(slabcache.SlabCache):
        member = getattr(slabcache.SlabCache, name)
        public = not name.startswith("_") and callable(member)
        if public and name not in PLAIN and ">>>" not in (member.__doc__ or ""):
            bare.append(name)
    assert not bare
