"""Device keys at rest: sealed with one key that a file or a systemd credential holds.

What lives here: finding that key, sealing and opening. What must not: what is sealed. A sealed file is text: one
line that names the format, then base64 of nonce, ciphertext and tag (ChaCha20-Poly1305, RFC 8439; the first line is
authenticated with it). Whoever copies the file, or a backup with it, has no key of any device.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import secrets
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from gateway.config.document import Section
from gateway.config.secrets import read_secret
from gateway.core.errors import ConfigError

HEAD = b"ragate sealed keys 1\n"
#: Bytes of the sealing key, and of a nonce (RFC 8439, section 2.8). Nonces are random: a file is sealed a few
#: thousand times at most, far from the 2^32 after which two could meet.
KEY_SIZE, NONCE_SIZE = 32, 12
#: Bytes of a file with one key.
KEY_FILE = 4_096
#: Where systemd puts the credentials of a unit (systemd.exec(5), LoadCredential=).
CREDENTIALS = "CREDENTIALS_DIRECTORY"

_HEX = re.compile(rb"[0-9A-Fa-f]{64}\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


class Sealing(NamedTuple):
    """Where the key is, and where that is written; the key is read when needed and never part of a message.

    ``path`` is None for a credential that this process was not given: commands that need no key work all the same.
    """

    path: Path | None
    where: str = ""
    credential: str = ""

    def key(self) -> bytes:
        """The sealing key. Raises ``ConfigError`` when it cannot be read, or others may read it."""
        if self.path is None:
            mend = f"start it by a unit with LoadCredentialEncrypted={self.credential}, or set {CREDENTIALS}"
            raise ConfigError(self.where, f"this process has no credentials ({CREDENTIALS} is not set)", mend)
        data = read_secret(self.path, KEY_FILE)
        text = data.strip()
        if _HEX.match(text):
            return bytes.fromhex(text.decode("ascii"))
        if len(data) == KEY_SIZE:
            return data
        mend = "make one: ragate devices make-key FILE"
        raise ConfigError(str(self.path), f"is no sealing key: {KEY_SIZE} bytes, or 64 hex digits", mend)


def read_sealing(section: Section, base: Path) -> Sealing:
    """The section ``sealing``: ``{file: PATH}`` or ``{credential: NAME}``. Raises ``ConfigError``."""
    section.known("file", "credential")
    file, credential = section.get("file"), section.get("credential")
    if (file is None) is (credential is None):
        raise section.wrong(
            "sealing needs a file or a credential, and only one", "write sealing: {file: sealing.key}"
        )
    if file is not None:
        return Sealing(base / file.text(), file.where)
    assert credential is not None
    name = credential.text()
    if not _NAME.match(name):
        raise credential.wrong(
            f"credential {name[:64]!r} is no name", "write the name in LoadCredential= of the unit"
        )
    folder = os.environ.get(CREDENTIALS)
    return Sealing(None if folder is None else Path(folder) / name, credential.where, name)


def is_sealed(data: bytes) -> bool:
    """Whether these bytes say that they are sealed."""
    return data.startswith(HEAD)


def seal(plain: bytes, sealing: Sealing) -> str:
    """Return the text of a sealed file. Raises ``ConfigError`` for a key that cannot be used."""
    nonce = secrets.token_bytes(NONCE_SIZE)
    sealed = nonce + ChaCha20Poly1305(sealing.key()).encrypt(nonce, plain, HEAD)
    encoded = base64.b64encode(sealed).decode("ascii")
    return HEAD.decode("ascii") + "\n".join(wrap(encoded, 76)) + "\n"


def opened(data: bytes, path: Path, sealing: Sealing | None) -> bytes:
    """What a file holds: the same when it is not sealed. Raises ``ConfigError`` naming ``path``."""
    if not is_sealed(data):
        return data
    if sealing is None:
        mend = "name the key that seals it in the main file: sealing: {file: ...} or {credential: ...}"
        raise ConfigError(str(path), "is sealed, and no key is configured", mend)
    try:
        sealed = base64.b64decode(data[len(HEAD) :].replace(b"\n", b""), validate=True)
        return ChaCha20Poly1305(sealing.key()).decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], HEAD)
    except (InvalidTag, binascii.Error, ValueError) as error:
        what = f"cannot be opened with {sealing.path}: another key sealed it, or it was changed"
        raise ConfigError(str(path), what, "put back the key or the file") from error
