"""Keys made for the occasion: one signing key for the verifier, one authentication key per device.

Nothing here is ever read from a repository; a site of one process keeps nothing after it has ended.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

HMAC_KEY_BYTES = 32
"""Size of SEDIMENT's ``authKey``: the key of HMAC-SHA256 over a message."""

_RSA_BITS = 2048
_RSA_EXPONENT = 65537


@dataclass(frozen=True)
class Keys:
    """The verifier's RSA key and the devices' HMAC keys, as the verifier's database would hold them."""

    signing: rsa.RSAPrivateKey
    hmac: Mapping[str, bytes]

    @classmethod
    def make(cls, devices: Iterable[str]) -> Keys:
        """Make fresh keys for these devices."""
        signing = rsa.generate_private_key(public_exponent=_RSA_EXPONENT, key_size=_RSA_BITS)
        return cls(signing, {device: secrets.token_bytes(HMAC_KEY_BYTES) for device in devices})

    def public_pem(self) -> bytes:
        """The verifier's public key, as the gateway's ``public_key`` file wants it."""
        return self.signing.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def write(self, folder: Path) -> None:
        """Write ``verifier.pem``, ``verifier.key`` and ``devices.keys`` into ``folder``, each mode 0600."""
        for name, data in self.files().items():
            write_private(folder / name, data)

    def files(self) -> Mapping[str, bytes]:
        """What ``write`` writes: the content of each file by its name."""
        private = self.signing.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        lines = "".join(f"{device} {key.hex()}\n" for device, key in self.hmac.items())
        return {"verifier.pem": self.public_pem(), "verifier.key": private, "devices.keys": lines.encode()}


def read_signing_key(path: Path) -> rsa.RSAPrivateKey:
    """The verifier's key from its ``verifier.key``. Raises ``OSError`` or ``ValueError``."""
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        msg = f"{path} holds no RSA key"
        raise ValueError(msg)
    return key


def read_device_keys(path: Path) -> dict[str, bytes]:
    """The devices' keys, from lines of ``DEVICE HEX``. Raises ``OSError`` or ``ValueError``."""
    pairs = (line.split() for line in path.read_text().splitlines())
    return {device: bytes.fromhex(key) for device, key in pairs}


def write_private(path: Path, data: bytes) -> None:
    """Create ``path``, readable by its owner from its first moment. Raises ``FileExistsError``."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
