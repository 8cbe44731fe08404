"""What people and other programs write: configuration files, keys, kubeconfigs, tables and databases to import."""

from __future__ import annotations

import atexit
import base64
import os
import shutil
import sqlite3
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from functools import cache
from pathlib import Path

import yaml
from yarl import URL

from gateway.app.baseline import baseline_text
from gateway.config import Consent, find_findings, import_sediment_db, import_yaml, load, load_agent, load_book
from gateway.config.csv_import import COLUMNS, import_csv
from gateway.config.sealing import HEAD, Sealing, opened, seal
from gateway.config.values import Inventory
from gateway.core.errors import ConfigError
from gateway.core.model import SourceName
from gateway.enforce.kubernetes import AccessRefused, from_kubeconfig
from gateway.sediment.inventory import DEVICE_QUERY
from gateway.simulate.keys import Keys
from tests import posting
from tests.fuzz.decoders.shape import Attempt, Target, scratch
from tests.fuzz.test_config_fuzz import BOOK, DEVICES, RAGATE
from tests.sediment.recorded import FIXTURES

VERIFIER = SourceName("verifier")
FILES = {"ragate.yaml": RAGATE, "devices.yaml": DEVICES, "book.yaml": BOOK}
ROOT = Path(__file__).parents[3]
SECOND_BOOK = (ROOT / "policies" / "book.yaml").read_bytes()
AGENT = b"""\
gateway: 127.0.0.1:8500
certificates: {authority: ca.pem, certificate: agent.pem, key: agent.key}
folder: var
path_gate: nft
"""


@cache
def _folder() -> Path:
    """A site of this process's own."""
    folder = scratch(os.getpid())
    folder.mkdir(mode=0o700)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = Keys.make(["cam-1", "cam-2"])
    made.write(folder)
    (folder / "cam-2.key").write_bytes(made.hmac["cam-2"])
    (folder / "cam-2.key").chmod(0o600)
    (folder / "devices.keys").write_text(f"cam-1 {made.hmac['cam-1'].hex()}\n")
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    shutil.copytree(ROOT / "policies" / "profiles", folder / "profiles")
    return folder


def _site_file(name: str) -> Callable[[], Attempt]:
    """The whole site is loaded with one of its files replaced."""

    def make() -> Attempt:
        folder = _folder()
        file, genuine = folder / name, (folder / name).read_bytes()

        def attempt(data: bytes) -> None:
            file.write_bytes(data)
            said = name
            try:
                config = load(folder / "ragate.yaml")
                find_findings(config)
                baseline_text(config)
            except ConfigError as error:
                said = str(error)
            finally:
                file.write_bytes(genuine)
            assert str(folder) in said or name in said

        return attempt

    return make


def _book() -> Attempt:
    file = _folder() / "other-book.yaml"

    def attempt(data: bytes) -> None:
        file.write_bytes(data)
        with suppress(ConfigError):
            load_book(file)

    return attempt


def _agent() -> Attempt:
    file = _folder() / "agent.yaml"

    def attempt(data: bytes) -> None:
        file.write_bytes(data)
        with suppress(ConfigError):
            load_agent(file)

    return attempt


def _kubeconfig() -> Attempt:
    """Whatever is taken can be used: the certificate's name for a handshake, the token in a header."""
    file = _folder() / "kubeconfig"
    file.touch(0o600)

    def attempt(data: bytes) -> None:
        file.write_bytes(data)
        with suppress(AccessRefused):
            access = from_kubeconfig(file)
            token = access.bearer()
            assert token.isascii()
            assert not token or token.isprintable()
            host = access.name or URL(access.server).host
            assert host
            if access.tls is not None:
                assert access.tls.verify_mode is ssl.CERT_REQUIRED
                access.tls.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=host)

    return attempt


def _kubeconfig_seeds() -> Sequence[bytes]:
    authority = posting.Authority.make(_folder())
    authority.issue("cluster-client")
    inside = {
        name: base64.b64encode((_folder() / name).read_bytes()).decode()
        for name in ("site-ca.pem", "cluster-client.pem", "cluster-client.key")
    }
    (_folder() / "token").write_text("abc\n")
    server = {"server": "https://10.0.0.1:6443"}
    users = (
        {"token": "abc"},
        {"tokenFile": "token"},
        {"client-certificate": "cluster-client.pem", "client-key": "cluster-client.key"},
        {
            "client-certificate-data": inside["cluster-client.pem"],
            "client-key-data": inside["cluster-client.key"],
        },
    )
    clusters = (
        {**server, "certificate-authority": "site-ca.pem", "tls-server-name": "api.edge"},
        {**server, "certificate-authority-data": inside["site-ca.pem"]},
        {"server": "http://127.0.0.1:8001"},
    )
    return [_kubeconfig_of(cluster, users[0]) for cluster in clusters] + [
        _kubeconfig_of(clusters[0], user) for user in users[1:]
    ]


def _kubeconfig_of(cluster: Mapping[str, str], user: Mapping[str, str]) -> bytes:
    whole = {
        "current-context": "edge",
        "contexts": [{"name": "edge", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": dict(cluster)}],
        "users": [{"name": "u", "user": dict(user)}],
    }
    return yaml.safe_dump(whole).encode()


def _csv() -> Attempt:
    file = _folder() / "devices.csv"
    sources = load(_folder() / "ragate.yaml").sources

    def attempt(data: bytes) -> None:
        file.write_bytes(data)
        said = str(file)
        try:
            found = import_csv(file, sources, VERIFIER, Inventory((), {}))
        except ConfigError as error:
            said = str(error)
        else:
            _reads_back(found.inventory, found.keys)
        assert str(file) in said

    return attempt


def _yaml_import() -> Attempt:
    file = _folder() / "import.yaml"

    def attempt(data: bytes) -> None:
        file.write_bytes(data)
        with suppress(ConfigError):
            _reads_back(import_yaml(file, [VERIFIER]).inventory, "")

    return attempt


def _reads_back(inventory: str, keys: str) -> None:
    """What an import proposes can be used, or at the least names what is to be mended in it."""
    folder = _folder()
    (folder / "proposed.yaml").write_text(inventory, encoding="utf-8")
    if keys:
        (folder / "devices.keys.new").write_text(keys)
    with suppress(ConfigError):
        import_yaml(folder / "proposed.yaml", [VERIFIER])


def _database() -> Attempt:
    file = _folder() / "sediment.db"

    def attempt(data: bytes) -> None:
        file.write_bytes(data)
        for suffix in ("-wal", "-journal", "-shm"):
            (_folder() / f"sediment.db{suffix}").unlink(missing_ok=True)
        with suppress(ConfigError):
            import_sediment_db(file, VERIFIER, Inventory((), {}), Consent())

    return attempt


def _database_seeds() -> Sequence[bytes]:
    """SEDIMENT's own, and the smallest that has its table."""
    small = _folder() / "small.db"
    with closing(sqlite3.connect(small)) as made:
        made.execute("PRAGMA page_size = 512")
        made.execute("CREATE TABLE Device (id, proverEndpoint, authKey, lastAttestation)")
        made.execute("INSERT INTO Device VALUES ('cam-1', 'tcp:10.77.1.11:7000', ?, 5)", (b"k" * 32,))
        made.commit()
        made.execute(DEVICE_QUERY)
    genuine = (FIXTURES / "sediment.db").read_bytes()
    return [small.read_bytes(), *([genuine] if len(genuine) <= 65_536 else [])]


def _sealed() -> Attempt:
    path = _folder() / "sealing.key"
    path.write_text("5a" * 32)
    path.chmod(0o600)
    sealing = Sealing(path)

    def attempt(data: bytes) -> None:
        try:
            opened(HEAD + data, path, sealing)
        except ConfigError:
            pass
        else:
            raise AssertionError("nobody has the key")
        assert opened(seal(data, sealing).encode(), path, sealing) == data

    return attempt


YAML_WORDS = (
    b"- ",
    b": ",
    b"\n",
    b"{",
    b"}",
    b"[",
    b"]",
    b"&a ",
    b"*a",
    b"<<: *a",
    b"!!int ",
    b"!!binary ",
    b"? ",
    b"---\n",
    b"\t",
    b"null",
    b"true",
    b"1:30",
    b"0x10",
    b"2026-01-01",
    b".nan",
    b"'",
    b'"',
    b"|\n",
    b"#",
    b"\xef\xbb\xbf",
    b"\\x00",
    b"journal: ",
    b"sources:",
    b"format: ear-jwt",
    b"format: ragate",
    b"doors:",
    b"  relying: ",
    b"targets:",
    b"keys:",
    b"10.77.1.11/33",
    b"fe80::1%eth0",
    b"::ffff:1.2.3.4",
    b"15m",
    b"hint",
    b"site:",
    b"when: {distrusted: '>= 1'}",
    b"deployments:",
    b"classes:",
    b"profiles:",
    b"thresholds:",
    b"node_default: ",
    b"suspect: ",
    b"anchor: l2",
)
KUBECONFIG_WORDS = (
    *YAML_WORDS[:22],
    b"current-context: ",
    b"contexts:",
    b"clusters:",
    b"users:",
    b"server: https://",
    b"http://localhost",
    b"https://[::1]:6443",
    b"https://[",
    b"certificate-authority: ",
    b"certificate-authority-data: ",
    b"client-certificate-data: ",
    b"tls-server-name: ",
    b"tokenFile: ",
    b"exec:",
    b'"\\0"',
    b"!!int ''",
    b"!!bool x",
    b"!!timestamp x",
)
CSV_WORDS = (*map(str.encode, COLUMNS), b"cam-1", b"10.0.0.1", b"11" * 32, b'"', b";", b"a=1")
CSV_SEED = ",".join(COLUMNS).encode() + b"\ncam-1," + b"," * (len(COLUMNS) - 2) + b"\n"
CONFIG = ("gateway.config.document",)

TARGETS = (
    Target(
        "files.config-settings",
        (*CONFIG, "gateway.config.settings", "gateway.config.posting", "gateway.config.relying"),
        _site_file("ragate.yaml"),
        lambda: [RAGATE],
        YAML_WORDS,
    ),
    Target(
        "files.config-inventory",
        (*CONFIG, "gateway.config.inventory", "gateway.config.entries"),
        _site_file("devices.yaml"),
        lambda: [DEVICES],
        YAML_WORDS,
    ),
    Target(
        "files.config-book",
        (*CONFIG, "gateway.config.book", "gateway.config.book_levels", "gateway.config.book_site"),
        _book,
        lambda: [BOOK, SECOND_BOOK],
        YAML_WORDS,
    ),
    Target("files.config-agent", (*CONFIG, "gateway.config.remotes"), _agent, lambda: [AGENT], YAML_WORDS),
    Target(
        "files.config-keys",
        ("gateway.config.keyfiles",),
        _site_file("devices.keys"),
        lambda: [b"cam-1 " + b"5a" * 32 + b"\n", b"# none\n"],
        (b"cam-1 ", b"cam-2 ", b"\n", b"00" * 32),
    ),
    Target(
        "files.kubeconfig",
        ("gateway.enforce.kubernetes.access",),
        _kubeconfig,
        _kubeconfig_seeds,
        KUBECONFIG_WORDS,
    ),
    Target("files.import-csv", ("gateway.config.csv_import",), _csv, lambda: [CSV_SEED], CSV_WORDS),
    Target("files.import-yaml", ("gateway.config.imports",), _yaml_import, lambda: [DEVICES], YAML_WORDS),
    Target(
        "files.import-database",
        ("gateway.config.sediment_db", "gateway.sediment.inventory"),
        _database,
        _database_seeds,
        (b"CREATE TABLE Device", b"cam-1", b"tcp:"),
    ),
    Target("files.sealed-keys", ("gateway.config.sealing",), _sealed, lambda: [b"", b"\0" * 40]),
)
