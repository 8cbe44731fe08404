"""Clusters to test against: the fake API server, and a real kube-apiserver where one is at hand.

The real one is never part of this project. ``RAGATE_KUBE_APISERVER`` and ``RAGATE_ETCD`` name the two programs,
``RAGATE_KUBEARMOR_CRDS`` a folder with KubeArmor's published custom resource definitions.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.enforce.kubernetes import Access
from tests import posting
from tests.fakes.kubernetes import GROUP, KINDS
from tests.ports import free_port

POLICIES = Path(__file__).parents[1] / "policies"
NAMESPACE = "sediment"
#: Seconds for a real server to be ready on a starved machine.
PATIENCE = 240.0
_NEEDED = ("RAGATE_KUBE_APISERVER", "RAGATE_ETCD", "RAGATE_KUBEARMOR_CRDS")


@dataclass(frozen=True)
class Cluster:
    """``ours``: who the product is; ``stranger``: somebody known who may do nothing; ``admin`` may do everything.

    ``forget`` compacts the history, where that can be asked for.
    """

    ours: Access
    stranger: Access
    admin: Access
    forget: Callable[[], None] | None = None

    async def get(self, plural: str, name: str) -> dict[str, Any] | None:
        """One object as it is stored; None: there is none."""
        status, answer = await self._ask("GET", _path(plural, name))
        assert status in (200, 404), answer
        return answer if status == 200 else None

    async def create(self, plural: str, thing: Mapping[str, Any]) -> None:
        """Somebody else creates an object."""
        whole = {"apiVersion": f"{GROUP}/v1", "kind": KINDS[plural], **thing}
        status, answer = await self._ask("POST", _path(plural) + "?fieldManager=somebody", whole)
        assert status == 201, answer

    async def edit(self, plural: str, name: str, patch: Mapping[str, Any]) -> None:
        """Somebody else edits an object."""
        path = _path(plural, name) + "?fieldManager=somebody"
        status, answer = await self._ask("PATCH", path, patch, "application/merge-patch+json")
        assert status == 200, answer

    async def delete(self, plural: str, name: str) -> None:
        """Somebody else deletes an object."""
        status, answer = await self._ask("DELETE", _path(plural, name), {})
        assert status == 200, answer

    async def _ask(
        self, method: str, path: str, body: object = None, content: str = "application/json"
    ) -> tuple[int, dict[str, Any]]:
        return await asyncio.to_thread(ask, self.admin, method, path, body, content)


def _path(plural: str, name: str = "") -> str:
    where = f"namespaces/{NAMESPACE}/" if plural == "kubearmorpolicies" else ""
    return f"/apis/{GROUP}/v1/{where}{plural}" + (f"/{name}" if name else "")


def ask(
    access: Access, method: str, path: str, body: object = None, content: str = "application/json"
) -> tuple[int, dict[str, Any]]:
    """One request of an administrator, by another client than the product's."""
    headers = {"Content-Type": content}
    if access.token:
        headers["Authorization"] = f"Bearer {access.token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(access.server + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60, context=access.tls) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            words = error.read().decode()
            # What it does not know at all is answered in plain text.
            return error.code, json.loads(words) if words.startswith("{") else {"message": words}


def why_no_real_cluster() -> str:
    """Why there is no real API server to test against; "" when there is."""
    absent = [name for name in _NEEDED if not Path(os.environ.get(name, "/nothing")).exists()]
    return f"no real API server at hand: set {', '.join(absent)}" if absent else ""


@contextmanager
def real_cluster(folder: Path) -> Iterator[Cluster]:
    """A kube-apiserver with its own store on loopback, KubeArmor's kinds, and the rights that we publish."""
    programs = [os.environ[name] for name in _NEEDED]
    client, peer, port = free_port(), free_port(), free_port()
    authority = posting.Authority.make(folder)
    authority.issue("gateway", server="127.0.0.1")
    key = rsa.generate_private_key(65537, 2048)
    (folder / "accounts.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    (folder / "tokens.csv").write_text("of-admin,admin,1,system:masters\nof-stranger,stranger,2\n")
    etcd = [
        programs[1],
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls=http://127.0.0.1:{client}",
        f"--advertise-client-urls=http://127.0.0.1:{client}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
        f"--initial-cluster=default=http://127.0.0.1:{peer}",
    ]
    server = [
        programs[0],
        f"--etcd-servers=http://127.0.0.1:{client}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={folder / 'gateway.pem'}",
        f"--tls-private-key-file={folder / 'gateway.key'}",
        f"--cert-dir={folder / 'made'}",
        f"--service-account-key-file={folder / 'accounts.key'}",
        f"--service-account-signing-key-file={folder / 'accounts.key'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.96.0.0/24",
        "--endpoint-reconciler-type=none",
        "--profiling=false",
    ]
    context = ssl.create_default_context(cafile=str(folder / "site-ca.pem"))
    admin = Access(f"https://127.0.0.1:{port}", context, token="of-admin")
    with _running(etcd, folder / "etcd.log"), _running(server, folder / "apiserver.log"):
        _until(lambda: _ready(admin), "the API server is ready")
        for file in sorted(Path(programs[2]).glob("KubeArmor*Policy.yaml")):
            for thing in yaml.safe_load_all(file.read_text()):
                if thing:
                    _made(admin, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", thing)
        for plural in KINDS:
            path = _path(plural)
            _until(lambda path=path: ask(admin, "GET", path)[0] == 200, f"{plural} are served")  # type: ignore[misc]
        _made(
            admin, "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        )
        _grant(admin)
        wanted = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 7200},
        }
        account = "/api/v1/namespaces/ragate/serviceaccounts/ragate/token"
        token = _made(admin, account, wanted)["status"]["token"]
        yield Cluster(replace(admin, token=token), replace(admin, token="of-stranger"), admin)


def _grant(admin: Access) -> None:
    """The rights of ``policies/kubernetes/rbac.yaml``, as an administrator would apply them."""
    rights = "/apis/rbac.authorization.k8s.io/v1"
    places = {
        "Namespace": "/api/v1/namespaces",
        "ServiceAccount": "/api/v1/namespaces/ragate/serviceaccounts",
        "ClusterRole": f"{rights}/clusterroles",
        "ClusterRoleBinding": f"{rights}/clusterrolebindings",
        "Role": f"{rights}/namespaces/{NAMESPACE}/roles",
        "RoleBinding": f"{rights}/namespaces/{NAMESPACE}/rolebindings",
    }
    for thing in yaml.safe_load_all((POLICIES / "kubernetes/rbac.yaml").read_text()):
        _made(admin, places[thing["kind"]], thing)


def _made(admin: Access, path: str, thing: object) -> dict[str, Any]:
    status, answer = ask(admin, "POST", path, thing)
    assert status == 201, answer
    return answer


def _ready(admin: Access) -> bool:
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"{admin.server}/readyz", headers={"Authorization": f"Bearer {admin.token}"}),
            timeout=10,
            context=admin.tls,
        ) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _until(true: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"not within {PATIENCE:g} s: {what}"
        time.sleep(0.2)


@contextmanager
def _running(program: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as file, subprocess.Popen(program, stdout=file, stderr=file) as process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
