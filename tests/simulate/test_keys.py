from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from gateway.simulate.keys import Keys, write_private


def test_files_are_for_the_owner_only(keys: Keys, tmp_path: Path) -> None:
    keys.write(tmp_path)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("verifier.pem", "verifier.key", "devices.keys"), 0o600)


def test_device_keys_are_written_as_the_inventory_wants_them(keys: Keys, tmp_path: Path) -> None:
    keys.write(tmp_path)
    lines = dict(line.split(" ") for line in (tmp_path / "devices.keys").read_text().splitlines())
    assert {device: bytes.fromhex(key) for device, key in lines.items()} == keys.hmac
    assert {len(key) for key in lines.values()} == {64}


def test_public_key_belongs_to_the_signing_key(keys: Keys, tmp_path: Path) -> None:
    keys.write(tmp_path)
    public = load_pem_public_key((tmp_path / "verifier.pem").read_bytes())
    assert isinstance(public, RSAPublicKey)
    assert public.public_numbers() == keys.signing.public_key().public_numbers()
    assert public.key_size == 2048


def test_keys_differ_every_time(keys: Keys) -> None:
    other = Keys.make(keys.hmac)
    assert other.hmac.keys() == keys.hmac.keys()
    assert not set(other.hmac.values()) & set(keys.hmac.values())
    assert other.public_pem() != keys.public_pem()


def test_an_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        write_private(tmp_path / "secret", b"new")
    assert (tmp_path / "secret").read_bytes() == b"old"
