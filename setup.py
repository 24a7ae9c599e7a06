"""The extension modules and their build switches; all other metadata is in pyproject.toml.

Switches, as environment variables set to 1:

SLABCACHE_DEBUG      invariants checked after each change of a small cache; tests of the structures built in
SLABCACHE_SANITIZE   address and undefined-behaviour sanitizers (run with their libraries preloaded)
SLABCACHE_TSAN       thread sanitizer (likewise, see tools/tsan)
SLABCACHE_COVERAGE   lines counted, for tools/coverage
SLABCACHE_PORTABLE   plain C instead of SSE2, NEON and 128-bit multiplication
"""

import os
import sys
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup


def switch(name: str) -> bool:
    return os.environ.get(f"SLABCACHE_{name}", "0") not in ("", "0")


debug, sanitize, coverage = switch("DEBUG"), switch("SANITIZE"), switch("COVERAGE")

macros: list[tuple[str, str | None]] = [("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")]
compile_args: list[str] = []
link_args: list[str] = []

if sys.platform != "win32":
    compile_args += ["-O3", "-fno-strict-aliasing"]
if debug:
    macros.append(("SLABCACHE_DEBUG", "1"))
    compile_args.append("-UNDEBUG")
if switch("PORTABLE"):
    macros.append(("SLABCACHE_PORTABLE", "1"))
if sanitize:
    flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    compile_args += ["-O1", "-g", *flags]
    link_args += flags
if switch("TSAN"):
    macros.append(("SLABCACHE_TSAN", "1"))
    compile_args += ["-O1", "-g", "-fsanitize=thread", "-fno-omit-frame-pointer"]
    link_args.append("-fsanitize=thread")
if coverage:
    # The compiler counts. Cython's own tracing cannot follow code that has let the GIL go by hand.
    compile_args += ["-O0", "--coverage"]
    link_args.append("--coverage")

modules = [
    "machine.lock",
    "codec.record",
    "_base",
    "_core",
    "_batch",
    "behind.flights",
    "behind.steps",
    "behind.drain",
    "behind.request",
    "behind.core",
] + (["_structures"] if debug else [])

# Objects of one kind of build must not be taken for those of another.
switches = ("DEBUG", "SANITIZE", "TSAN", "COVERAGE", "PORTABLE")
kind = "-".join(name.lower() for name in switches if switch(name)) or "release"
build_base = f"build/{kind}/{sys.implementation.cache_tag}{sys.abiflags}"

# Nor may a wheel hold what has left the tree since the last build.
for lib in Path(build_base).glob("lib*"):
    for built in lib.rglob("*.*"):
        source = "src" / built.relative_to(lib)
        if not source.exists() and not source.with_name(f"{built.name.split('.')[0]}.pyx").exists():
            built.unlink()

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"slabcache.{module}",
                [f"src/slabcache/{module.replace('.', '/')}.pyx"],
                include_dirs=["src/slabcache", numpy.get_include()],
                define_macros=macros,
                extra_compile_args=compile_args,
                extra_link_args=link_args,
            )
            for module in modules
        ],
        include_path=["src"],
        build_dir=f"{build_base}/cython",
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "nonecheck": False,
            "freethreading_compatible": True,
            # Builtin methods check the type of `self`; functions bound by Cython do not.
            "binding": False,
            "embedsignature": True,
            "embedsignature.format": "clinic",
        },
    ),
    options={"build": {"build_base": build_base}},
)
