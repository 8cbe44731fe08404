"""The KubeArmor hand: a slower, declarative layer beside the path gate.

It declares which sources may reach this host's gated ports, hardens our own files, and shows how far the daemon
got. It never counts for an admission. What must not live here: devices, verdicts, the path gate, deciding.
"""

from gateway.enforce.kubearmor.driver import KubeArmorAdvisory
from gateway.enforce.kubearmor.lsm import read_record
from gateway.enforce.kubearmor.own import own_names
from gateway.enforce.kubearmor.settings import KubeArmorSettings, Tables
from gateway.enforce.kubearmor.transport import connect

__all__ = ["KubeArmorAdvisory", "KubeArmorSettings", "Tables", "connect", "own_names", "read_record"]
