"""Each decoder as the fuzzer sees it: what is genuine passes, whatever was once found to be wrong stays mended."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fuzz.decoders.table import TARGETS

KEPT = Path(__file__).parent / "kept"


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_genuine_and_what_was_once_found(name: str) -> None:
    target = TARGETS[name]
    attempt = target.make()
    seeds = target.seeds()
    assert seeds
    for data in (b"", *seeds, *(path.read_bytes() for path in sorted((KEPT / name).glob("*")))):
        attempt(data)
    assert all(find_spec(module) is not None for module in target.modules)


def test_what_is_kept_has_a_decoder() -> None:
    assert {path.name for path in KEPT.iterdir()} <= set(TARGETS)


def test_the_guide_counts_them() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "fuzzing.md").read_text(encoding="utf-8")
    assert f"every decoder ({len(TARGETS)} of them)" in guide
