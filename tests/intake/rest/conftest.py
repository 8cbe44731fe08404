"""One running gateway for the tests of this folder that change nothing which others look at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.e2e.installed import Installed, Running
from tests.intake.rest.site import posting_site


class Site(NamedTuple):
    """Files and process."""

    files: Installed
    service: Running


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A gateway with both posting doors, and limits that a test can reach."""
    files = posting_site(
        tmp_path_factory.mktemp("posting"),
        rpc=True,
        request_seconds=3,
        idle_seconds=6,
        connections_per_peer=40,
        connections=60,
        body=262_144,
    )
    with files.running() as service:
        yield Site(files, service)
        assert service.process.poll() is None, service.log
