"""What goes to the far end of a book's trial: every word of the inventory that a book is judged by."""

from __future__ import annotations

from io import BytesIO

from gateway.config import trial_child
from gateway.core.model import Address, AnchorKind, Binding, Device, DeviceId, SourceName


def test_devices_arrive_as_they_were() -> None:
    own, other = DeviceId("cam-1"), DeviceId("cam-2")
    binding = Binding(own, (Address.parse("10.77.1.11"), Address.parse("fd77:1::/64")), AnchorKind.L2)
    devices = [
        Device(own, SourceName("a"), binding, (("class", "camera"),), (SourceName("b"),), 300.0, 2),
        Device(other, SourceName("b"), Binding(other, binding.addresses)),
    ]
    pipe = BytesIO()
    trial_child.send(pipe, trial_child.pack(devices))
    trial_child.send(pipe, b"")
    pipe.seek(0)
    assert [trial_child._device(row) for row in trial_child._rows(pipe)] == devices
