"""Key files: the verifiers' public keys and the devices' HMAC keys. Keys are never part of a message."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gateway.config.document import Problems, read_bytes
from gateway.config.sealing import HEAD, Sealing, is_sealed, opened
from gateway.config.secrets import read_secret
from gateway.core.errors import ConfigError
from gateway.core.model import DeviceId
from gateway.sediment.keys import is_published_hmac_key, is_published_signing_key, load_public_key, parse_hmac_key

#: Bytes of one key's file; the PEM of the largest RSA key accepted has 1,500.
KEY_FILE = 1 << 14
#: Bytes of the file with every device's key: a million lines of at most 130.
KEYS_FILE = 1 << 28

UNSAFE = "allow_published_keys_that_anyone_can_sign_with"


def read_public_key(path: Path, *, allow_published: bool) -> RSAPublicKey:
    """Return a verifier's public key. Raises ``ConfigError``, also for SEDIMENT's published one unless allowed."""
    data = read_bytes(path, KEY_FILE)
    try:
        key = load_public_key(data)
    except ValueError as error:
        raise ConfigError(str(path), str(error)) from error
    if is_published_signing_key(key) and not allow_published:
        what = "is SEDIMENT's published demo key: anyone can sign verdicts with it"
        raise ConfigError(str(path), what, f"make a key of your own (for a demonstration only: {UNSAFE}: true)")
    return key


def read_hmac_key(path: Path, sealing: Sealing | None = None) -> bytes:
    """Return the device key in a file of its own. Raises ``ConfigError``, also when others may read the file."""
    data = opened(read_secret(path, KEY_FILE), path, sealing)
    try:
        return parse_hmac_key(data)
    except ValueError as error:
        raise ConfigError(str(path), str(error)) from error


def is_plain(path: Path) -> bool:
    """Whether a key file, which could be read just before, is not sealed. Raises ``ConfigError``."""
    try:
        with path.open("rb") as file:
            return not is_sealed(file.read(len(HEAD)))
    except OSError as error:
        raise ConfigError(
            str(path), f"cannot be read: {error.strerror}", "check the path and its rights"
        ) from error


def read_hmac_keys(
    path: Path, problems: Problems, sealing: Sealing | None = None
) -> tuple[Mapping[DeviceId, bytes], Callable[[DeviceId], str]]:
    """Return the device keys of a file with one ``DEVICE 64-hex`` a line, sealed or not, and where each stands.

    Raises ``ConfigError`` when the file cannot be read or others may read it; wrong lines are remembered.
    """
    keys: dict[DeviceId, bytes] = {}
    lines: dict[DeviceId, int] = {}
    for number, line in enumerate(opened(read_secret(path, KEYS_FILE), path, sealing).splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith(b"#"):
            continue
        if problems.full:
            break
        where = f"{path}:{number}"
        if len(words) != 2 or not words[0].isascii():
            problems.add(where, "is no key line", "write the device id, a space and 64 hex digits")
            continue
        device = DeviceId(words[0].decode("ascii"))
        if device in keys:
            problems.add(where, f"{device} has a key in line {lines[device]} already", "keep one of the two")
            continue
        try:
            keys[device] = parse_hmac_key(words[1])
        except ValueError as error:
            problems.add(where, f"key of {device}: {error}")
            continue
        lines[device] = number
    return keys, lambda device: f"{path}:{lines[device]}"


def refusal_of(device: DeviceId, key: bytes) -> tuple[str, str] | None:
    """Say what is wrong with a device key that everybody has, and the mend; None for any other key."""
    if not is_published_hmac_key(key):
        return None
    what = f"the key of {device} is one of SEDIMENT's published demo keys: anyone can use it"
    return what, f"enrol it with a key of its own (for a demonstration only: {UNSAFE}: true at its source)"
