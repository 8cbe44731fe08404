"""Two verifiers of different formats about one device: the lowest wins, and only who failed it restores it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.installed import Installed, Running, until
from tests.intake.rest.site import client, posting_site
from tests.posting import ear, jwt, key_for, posted, verdict


class Talk:
    """Says of the device ``both`` what two sources find, each statement later than the one before."""

    def __init__(self, site: Installed) -> None:
        self._site = site
        self._last = int(time.time()) - 30

    def _next(self) -> int:
        self._last += 1
        return self._last

    def rp(self, result: str) -> None:
        body = posted("rp", verdict("both", result, issued_at=self._next()))
        answer = client(self._site).post(body, source="rp", key=key_for("rp"), key_id="k1")
        assert answer.status == 200, answer

    def ear(self, tier: str) -> None:
        token = jwt(key_for("ear", "ES256"), "ES256", ear(tier, submod="both", iat=self._next()))
        answer = client(self._site).post(token, source="ear", media_type="application/eat+jwt")
        assert answer.status == 200, answer


@pytest.fixture(params=[None, 2], ids=["lowest", "quorum"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Installed, Running]]:
    files = posting_site(tmp_path)
    if request.param is not None:
        book = (files.folder / "book.yaml").read_text()
        (files.folder / "book.yaml").write_text(book + f"devices: {{both: {{quorum: {request.param}}}}}\n")
    with files.running() as service:
        yield files, service


def test_only_the_source_that_failed_a_device_restores_it(site: tuple[Installed, Running]) -> None:
    files, service = site
    talk = Talk(files)
    talk.rp("passed")
    assert service.standing("both") == "unknown"  # the other has said nothing yet
    talk.ear("affirming")
    service.wait("both", "trusted")
    talk.ear("contraindicated")
    service.wait("both", "distrusted")
    for _ in range(3):
        talk.rp("passed")
    assert service.standing("both") == "distrusted"
    told = files.ask("explain", "both").output
    assert "rp says trusted: passed again" in told
    assert "ear says distrusted: failed attestation (EAR contraindicated executables=2 hardware=2)" in told
    assert "ear: failed attestation" in told
    records = service.device("both")["records"]
    assert {name: record["standing"] for name, record in records.items()} == {"rp": "trusted", "ear": "distrusted"}
    talk.ear("affirming")
    service.wait("both", "trusted")
    talk.rp("failed")
    service.wait("both", "distrusted")
    talk.ear("affirming")
    assert service.standing("both") == "distrusted"
    talk.rp("passed")
    service.wait("both", "trusted")


def test_what_each_said_survives_a_restart(tmp_path: Path) -> None:
    files = posting_site(tmp_path)
    talk = Talk(files)
    with files.running() as service:
        talk.rp("passed")
        talk.ear("contraindicated")
        service.wait("both", "distrusted")
        assert service.stop() == 0
    with files.running() as service:
        assert service.standing("both") == "distrusted"
        talk.rp("passed")
        assert service.standing("both") == "distrusted"
        talk.ear("affirming")
        until(lambda: service.device("both")["records"]["ear"]["standing"] == "trusted")


def test_a_quorum_of_one_bears_a_silent_second_source(tmp_path: Path) -> None:
    files = posting_site(tmp_path)
    book = (files.folder / "book.yaml").read_text()
    (files.folder / "book.yaml").write_text(book + "devices: {both: {quorum: 1}}\n")
    with files.running() as service:
        talk = Talk(files)
        talk.rp("passed")
        service.wait("both", "trusted")
        talk.ear("contraindicated")
        service.wait("both", "distrusted")


def test_a_quorum_that_no_device_could_reach_is_a_mistake(tmp_path: Path) -> None:
    files = posting_site(tmp_path)
    book = (files.folder / "book.yaml").read_text()
    (files.folder / "book.yaml").write_text(book + "devices: {both: {quorum: 9}}\n")
    found = files.ask("check")
    assert found.exit_code == 2
    assert "quorum 9: no device of the inventory has more than 4 sources" in found.output
