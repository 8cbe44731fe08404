"""The doors: bytes and peer become an envelope and are submitted.

What lives here: sockets, their limits, the peer's identity. What must not: reading claims beyond framing, state,
enforcement. Doors are blind to each other.
"""
