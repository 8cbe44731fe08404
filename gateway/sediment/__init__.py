"""SEDIMENT's protocol, sans-I/O: wire codec, framing, authentication.

What lives here: pure functions from bytes (and keys, and time, as arguments) to values. What must not: I/O of
any kind. Facts about the protocol are from the public project sediment-lfproject/remote-attestation, v1.0.0,
commit 00e2e3e, unless a docstring says otherwise.
"""
