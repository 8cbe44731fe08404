"""Doctor: looking at what stands around the gateway for settings that undo its protection.

What lives here: ``evidence`` reads files and this host, ``checks`` is the table of what is looked for. What must
not: changing anything, or asking the network. A check without evidence says so: silence is not health.
"""

from gateway.config.doctor.checks import CHECKS, Check, Diagnosis, Report, examine
from gateway.config.doctor.evidence import Evidence, gather
from gateway.config.values import Places

__all__ = ["CHECKS", "Check", "Diagnosis", "Evidence", "Places", "Report", "examine", "gather"]
