"""How a cluster is reached: what a kubeconfig and a pod may say, and what is refused with a mend."""

from __future__ import annotations

import base64
import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from gateway.enforce.kubernetes import Access, AccessRefused, from_cluster, from_kubeconfig
from tests import posting
from tests.patience import PATIENCE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    authority = posting.Authority.make(tmp_path)
    authority.issue("gateway", server="127.0.0.1")
    return tmp_path


def written(folder: Path, cluster: dict[str, Any], user: dict[str, Any], current: str = "edge") -> Path:
    path = folder / "kubeconfig"
    path.write_text(
        yaml.safe_dump(
            {
                "current-context": current,
                "contexts": [{"name": "edge", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "u", "user": user}],
            }
        )
    )
    path.chmod(0o600)
    return path


HTTPS = {"server": "https://10.0.0.1:6443", "certificate-authority": "site-ca.pem"}


def test_a_token_beside_an_authority(folder: Path) -> None:
    access = from_kubeconfig(written(folder, {**HTTPS, "tls-server-name": "api.edge"}, {"token": "abc"}))
    assert (access.server, access.name, access.bearer()) == ("https://10.0.0.1:6443", "api.edge", "abc")
    assert access.tls is not None
    assert access.tls.verify_mode is ssl.CERT_REQUIRED
    assert access.tls.check_hostname


def test_data_inside_and_files_beside_are_the_same(folder: Path) -> None:
    def inline(name: str) -> str:
        return base64.b64encode((folder / name).read_bytes()).decode()

    cluster = {"server": HTTPS["server"], "certificate-authority-data": inline("site-ca.pem")}
    user = {"client-certificate-data": inline("gateway.pem"), "client-key-data": inline("gateway.key")}
    assert from_kubeconfig(written(folder, cluster, user)).bearer() == ""
    user = {"client-certificate": "gateway.pem", "client-key": "gateway.key"}
    assert from_kubeconfig(written(folder, HTTPS, user)).bearer() == ""


def test_a_token_file_is_read_every_time(folder: Path) -> None:
    (folder / "token").write_text("one\n")
    access = from_kubeconfig(written(folder, HTTPS, {"tokenFile": "token", "token": "older"}))
    assert access.bearer() == "one"
    (folder / "token").write_text("two\n")
    assert access.bearer() == "two"
    (folder / "token").write_text("\n")
    with pytest.raises(AccessRefused, match="empty"):
        access.bearer()


REFUSED = {
    "plaintext": ({"server": "http://10.0.0.1:6443"}, {}, "plaintext beyond this host"),
    "unverified": ({**HTTPS, "insecure-skip-tls-verify": True}, {}, "anybody could be the API server"),
    "proxy": ({**HTTPS, "proxy-url": "http://p"}, {}, "without a proxy"),
    "a program": (HTTPS, {"exec": {"command": "sh"}}, "by exec, which is not done here"),
    "a plugin": (HTTPS, {"auth-provider": {"name": "x"}}, "by auth-provider"),
    "a password": (HTTPS, {"username": "me", "password": "x"}, "by username"),
    "no server": ({}, {}, "is no address"),
    "odd server": ({"server": "unix:///run/x"}, {}, "is no address"),
    "half an identity": (HTTPS, {"client-certificate": "gateway.pem"}, "without its key"),
    "no PEM": ({"server": HTTPS["server"], "certificate-authority-data": "eA=="}, {}, "certificate authority"),
    "no base64": ({"server": HTTPS["server"], "certificate-authority-data": "***"}, {}, "is no base64"),
    "no file": ({**HTTPS, "certificate-authority": "nowhere.pem"}, {}, "cannot be read"),
    "a token of lines": (HTTPS, {"token": "a\nb"}, "no token"),
    "half an address": ({"server": "https://[fd00::1:6443"}, {}, "is no address"),
    "no port": ({"server": "https://10.0.0.1:65536"}, {}, "is no address"),
    "no host": ({"server": "https://a..b:6443"}, {}, "is no address"),
    "another alphabet": ({"server": HTTPS["server"], "certificate-authority-data": "b\u00e4"}, {}, "is no base64"),
    "a zero byte": ({**HTTPS, "certificate-authority": "a\0b"}, {}, "cannot be read"),
    "no name": ({**HTTPS, "tls-server-name": "a\0b"}, {"token": "x"}, "is no name of a host"),
    "a long name": ({**HTTPS, "tls-server-name": "a" * 64}, {"token": "x"}, "is no name of a host"),
    "a number": ({**HTTPS, "server": 6443}, {}, "server is no text"),
}


@pytest.mark.parametrize(("cluster", "user", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_says_why(folder: Path, cluster: dict[str, Any], user: dict[str, Any], why: str) -> None:
    with pytest.raises(AccessRefused, match=why) as raised:
        from_kubeconfig(written(folder, cluster, user))
    assert raised.value.mend


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(folder: Path) -> None:
    """OpenSSL asks the terminal that a service was started from, and everything stands until somebody answers."""
    key = load_pem_private_key((folder / "gateway.key").read_bytes(), None)
    sealed = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (folder / "sealed.key").write_bytes(sealed)
    user = {"client-certificate": "gateway.pem", "client-key": "sealed.key"}
    asked = (
        "import sys; from pathlib import Path; from gateway.enforce.kubernetes import *\n"
        "try: from_kubeconfig(Path(sys.argv[1]))\n"
        "except AccessRefused as error: print(error)"
    )
    leader, terminal = os.openpty()
    try:
        done = subprocess.run(
            ["setsid", "--ctty", sys.executable, "-c", asked, str(written(folder, HTTPS, user))],
            stdin=terminal,
            stdout=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=True,
        )
    finally:
        os.close(leader)
        os.close(terminal)
    assert "client certificate cannot be used" in done.stdout


def test_plaintext_is_for_loopback(folder: Path) -> None:
    assert (
        from_kubeconfig(written(folder, {"server": "http://127.0.0.1:8001/"}, {})).server == "http://127.0.0.1:8001"
    )


def test_names_that_are_not_there_and_files_that_are_none(folder: Path) -> None:
    path = written(folder, HTTPS, {}, current="other")
    with pytest.raises(AccessRefused, match="no context 'other'"):
        from_kubeconfig(path)
    assert from_kubeconfig(path, "edge").server == HTTPS["server"]
    path.chmod(0o644)
    with pytest.raises(AccessRefused, match="chmod 600"):
        from_kubeconfig(path, "edge")
    for text in (
        "",
        "[",
        "- a",
        "current-context: [a]",
        "contexts: 3",
        "a: &a [*a]",
        "!!int ''",
        "!!bool x",
        "!!timestamp x",
    ):
        path = folder / "odd"
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(AccessRefused):
            from_kubeconfig(path)
    with pytest.raises(AccessRefused, match="cannot be read"):
        from_kubeconfig(folder / "nowhere")


def test_a_pod_finds_its_cluster(folder: Path) -> None:
    account = folder / "account"
    account.mkdir()
    (account / "ca.crt").write_bytes((folder / "site-ca.pem").read_bytes())
    (account / "token").write_text("of-the-pod\n")
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    access = from_cluster(environment, account)
    assert (access.server, access.bearer()) == ("https://[fd00::1]:443", "of-the-pod")
    (account / "token").write_text("rotated\n")
    assert access.bearer() == "rotated"
    with pytest.raises(AccessRefused, match="does not run in a cluster's pod"):
        from_cluster({}, account)
    (account / "token").unlink()
    with pytest.raises(AccessRefused, match="cannot be read"):
        from_cluster(environment, account)


def test_a_token_is_no_part_of_what_is_printed() -> None:
    assert "secret" not in repr(Access("https://a", token="secret"))
