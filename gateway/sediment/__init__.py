"""SEDIMENT's protocol, sans-I/O: wire codec, framing, authentication, keys, composition, device import.

Bytes, keys and time come in as arguments. No sockets, files, clock or randomness here, and no opinion on what a
verdict should lead to. Import from the modules; this package exports nothing itself.
"""
