"""The ear at KubeArmor: its three streams, read within limits; what is heard is told on as runtime alerts.

What must not live here: policies, whom an alert is about, what follows from one.
"""

from gateway.watch.kubearmor.ear import MESSAGE_BYTES, Ear, EarSettings
from gateway.watch.kubearmor.limits import LOSSES, Tally
from gateway.watch.kubearmor.streams import STREAMS

__all__ = ["LOSSES", "MESSAGE_BYTES", "STREAMS", "Ear", "EarSettings", "Tally"]
