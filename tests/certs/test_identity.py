"""Certificates made, read and judged: only whom the authority certified, in time and unrevoked, is anybody."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from gateway.certs import (
    Authority,
    IdentityRefused,
    Role,
    identify,
    make_authority,
    make_request,
    prove,
    read_revoked,
    verify_proof,
)
from gateway.certs.authority import BACKDATED, Revoked, key_fits
from gateway.certs.identity import parse
from gateway.core.errors import ConfigError

AT = 1_795_283_400.0
DAY = 86_400.0
NOBODY: frozenset[int] = frozenset()


@pytest.fixture(scope="module")
def site() -> Authority:
    return make_authority("pier", AT)


@pytest.mark.parametrize("role", Role)
def test_an_identity_comes_back_as_it_was_issued(site: Authority, role: Role) -> None:
    leaf = site.issue(role, "one.host-1", ["10.77.3.1", "fd77::1", "gw.site"], AT, days=3)
    found = identify(leaf.certificate, site.certificate, NOBODY, AT)
    assert (found.role, found.name) == (role, "one.host-1")
    assert found.not_after == AT + 3 * DAY
    assert found.not_before == AT - BACKDATED.total_seconds()
    names = parse(leaf.certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == ["10.77.3.1", "fd77::1"]
    assert names.get_values_for_type(x509.DNSName) == ["gw.site"]
    assert key_fits(leaf.certificate, leaf.key)
    assert not key_fits(leaf.certificate, site.key)


def test_only_a_gateway_serves(site: Authority) -> None:
    for role in Role:
        usage = parse(site.issue(role, "x", [], AT).certificate).extensions.get_extension_for_class(
            x509.ExtendedKeyUsage
        )
        serves = ExtendedKeyUsageOID.SERVER_AUTH in usage.value
        assert serves is (role is Role.GATEWAY)


def test_another_authority_makes_nobody(site: Authority) -> None:
    other = make_authority("pier", AT)
    leaf = other.issue(Role.AGENT, "app", [], AT)
    with pytest.raises(IdentityRefused, match="not made by this site"):
        identify(leaf.certificate, site.certificate, NOBODY, AT)


def test_a_certificate_counts_from_its_beginning_until_just_before_its_end(site: Authority) -> None:
    leaf = site.issue(Role.AGENT, "app", [], AT, days=1)
    for at in (AT - BACKDATED.total_seconds(), AT, AT + DAY - 1):
        assert identify(leaf.certificate, site.certificate, NOBODY, at).name == "app"
    for at, why in ((AT - BACKDATED.total_seconds() - 1, "not valid yet"), (AT + DAY, "expired")):
        with pytest.raises(IdentityRefused, match=why):
            identify(leaf.certificate, site.certificate, NOBODY, at)


def test_a_certificate_never_outlives_its_authority(site: Authority) -> None:
    end = parse(site.certificate).not_valid_after_utc.timestamp()
    leaf = site.issue(Role.AGENT, "app", [], end - DAY, days=90)
    assert identify(leaf.certificate, site.certificate, NOBODY, end - 2).not_after == end
    with pytest.raises(ConfigError, match="expired"):
        site.issue(Role.AGENT, "app", [], end + 1)


def test_a_revoked_serial_is_refused_and_the_list_is_the_authoritys_own(site: Authority) -> None:
    leaf = site.issue(Role.AGENT, "app", [], AT)
    serial = identify(leaf.certificate, site.certificate, NOBODY, AT).serial
    listed = site.revocations([Revoked(serial, AT), Revoked(7, AT)], AT)
    revoked = read_revoked(listed, site.certificate)
    assert revoked == {serial, 7}
    with pytest.raises(IdentityRefused, match="is revoked"):
        identify(leaf.certificate, site.certificate, revoked, AT)
    with pytest.raises(IdentityRefused, match="not signed by this site"):
        read_revoked(listed, make_authority("pier", AT).certificate)
    with pytest.raises(IdentityRefused, match="no revocation list"):
        read_revoked(leaf.certificate, site.certificate)


def test_a_certificate_without_our_name_is_nobody(site: Authority) -> None:
    with pytest.raises(IdentityRefused, match="names no role"):
        identify(site.certificate, site.certificate, NOBODY, AT)


def test_only_the_holder_of_the_key_proves_it(site: Authority) -> None:
    one, two = site.issue(Role.GATEWAY, "gw", [], AT), site.issue(Role.GATEWAY, "gw", [], AT)
    proof = prove(one.key, "link", b"nonce", b"app")
    verify_proof(one.certificate, proof, "link", b"nonce", b"app")
    for certificate, purpose, parts in (
        (two.certificate, "link", (b"nonce", b"app")),
        (one.certificate, "other", (b"nonce", b"app")),
        (one.certificate, "link", (b"nonc", b"eapp")),
        (one.certificate, "link", (b"nonce",)),
    ):
        with pytest.raises(IdentityRefused, match="not shown"):
            verify_proof(certificate, proof, purpose, *parts)


def test_a_request_keeps_its_key_and_decides_nothing_else(site: Authority) -> None:
    request, key = make_request("gateway")
    leaf = site.sign(request, Role.AGENT, "app", [], AT, 30)
    assert leaf.key == b""
    assert key_fits(leaf.certificate, key)
    assert identify(leaf.certificate, site.certificate, NOBODY, AT).role is Role.AGENT
    with pytest.raises(ConfigError, match="no certificate request"):
        site.sign(b"nothing", Role.AGENT, "app", [], AT, 30)


@pytest.mark.parametrize(("name", "days"), [("", 1), ("a/b", 1), ("x" * 65, 1), ("app", 0), ("app", 399)])
def test_names_and_lives_that_are_none_are_refused(site: Authority, name: str, days: int) -> None:
    with pytest.raises(ConfigError):
        site.issue(Role.AGENT, name, [], AT, days)


@pytest.mark.parametrize("host", ["", "a b", "gw\n", "*.site", "ä.site"])
def test_hosts_that_are_none_are_refused(site: Authority, host: str) -> None:
    with pytest.raises(ConfigError):
        site.issue(Role.GATEWAY, "gw", [host], AT)


@given(junk=st.binary(max_size=200), cut=st.integers(0, 600))
def test_whatever_is_shown_only_the_declared_error_comes_out(junk: bytes, cut: int) -> None:
    whole = _SITE.certificate
    for pem in (junk, whole[:cut] + junk + whole[cut:], whole[:cut]):
        for call in (
            lambda pem=pem: identify(pem, _SITE.certificate, NOBODY, AT),
            lambda pem=pem: identify(_SITE.certificate, pem, NOBODY, AT),
            lambda pem=pem: read_revoked(pem, _SITE.certificate),
            lambda pem=pem: verify_proof(pem, junk, "link"),
        ):
            with pytest.raises(IdentityRefused):
                call()


_SITE = make_authority("junk", AT)
