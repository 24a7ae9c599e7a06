"""Build the programs of the peers where their toolchains are, outside of the source tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
OUT = ROOT / "build" / "bench-native"
GO, CARGO = "go", "cargo"  # the toolchains, by the command that builds
VERSIONS = {GO: ("go", "version"), CARGO: ("rustc", "--version")}
PACKAGES = {"lru", "quick_cache", "rustc-hash"}  # those that are measured, of all that the lock file names


def build(toolchain: str) -> Path | None:
    """The program of one toolchain; None, and a line that says why, where it cannot be had."""
    if shutil.which(toolchain) is None:
        print(f"{toolchain}: not found, its programs are left out", file=sys.stderr)
        return None
    print(f"{toolchain}: building", file=sys.stderr)
    return _build_go() if toolchain == GO else _build_rust()


def versions(toolchain: str) -> list[str]:
    """The compiler and the measured packages."""
    known = [subprocess.run(VERSIONS[toolchain], capture_output=True, text=True, check=True).stdout.strip()]
    if toolchain == CARGO:
        lock = tomllib.loads((HERE / "rust" / "Cargo.lock").read_text())
        known += [f"{it['name']} {it['version']}" for it in lock["package"] if it["name"] in PACKAGES]
    return known


def _build_go() -> Path:
    program = OUT / "go" / "peers"
    subprocess.run([GO, "build", "-o", program, "."], cwd=HERE / "go", check=True)
    return program


def _build_rust() -> Path | None:
    target = OUT / "rust"
    manifest = f"--manifest-path={HERE / 'rust' / 'Cargo.toml'}"
    fetched = subprocess.run([CARGO, "fetch", "--quiet", manifest], capture_output=True, text=True)
    if fetched.returncode:
        reason = next((it for it in fetched.stderr.splitlines() if it.startswith("error")), "no reason given")
        print(f"{CARGO}: no crates ({reason}), its programs are left out", file=sys.stderr)
        return None
    command = [CARGO, "build", "--quiet", "--release", "--offline", manifest]
    subprocess.run(command, env=os.environ | {"CARGO_TARGET_DIR": str(target)}, check=True)
    return target / "release" / "peers"
