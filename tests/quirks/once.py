"""A plugin of pytest: of a test with parameters, what comes behind its first failure is skipped.

An edit is noticed by then, and each further failure may be a wait that ends in vain.
"""

from __future__ import annotations

import pytest

_FAILED: set[str] = set()


def _name(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> object:
    """Remember the tests that failed."""
    report: pytest.TestReport = yield
    if report.failed:
        _FAILED.add(_name(item))
    return report


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what is noticed already."""
    if _name(item) in _FAILED:
        pytest.skip("noticed already")
