"""Keys are expensive to make and nothing here changes them: one set for the whole run."""

from __future__ import annotations

import pytest

from gateway.simulate.keys import Keys


@pytest.fixture(scope="session")
def keys() -> Keys:
    return Keys.make(["cam-1", "cam-2"])
