"""Keys with a password, which no service can use.

What must not live here: reading keys.
"""

from __future__ import annotations


def no_password() -> bytes:
    """The password of a private key, for ``load_cert_chain``: there is none, so an encrypted key is an error.

    Without this OpenSSL would ask the terminal that the service was started from, and everything would stand.
    """
    return b""
