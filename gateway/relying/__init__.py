"""The relying party's port: a door for devices, and the relay of their DATA.

What lives here: accepting, framing, connections onward to the app server (or, beside it, to SEDIMENT's own relying
party), queues and their limits, ending what is cut. What must not: deciding who is admitted (it asks), judging a
message (the protocol library does), verdicts (an alert becomes an envelope).
"""

from gateway.relying.door import RelyingDoor
from gateway.relying.settings import RelyingSettings
from gateway.relying.terms import End

__all__ = ["End", "RelyingDoor", "RelyingSettings"]
