"""The running gateway of the REST door's tests has the gRPC door as well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.intake.rest.conftest import Site
from tests.intake.rest.site import posting_site


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A gateway with both posting doors."""
    files = posting_site(tmp_path_factory.mktemp("streams"), rpc=True)
    with files.running() as service:
        yield Site(files, service)
        assert service.process.poll() is None, service.log
