"""The hook: a Unix socket for ``ragate-hook``, which SEDIMENT's relying party runs as its ``fwScript``.

What lives here: ``door`` takes one hint a connection from allowed users; ``send`` is the script. What must not:
reading what a hint says. Nothing is imported here, because the script must start at once.
"""
