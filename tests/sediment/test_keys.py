from __future__ import annotations

import hashlib
import sqlite3

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from gateway.sediment.keys import (
    check_hmac_key,
    is_published_hmac_key,
    is_published_signing_key,
    load_public_key,
    parse_hmac_key,
)
from tests.sediment.recorded import FIXTURES, HMAC_KEY, private_key, published_hmac_keys, unhurried


def pem_of(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_a_public_key_is_loaded() -> None:
    key = private_key().public_key()
    assert load_public_key(pem_of(key)).public_numbers() == key.public_numbers()


def test_pkcs1_pem_is_taken_too() -> None:
    key = private_key().public_key()
    assert load_public_key(key.public_bytes(Encoding.PEM, PublicFormat.PKCS1)).key_size == 2048


def weak_rsa() -> bytes:
    numbers = rsa.RSAPublicNumbers(65537, (1 << 1023) | 1)
    return pem_of(numbers.public_key())


@pytest.mark.parametrize(
    ("pem", "says"),
    [
        (b"", "not a PEM public key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not a PEM public key"),
        (b"\xff" * 400, "not a PEM public key"),
        (b"x" * 20_000, "no public key"),
        (pem_of(ec.generate_private_key(ec.SECP256R1()).public_key()), "not an RSA key"),
        (weak_rsa(), "1024 bits"),
        (private_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "private key"),
    ],
    ids=["empty", "damaged", "binary", "huge", "elliptic", "weak", "private"],
)
def test_what_is_no_usable_public_key_says_why(pem: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load_public_key(pem)


@unhurried
@given(st.binary(max_size=200))
def test_any_bytes_are_a_public_key_or_a_value_error(pem: bytes) -> None:
    with pytest.raises(ValueError):
        load_public_key(pem)


@pytest.mark.parametrize("written", [HMAC_KEY, HMAC_KEY.hex().encode(), f" {HMAC_KEY.hex().upper()}\r\n".encode()])
def test_an_hmac_key_as_hex_or_raw(written: bytes) -> None:
    assert parse_hmac_key(written) == HMAC_KEY


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "0 bytes"),
        (HMAC_KEY[:31], "31 bytes"),
        (HMAC_KEY + b"\n", "33 bytes"),
        (HMAC_KEY.hex()[:63].encode(), "63 bytes"),
        (HMAC_KEY.hex()[:62].encode() + b"zz", "64 bytes"),
        (HMAC_KEY.hex()[:32].encode(), "16 bytes"),
        (b"0" * 64, "random"),
        (bytes(32), "random"),
        (b"\xff" * 32, "random"),
        (b"password" * 4, "random"),
        (bytes(range(32)), "random"),
        (bytes(range(250, 26, -7)), "random"),
    ],
)
def test_what_is_no_usable_hmac_key_says_why_and_never_shows_it(data: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        parse_hmac_key(data)
    assert HMAC_KEY.hex()[:16] not in str(caught.value)


def test_a_key_of_another_size_is_none() -> None:
    with pytest.raises(ValueError, match="not 33"):
        check_hmac_key(HMAC_KEY + b"x")


def test_the_published_signing_key_is_known_and_others_are_not() -> None:
    assert is_published_signing_key(load_public_key((FIXTURES / "verifier-public-key.pem").read_bytes()))
    assert not is_published_signing_key(private_key().public_key())


def test_every_key_of_the_demo_database_is_known_and_others_are_not() -> None:
    database = sqlite3.connect(f"file:{FIXTURES / 'sediment.db'}?mode=ro&immutable=1", uri=True)
    rows = database.execute("SELECT authKey, encryptionKey, attestationKey FROM Device").fetchall()
    database.close()
    keys = [key for row in rows for key in row]
    assert len(keys) == 33
    assert all(map(is_published_hmac_key, keys))
    assert all(map(is_published_hmac_key, published_hmac_keys().values()))
    assert not is_published_hmac_key(HMAC_KEY)
    assert not is_published_hmac_key(hashlib.sha256(keys[0]).digest())


def test_the_demo_keys_are_published_not_malformed() -> None:
    for key in published_hmac_keys().values():
        assert parse_hmac_key(key) == key
