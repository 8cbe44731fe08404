"""A plugin of pytest: of a test with parameters, what comes behind its first failure is skipped.

An edit is noticed by then, and each further failure may be a wait that ends in vain.
"""

from __future__ import annotations

import pytest

_FAILED: set[str] = set()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember the tests that failed."""
    if report.failed:
        _FAILED.add(report.nodeid.partition("[")[0])


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what is noticed already."""
    if item.nodeid.partition("[")[0] in _FAILED:
        pytest.skip("noticed already")
