"""The TCP door for SEDIMENT's alerts, on a port of its own.

What lives here: accepting, connection limits, framing by the protocol library, the pause when the admission is
full, and passing accepted frames on to SEDIMENT's own relying party. What must not: reading a claim beyond the
fixed fields, any opinion on a device.
"""

from gateway.intake.sediment.door import SedimentDoor
from gateway.intake.sediment.forward import Forwarder
from gateway.intake.sediment.listeners import open_listeners
from gateway.intake.sediment.settings import UNASSIGNED, DoorSettings, Network

__all__ = ["UNASSIGNED", "DoorSettings", "Forwarder", "Network", "SedimentDoor", "open_listeners"]
