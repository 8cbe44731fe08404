"""The soft limit follows the configured limits; what the hard one does not allow is said."""

from __future__ import annotations

import resource

import pytest

from gateway.app.descriptors import make_room


class Limits:
    def __init__(self, soft: int, hard: int) -> None:
        self.now = (soft, hard)

    def get(self, _which: int) -> tuple[int, int]:
        return self.now

    def set(self, _which: int, limits: tuple[int, int]) -> None:
        assert limits[0] <= limits[1] == self.now[1] or limits[1] == resource.RLIM_INFINITY
        self.now = limits


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "then", "told"),
    [
        (1_024, 65_536, 20_000, (20_000, 65_536), False),
        (30_000, 65_536, 20_000, (30_000, 65_536), False),
        (1_024, 4_096, 20_000, (4_096, 4_096), True),
        (1_024, resource.RLIM_INFINITY, 20_000, (20_000, resource.RLIM_INFINITY), False),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 9, (resource.RLIM_INFINITY,) * 2, False),
    ],
)
def test_room_is_made_as_far_as_it_may_be(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, wanted: int, then: tuple[int, int], told: bool
) -> None:
    limits = Limits(soft, hard)
    monkeypatch.setattr(resource, "getrlimit", limits.get)
    monkeypatch.setattr(resource, "setrlimit", limits.set)
    said = make_room(wanted)
    assert limits.now == then
    assert bool(said) == told
    assert not told or f"LimitNOFILE={wanted}" in said
