"""Start, stop, crash: a device is re-admitted only if journal and kernel agree."""

from __future__ import annotations

import pytest

from gateway.core.errors import BackendError
from gateway.core.model import Address, DeviceId, Outcome, Standing
from tests.control.world import INVENTORY, SOURCE, device, running
from tests.fakes.backend import FakeBackend
from tests.fakes.clock import ManualClock
from tests.fakes.journal import Disk


class Machine:
    """Clock, disk and kernel: what a killed gateway leaves behind."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.disk = Disk()
        self.backend = FakeBackend(self.clock, found=False)

    def restarted(self, *, kernel: bool = True) -> dict[str, object]:
        old = self.backend
        self.backend = FakeBackend(self.clock, found=kernel)
        if kernel:
            self.backend._admitted = old._admitted
            self.backend._tombstones = old._tombstones
        return {"clock": self.clock, "disk": self.disk, "backend": self.backend}


@pytest.fixture
def machine() -> Machine:
    return Machine()


async def test_journal_and_kernel_agree_the_device_stays_admitted(machine: Machine) -> None:
    async with running(clock=machine.clock, disk=machine.disk, backend=machine.backend) as world:
        await world.passes("cam-1")
    machine.clock.advance(5)
    async with running(**machine.restarted()) as world:  # type: ignore[arg-type]
        assert world.standing("cam-1") is Standing.TRUSTED
        assert world.admitted("10.0.0.1")
        assert world.standing("cam-2") is Standing.UNKNOWN
        assert world.devices.may_raise


async def test_killed_between_cut_and_commit_the_tombstone_outranks_the_journal(machine: Machine) -> None:
    async with running(clock=machine.clock, disk=machine.disk, backend=machine.backend) as world:
        await world.passes("cam-1")
        machine.clock.advance(1)
        world.journal.delay()
        await world.fails("cam-1")
        assert machine.disk.records[DeviceId("cam-1"), SOURCE].standing is Standing.TRUSTED
    async with running(**machine.restarted()) as world:  # type: ignore[arg-type]
        assert world.standing("cam-1") is Standing.SUSPECT
        assert world.stands("10.0.0.1").tombstone
        assert world.facts.notices("withheld")[0].times == 1
        # A pass issued after the suspicion, clock skew included, restores it.
        machine.clock.advance(4)
        await world.passes("cam-1")
        assert world.admitted("10.0.0.1")


async def test_an_absence_before_the_deadline_is_not_readmitted(machine: Machine) -> None:
    async with running(clock=machine.clock, disk=machine.disk, backend=machine.backend) as world:
        await world.passes("cam-1")
    machine.backend.lose(Address.parse("fd00::1"))
    async with running(**machine.restarted()) as world:  # type: ignore[arg-type]
        assert world.standing("cam-1") is Standing.SUSPECT
        assert not world.admitted("10.0.0.1")
        assert not world.admitted("fd00::1")


async def test_without_kernel_state_everybody_starts_lapsed(machine: Machine) -> None:
    async with running(clock=machine.clock, disk=machine.disk, backend=machine.backend) as world:
        await world.passes("cam-1")
    async with running(**machine.restarted(kernel=False)) as world:  # type: ignore[arg-type]
        assert world.standing("cam-1") is Standing.LAPSED
        assert not world.admitted("10.0.0.1")
        machine.clock.advance(1)
        await world.passes("cam-1")
        assert world.admitted("10.0.0.1")


async def test_after_a_reboot_everybody_starts_lapsed_whatever_the_kernel_says(machine: Machine) -> None:
    async with running(clock=machine.clock, disk=machine.disk, backend=machine.backend) as world:
        await world.passes("cam-1")
    async with running(boot_id="another", **machine.restarted()) as world:  # type: ignore[arg-type]
        assert world.standing("cam-1") is Standing.LAPSED
        assert not world.admitted("10.0.0.1")


async def test_a_deadline_that_passed_while_down_lapses_at_start(machine: Machine) -> None:
    async with running(clock=machine.clock, disk=machine.disk, backend=machine.backend) as world:
        await world.passes("cam-1")
    machine.clock.advance(101)
    async with running(**machine.restarted()) as world:  # type: ignore[arg-type]
        assert world.standing("cam-1") is Standing.LAPSED
        assert not world.facts.notices("withheld")


async def test_a_failure_and_its_debt_survive_a_restart(machine: Machine) -> None:
    async with running(clock=machine.clock, disk=machine.disk, backend=machine.backend) as world:
        await world.passes("cam-1")
        machine.clock.advance(1)
        await world.fails("cam-1")
    machine.clock.advance(1)
    async with running(**machine.restarted()) as world:  # type: ignore[arg-type]
        assert world.standing("cam-1") is Standing.DISTRUSTED
        await world.passes("cam-1")
        assert not world.admitted("10.0.0.1")
        machine.clock.advance(1)
        await world.passes("cam-1")
        assert world.admitted("10.0.0.1")


async def test_a_clock_behind_the_journal_admits_nobody_until_it_catches_up(machine: Machine) -> None:
    async with running(clock=machine.clock, disk=machine.disk, backend=machine.backend) as world:
        await world.passes("cam-1")
    machine.clock.jump(-500)
    async with running(**machine.restarted()) as world:  # type: ignore[arg-type]
        assert world.standing("cam-1") is Standing.SUSPECT
        assert not world.devices.may_raise
        assert "clock" in world.devices.why_not
        machine.clock.jump(450)
        world.clockwork.turn()
        assert world.devices.may_raise


async def test_no_more_time_is_left_after_a_restart_than_at_the_last_commit(machine: Machine) -> None:
    async with running(clock=machine.clock, disk=machine.disk, backend=machine.backend) as world:
        await world.passes("cam-1")
    machine.clock.jump(-60)
    async with running(**machine.restarted()) as world:  # type: ignore[arg-type]
        view = world.devices.view(DeviceId("cam-1"))
        assert view is not None
        assert view.decision.until is not None
        assert view.decision.until - machine.clock.wall <= 100


async def test_a_device_that_left_the_inventory_is_retired_and_keeps_its_marks(machine: Machine) -> None:
    async with running(clock=machine.clock, disk=machine.disk, backend=machine.backend) as world:
        await world.passes("cam-2")
        machine.clock.advance(1)
        await world.fails("cam-2")
    async with running(inventory=INVENTORY[:1], **machine.restarted()) as world:  # type: ignore[arg-type]
        await world.settle()
        record = machine.disk.records[DeviceId("cam-2"), SOURCE]
        assert record.standing is Standing.RETIRED
        assert record.debt == 2
    async with running(**machine.restarted()) as world:  # type: ignore[arg-type]
        assert world.standing("cam-2") is Standing.DISTRUSTED


async def test_a_backend_that_cannot_start_lets_nothing_open(machine: Machine) -> None:
    machine.backend.fail_next(BackendError("nft", "no permission", transient=False))
    with pytest.raises(BackendError):
        async with running(clock=machine.clock, disk=machine.disk, backend=machine.backend):
            pass


async def test_tombstones_of_devices_that_were_never_trusted_do_no_harm(machine: Machine) -> None:
    inventory = (device("cam-1", "10.0.0.1"),)
    async with running(
        clock=machine.clock, disk=machine.disk, backend=machine.backend, inventory=inventory
    ) as world:
        world.verdict("cam-1", Outcome.FAILED)
        await world.settle()
    machine.clock.advance(1)
    async with running(inventory=inventory, **machine.restarted()) as world:  # type: ignore[arg-type]
        assert world.standing("cam-1") is Standing.DISTRUSTED
        assert not world.facts.notices("withheld")
