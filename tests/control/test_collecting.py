"""The collector is put aside for a while and left as it was."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from gateway.control.collecting import no_collection


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    enabled = gc.isenabled()
    yield
    (gc.enable if enabled else gc.disable)()


@pytest.mark.parametrize("before", [True, False])
def test_it_is_left_as_it_was_whatever_happens(before: bool) -> None:
    (gc.enable if before else gc.disable)()

    def fail() -> None:
        with no_collection():
            assert not gc.isenabled()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert gc.isenabled() is before
