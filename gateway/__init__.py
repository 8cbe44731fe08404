"""ragate: a remote-attestation gateway with enforcement coupling.

It consumes attestation verdicts, keeps one standing with a deadline per device, and drives the path gate so
that a device which has failed, gone silent or lapsed is cut off. The rooms and who may import whom are drawn
in ``docs/adr/0001-the-house.md`` and enforced by ``.importlinter``.
"""

__version__ = "0.1.0"
