"""Listing KubeArmor's tables with the real nft, in a network namespace of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.core.errors import BackendError
from gateway.enforce.kubearmor.tables import NftTables

RULES = """
table ip kubearmor {
  chain INPUT {
    type filter hook input priority 0; policy accept;
    iifname "lo" accept
    ct state { established, related } accept
    ip saddr { 10.77.1.10/31, 10.77.9.0/24 } tcp dport { 8001, 8005-8010 } accept
    ip saddr 0.0.0.0/0 tcp dport { 8001, 8005-8010 } log prefix "50-net Ingress Block host" group 0 drop
    log prefix "Host INPUT Allow host" group 0 accept
  }
}
"""

PROGRAM = """
import asyncio, subprocess
from gateway.core.errors import BackendError
from gateway.enforce.kubearmor.tables import NftTables
from gateway.kubearmor.network import Scope, build_network
from gateway.kubearmor.policies import Port
from gateway.kubearmor.prefixes import Prefix
from gateway.kubearmor.readback import find, read_rules
from gateway.core.model import Address

async def main():
    tables = NftTables(timeout=20.0, limit=1 << 20)
    assert await tables.read(4) is None
    subprocess.run(["nft", "-f", "-"], input=RULES.encode(), check=True)
    scope = Scope((Port(8001), Port(8005, "tcp", 8010)), always_allowed=(Prefix.parse("10.77.9.0/24"),))
    admitted = [Address.parse("10.77.1.10"), Address.parse("10.77.1.11")]
    listing = await tables.read(4)
    rules = read_rules(listing, 4)
    policy = build_network(scope, admitted, name="50-net", node="*", generation=1)
    assert find(policy, rules, 4) == 2, rules
    fewer = build_network(scope, admitted[:1], name="50-net", node="*", generation=1)
    assert find(fewer, rules, 4) is None
    assert await tables.read(6) is None
    try:
        await NftTables(timeout=20.0, limit=100).read(4)
    except BackendError as error:
        assert "more than 100 bytes" in error.what
    else:
        raise AssertionError("the limit was not kept")
    print("all good")

asyncio.run(main())
"""


def unshare(*command: str) -> subprocess.CompletedProcess[str]:
    flags = ["-n"] if os.geteuid() == 0 else ["-r", "-n"]
    root = Path(__file__).resolve().parents[2]
    env = {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin", "PYTHONPATH": str(root)}
    return subprocess.run(
        ["unshare", *flags, *command], capture_output=True, text=True, timeout=120, check=False, env=env
    )


@pytest.mark.netns
@pytest.mark.skipif(shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin") is None, reason="nft is not installed")
def test_the_real_table_is_listed_found_and_bounded() -> None:
    if unshare("true").returncode != 0:
        pytest.skip("no network namespaces for this user")
    done = unshare(sys.executable, "-W", "error", "-c", f"RULES = {RULES!r}\n{PROGRAM}")
    assert done.stdout == "all good\n", done.stderr


async def test_a_missing_program_or_leave_is_a_declared_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tables = NftTables(timeout=60.0, limit=100)
    unprivileged = tmp_path / "nft"
    unprivileged.write_text("#!/bin/sh\necho 'Operation not permitted (you must be root)' >&2\nexit 1\n")
    unprivileged.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name, path: str(unprivileged))
    with pytest.raises(BackendError, match="needs root or CAP_NET_ADMIN"):
        await tables.read(4)
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    with pytest.raises(BackendError, match="not installed"):
        await tables.read(4)


async def test_a_program_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    slow = tmp_path / "nft"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name, path: str(slow))
    with pytest.raises(BackendError, match="within"):
        await NftTables(timeout=0.05, limit=100).read(4)


async def test_other_failures_of_nft_are_declared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "nft"
    broken.write_text("#!/bin/sh\necho netlink: no >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name, path: str(broken))
    with pytest.raises(BackendError, match="ended with 3: netlink: no"):
        await NftTables(timeout=20.0, limit=100).read(4)
