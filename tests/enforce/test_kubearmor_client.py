"""One connection to a daemon: a deadline for each call, and how long is waited after one that failed."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterator

import pytest

from gateway.enforce.kubearmor import KubeArmorSettings
from gateway.enforce.kubearmor.client import Daemon, DaemonError, Trouble
from gateway.kubearmor.names import Kind
from tests.enforce.test_kubearmor import advisory
from tests.fakes.kubearmor import FakeKubeArmor

CRASH, ABSENCE = DaemonError(Trouble.CRASHED, "gone"), DaemonError(Trouble.ABSENT, "gone")


@pytest.fixture
def silent() -> Iterator[str]:
    """Takes connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("call", "trouble"),
    [
        (lambda daemon: daemon.serving(), Trouble.SLOW),
        (lambda daemon: daemon.probe(), Trouble.SLOW),
        (lambda daemon: daemon.send(Kind.HOST, b"{}"), Trouble.CRASHED),  # it may have been taken all the same
    ],
    ids=["health", "probe", "policy"],
)
async def test_no_call_waits_for_ever(
    silent: str, call: Callable[[Daemon], Awaitable[object]], trouble: Trouble
) -> None:
    daemon = Daemon(KubeArmorSettings(address=silent, health=silent, rpc_timeout=0.1))
    try:
        with pytest.raises(DaemonError, match="DEADLINE_EXCEEDED") as caught:
            await call(daemon)
        assert caught.value.trouble is trouble
    finally:
        await daemon.close()


async def test_what_may_have_died_of_a_call_is_given_the_time_to_come_back() -> None:
    hand = advisory(FakeKubeArmor(), crash_backoff=10.0)
    assert hand._fell(CRASH, 1) >= 10.0
    assert hand._fell(ABSENCE, 1) < 1.0


async def test_hosts_that_lost_their_daemons_together_do_not_come_back_in_step() -> None:
    hand = advisory(FakeKubeArmor(), retry_min=1.0, retry_max=4.0)
    pauses = [hand._fell(ABSENCE, attempt) for attempt in (1, 2, 3, 4) for _ in range(10)]
    assert len(set(pauses)) > 20
    assert 1.0 <= min(pauses) < max(pauses) <= 5.0


def test_the_daemon_is_treated_as_gently_as_it_needs() -> None:
    """Its service manager waits 10 s; SERVING comes seconds before the restore ends; each policy is a rebuild."""
    settings = KubeArmorSettings()
    assert 1.0 < settings.rpc_timeout < 60.0
    assert settings.crash_backoff >= 10.0
    assert settings.quiet >= 5.0
    assert settings.pace >= 1.0
    assert settings.share <= 0.1
