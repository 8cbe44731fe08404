"""A KubeArmor daemon over real gRPC, with the quirks that a driver has to survive.

Modelled on its observed interface: replies, one file per name for all kinds, alphabetical restore after SERVING, an
empty ``networkMap``, a panic without nft, frozen rule sets, container policies that are found by their selector
only, tables of 256 entries whose overflow nobody is told. ``chains`` is the resulting nft rule list; tests look at
it, at ``stored`` (in the order in which policies apply), at ``disk`` and at ``lost``.
"""

from __future__ import annotations

import asyncio
import copy
import ipaddress
import json
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf import empty_pb2
from grpc_health.v1 import health_pb2

from gateway.enforce.kubearmor.lsm import Lsm
from gateway.kubearmor.anchor import of_wire
from gateway.kubearmor.pb import policy_pb2
from gateway.kubearmor.pb.policy_pb2 import PolicyStatus
from tests.fakes.kubearmor_feed import Feed
from tests.ports import free_port

KINDS = ("host", "network", "container")
FAMILIES = {4: "ip", 6: "ip6"}
Doc = dict[str, Any]

_TYPES: dict[str, type | tuple[type, ...]] = {
    "severity": int,
    "message": str,
    "action": str,
    "tags": list,
    "cidr": str,
    "port": str,
    "protocol": str,
    "endPort": int,
    "path": str,
    "dir": str,
    "readOnly": bool,
    "ownerOnly": bool,
    "ingress": list,
    "name": str,
}


def _wrong_type(value: Any) -> bool:
    """Go's decoder refuses a known field of another JSON type and drops unknown fields."""
    if isinstance(value, dict):
        return any(
            (key in _TYPES and not isinstance(item, _TYPES[key])) or _wrong_type(item)
            for key, item in value.items()
        )
    return isinstance(value, list) and any(_wrong_type(item) for item in value)


class Poison(Exception):
    """nft refuses the rule text: the whole transaction fails."""


def _nft_address(cidr: str) -> Any:
    try:
        net = ipaddress.ip_network(cidr, strict=False)
    except ValueError as error:
        raise Poison(cidr) from error
    if net.prefixlen == net.max_prefixlen:
        return str(net.network_address)
    return {"prefix": {"addr": str(net.network_address), "len": net.prefixlen}}


def _match(left: Doc, elements: list[Any]) -> Doc:
    right = elements[0] if len(elements) == 1 else {"set": elements}
    return {"match": {"op": "==", "left": {"payload": left}, "right": right}}


def _entry_rules(name: str, entry: Doc, family: int) -> list[list[Doc]]:
    """The rules of one ingress entry in one family: one per protocol, in reverse order of mention (a Go map's)."""
    cidrs = [peer["ipBlock"]["cidr"] for peer in entry.get("from", []) if "ipBlock" in peer]
    mine = [_nft_address(cidr) for cidr in cidrs if (":" in cidr) == (family == 6)]
    source = [_match({"protocol": FAMILIES[family], "field": "saddr"}, mine)] if mine else []
    action = entry.get("action", "Block")
    if action == "Block" and len(name) > 108:
        raise Poison(name)
    log = [] if action == "Allow" else [{"log": {"prefix": f"{name} Ingress {action} host", "group": 0}}]
    verdict: list[Doc] = [*log, {"accept" if action != "Block" else "drop": None}]
    ports: dict[str, list[Any]] = {}
    for port in entry.get("ports", []):
        if not port.get("port"):
            continue  # ignored together with its protocol
        proto = port.get("protocol", "tcp").lower()
        if proto not in {"tcp", "udp", "sctp"} or not port["port"].isdigit():
            raise Poison(str(port))
        first = int(port["port"])
        ports.setdefault(proto, []).append({"range": [first, port["endPort"]]} if "endPort" in port else first)
    if not ports:
        return [source + verdict]
    return [
        [*source, _match({"protocol": proto, "field": "dport"}, found), *verdict]
        for proto, found in reversed(ports.items())
    ]


class FakeKubeArmor:
    """``start`` serves on ``port`` and ``health_port``; ``die`` and ``restart`` behave as a process does.

    ``nft``: whether the network enforcer could start; without it the first network policy ends the daemon.
    ``dead`` is set while nothing runs.
    ``die_on``: method whose next call is applied and then never answered, because the daemon dies. ``enforcer``:
    the security module of its record. ``timed``: laying rules takes as long as a real one's does, kept in
    ``rebuilds`` (seconds); ``bytes`` counts what it was sent. ``homes``: container policies by endpoint.
    ``containers``: whether container policies are enabled. ``lost``: entries that found no room in their table now.
    ``feed``: its log service. ``credentials``: with them the port takes TLS alone; ``management``: the address of
    a Unix socket at which policies and probe are served instead.
    """

    def __init__(
        self,
        *,
        nft: bool = True,
        host: bool = True,
        containers: bool = True,
        debug: bool = True,
        credentials: grpc.ServerCredentials | None = None,
        management: str = "",
    ) -> None:
        self.feed = Feed(debug=debug)
        self.credentials = credentials
        self.management = management
        self.nft = nft
        self.host = host
        self.containers = containers
        self.disk: dict[str, tuple[str, Doc]] = {}
        self.stored: dict[str, dict[str, Doc]] = {kind: {} for kind in KINDS}
        self.chains: dict[int, list[list[Doc]]] | None = None
        self.calls: list[tuple[str, str, str]] = []
        self.starts = 0
        self.in_flight = self.most_in_flight = self.reads = self.bytes = 0
        self.timed = False
        self.rebuilds: list[float] = []
        self.homes: dict[str, str] = {}
        self.enforcer: str | None = "BPFLSM"
        self.die_on = ""
        self.dead = asyncio.Event()
        self.dead.set()
        self.port, self.health_port = free_port(), free_port()
        self._servers: list[grpc.aio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def health(self) -> str:
        return f"127.0.0.1:{self.health_port}"

    async def start(self) -> None:
        """SERVING first, then the stored policies in alphabetical order, as the daemon does."""
        self.stored = {kind: {} for kind in KINDS}
        self.homes = {}
        self.starts += 1
        if self.nft:
            self.chains = {4: [], 6: []}
        methods: dict[str, Callable[..., Awaitable[Any]]] = {
            "hostPolicy": self._host_policy,
            "networkPolicy": self._network_policy,
            "containerPolicy": self._container_policy,
        }
        policy = {
            name: grpc.unary_unary_rpc_method_handler(
                method, policy_pb2.policy.FromString, policy_pb2.response.SerializeToString
            )
            for name, method in methods.items()
        }
        probe = {
            "getProbeData": grpc.unary_unary_rpc_method_handler(
                self._probe, empty_pb2.Empty.FromString, policy_pb2.ProbeResponse.SerializeToString
            )
        }
        check = {
            "Check": grpc.unary_unary_rpc_method_handler(
                self._check,
                health_pb2.HealthCheckRequest.FromString,
                health_pb2.HealthCheckResponse.SerializeToString,
            )
        }
        managing = {"policy.PolicyService": policy, "policy.ProbeService": probe}
        if self.management:
            await self._serve(self.management, managing, None)
            managing = {}
        await self._serve(self.address, {**managing, **self.feed.services()}, self.credentials)
        await self._serve(self.health, {"grpc.health.v1.Health": check}, None)
        self.dead.clear()
        self._spawn(self._restore())

    async def _serve(
        self, address: str, services: dict[str, Any], credentials: grpc.ServerCredentials | None
    ) -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(
            tuple(grpc.method_handlers_generic_handler(name, handlers) for name, handlers in services.items())
        )
        if credentials is None:
            assert server.add_insecure_port(address)
        else:
            assert server.add_secure_port(address, credentials)
        await server.start()
        self._servers.append(server)

    async def _restore(self) -> None:
        for name in sorted(self.disk):
            kind, spec = self.disk[name]
            self.calls.append((kind, "restored", name))
            if kind == "container":
                self.homes[name] = next(
                    (h for h in self.homes.values() if _leads(_selected(spec), h)), _selected(spec)
                )
            self._store(kind, name, spec)
            self._rebuild()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def hang(self) -> socket.socket:
        """The start-up before serving: the policy port takes connections and says nothing until this is closed."""
        silent = socket.socket()
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        silent.bind(("127.0.0.1", self.port))
        silent.listen()
        return silent

    async def die(self) -> None:
        """SIGKILL: connections break, memory is gone, the nft tables and the files stay."""
        servers, self._servers = self._servers, []
        self.dead.set()
        for server in servers:
            await server.stop(None)

    async def stop(self) -> None:
        """A clean stop also removes the tables."""
        await self.die()
        self.chains = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def restart(self) -> None:
        await self.die()
        await self.start()

    async def _panic(self) -> Any:
        self._spawn(self.die())
        await asyncio.Event().wait()

    # Services

    async def _check(self, request: Any, context: Any) -> Any:
        if request.service not in {"", "policy.PolicyService", "policy.ProbeService", "feeder.LogService"}:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    async def _probe(self, request: Any, context: Any) -> policy_pb2.ProbeResponse:
        response = policy_pb2.ProbeResponse()
        if self.stored["host"]:
            shown = response.hostMap["vm"]
            for name, spec in self.stored["host"].items():
                document = {"metadata": {"policyName": name}, "spec": _filled(spec, "nodeSelector")}
                shown.policyList.append(name)
                shown.policyDataList.add(policy=json.dumps(document).encode())
        for name, spec in self.stored["container"].items():
            endpoint = response.containerMap[self.homes.get(name, _selected(spec))]
            endpoint.policyList.append(name)
            endpoint.policyEnabled = 1
            metadata = {"policyName": name, "namespaceName": "container_namespace"}
            document = {"metadata": metadata, "spec": _filled(spec, "selector")}
            endpoint.policyDataList.add(policy=json.dumps(document).encode())
        return response

    async def _container_policy(self, request: policy_pb2.policy, context: Any) -> policy_pb2.response:
        return await self._event("container", request, enabled=self.containers)

    async def _host_policy(self, request: policy_pb2.policy, context: Any) -> policy_pb2.response:
        return await self._event("host", request, enabled=self.host)

    async def _network_policy(self, request: policy_pb2.policy, context: Any) -> policy_pb2.response:
        if not self.nft:
            await self._panic()
        return await self._event("network", request, enabled=True)

    async def _event(self, kind: str, request: policy_pb2.policy, *, enabled: bool) -> policy_pb2.response:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0)
            status = self._take(kind, request.policy) if enabled else PolicyStatus.NotEnabled
            await self._rebuilding(kind)
            if self.die_on == kind or status is None:
                self.die_on = ""
                await self._panic()
            return policy_pb2.response(status=status)
        finally:
            self.in_flight -= 1

    async def _rebuilding(self, kind: str) -> None:
        """The answer comes when the rules are laid."""
        if kind == "network" and self.timed:
            took = self.rebuild_seconds()
            self.rebuilds.append(took)
            await asyncio.sleep(took)

    def rebuild_seconds(self) -> float:
        """What laying all rules anew takes (interface 4.4): by entries, entries with lists, prefixes in lists."""
        entries = [entry for spec in self.stored["network"].values() for entry in spec.get("ingress", [])]
        lists = [number for entry in entries if (number := len(entry.get("from", []))) > 1]
        return (15 + 0.033 * len(entries) + 0.10 * len(lists) + 0.0077 * sum(lists)) / 1000

    def prefixes(self) -> int:
        """Prefixes in all network policies."""
        specs = self.stored["network"].values()
        return sum(len(entry.get("from", [])) for spec in specs for entry in spec.get("ingress", []))

    def _take(self, kind: str, data: bytes) -> PolicyStatus | None:
        try:
            event = json.loads(data)
            what, name, spec = event["type"], event["object"]["metadata"]["name"], event["object"]["spec"]
        except (ValueError, KeyError, TypeError):
            return PolicyStatus.Invalid
        if not name or not isinstance(what, str) or _wrong_type(event["object"]):
            return PolicyStatus.Invalid
        self.bytes += len(data)
        self.calls.append((kind, what, name))
        if kind == "container":
            return self._take_container(what, name, spec)
        known = name in self.stored[kind]
        if what == "DELETED":
            if not known:
                return PolicyStatus.NotExist
            del self.stored[kind][name]
            self.disk.pop(name, None)
            self.feed.matching = kind
            self._rebuild()
            return PolicyStatus.Deleted
        if known and self.stored[kind][name] == spec:
            return PolicyStatus.Applied  # identical: nothing is done, not even a repair of the rules
        self.disk[name] = (kind, copy.deepcopy(spec))
        if not known and what == "MODIFIED":
            return PolicyStatus.Modified  # on disk, not in memory
        self._store(kind, name, spec)
        self._rebuild()
        return PolicyStatus.Modified if known else PolicyStatus.Applied

    def _take_container(self, what: str, name: str, spec: Doc) -> PolicyStatus | None:
        """Policies are looked for where the selector leads, an expression searched in the endpoint's own name: a
        deletion that leads elsewhere takes the policy out, says that there was none, and leaves the file. None: it
        ends the daemon."""
        selector = _selected(spec)
        if not selector:
            return PolicyStatus.Invalid
        known = self.stored["container"]
        home = self.homes.get(name, "")
        found = name in known and _leads(selector, home)
        if what == "DELETED":
            known.pop(name, None)
            self.homes.pop(name, None)
            if not found:
                return PolicyStatus.NotExist
            self.disk.pop(name, None)
            return PolicyStatus.Deleted
        if what != "ADDED" and not found:
            return None  # an index of -1
        if not found:
            known.pop(name, None)
            home = next((each for each in self.homes.values() if _leads(selector, each)), selector)
        self.disk[name] = ("container", copy.deepcopy(spec))
        self.homes[name] = home
        self._store("container", name, spec)
        return PolicyStatus.Applied if what == "ADDED" else PolicyStatus.Modified

    @property
    def lost(self) -> int:
        """Entries beyond the 256 of their container's or host's table: not enforced, and only logged."""
        by_table: dict[str, set[str]] = {}
        for spec in self.stored["container"].values():
            by_table.setdefault(_container(spec), set()).update(_entries(spec))
        for spec in self.stored["host"].values():
            by_table.setdefault("", set()).update(_entries(spec))
        return sum(max(0, len(entries) - 256) for entries in by_table.values())

    def _store(self, kind: str, name: str, spec: Doc) -> None:
        self.stored[kind][name] = copy.deepcopy(spec)
        if kind != "container":
            self.feed.matching = kind

    def _rebuild(self) -> None:
        """All network policies in list order, in one transaction that fails as a whole and in silence."""
        if not self.nft:
            return
        try:
            self.chains = {
                family: [
                    rule
                    for name, spec in self.stored["network"].items()
                    if spec.get("nodeSelector", {}).get("matchLabels", {"kubearmor.io/hostname": "*"})
                    for entry in spec.get("ingress", [])
                    for rule in _entry_rules(name, entry, family)
                ]
                for family in FAMILIES
            }
        except Poison:
            return

    def lsm(self) -> Lsm:
        """What the daemon's record says of its security module; ``enforcer`` None: there is no record."""
        if self.enforcer:
            return Lsm(self.enforcer)
        return Lsm("", "no LSM enforcer: none at all") if self.enforcer == "" else Lsm(None, "no record")

    # What nft shows

    async def read(self, family: int) -> bytes | None:
        """The ``TableReader`` of a host that this daemon runs on: nft's listing of its table."""
        self.reads += 1
        if self.chains is None:
            return None
        fixed: list[list[Doc]] = [
            [_match_iface("lo"), {"accept": None}],
            [_match_state(), {"accept": None}],
        ]
        last: list[list[Doc]] = [[{"log": {"prefix": "Host INPUT Allow host", "group": 0}}, {"accept": None}]]
        table = {"family": FAMILIES[family], "name": "kubearmor"}
        where = {"family": FAMILIES[family], "table": "kubearmor"}
        rules = [{"rule": {**where, "chain": "INPUT", "expr": e}} for e in (*fixed, *self.chains[family], *last)]
        other = [{"rule": {**where, "chain": "OUTPUT", "expr": e}} for e in (*fixed, *last)]
        chain = {"chain": {**where, "name": "INPUT"}}
        return json.dumps({"nftables": [{"metainfo": {}}, {"table": table}, chain, *rules, *other]}).encode()


def _selected(spec: Doc) -> str:
    """The expression by which a container policy selects; "" when it has no selector."""
    labels = spec.get("selector", {}).get("matchLabels", {})
    return str(labels.get("kubearmor.io/container.name", ""))


def _leads(selector: str, home: str) -> bool:
    """Whether an expression is found in an endpoint's name; one made in advance is named as its policy selects."""
    return bool(home) and re.search(f"name={selector}", f"name={home}") is not None


def _container(spec: Doc) -> str:
    """The container that a policy is for."""
    return of_wire(_selected(spec)).removesuffix("$")


_RULES = {
    "process": ("matchPaths", "matchDirectories", "matchPatterns"),
    "file": ("matchPaths", "matchDirectories", "matchPatterns"),
    "network": ("matchProtocols", "matchDNSQueries"),
    "capabilities": ("matchCapabilities",),
    "syscalls": (),
}
_COMMA = {"matchProtocols": "protocol", "matchDNSQueries": "domain", "matchCapabilities": "capability"}


def _filled(spec: Doc, selector: str) -> Doc:
    """A policy as the probe shows it: what a rule lacks comes from its section or the whole, comma lists are
    several rules, unknown fields are gone, sections that nobody wrote are there."""
    shown: Doc = {key: value for key, value in spec.items() if key in {"severity", "tags", "message", "apparmor"}}
    action = spec.get("action") or "Block"
    shown["action"] = action.capitalize() if action in {"allow", "audit", "block"} else action
    labels = spec.get(selector, {}).get("matchLabels", {})
    shown[selector] = {
        "matchLabels": labels,
        "identities": sorted(f"{key}={value}" for key, value in labels.items()),
    }
    for name, lists in _RULES.items():
        given = spec.get(name, {})
        section = {key: value for key, value in given.items() if key in {"severity", "tags", "message", "action"}}
        for key in lists:
            rules = [
                {
                    **{each: holder[each] for holder in (shown, section) for each in _OWN if holder.get(each)},
                    **rule,
                    **({_COMMA[key]: word} if key in _COMMA else {}),
                }
                for rule in given.get(key, [])
                for word in (rule[_COMMA[key]].split(",") if key in _COMMA else ("",))
            ]
            if rules:
                section[key] = rules
        shown[name] = section
    return shown


_OWN = ("severity", "tags", "message", "action")


def _entries(spec: Doc) -> set[str]:
    """Keys of a policy's path rules: a path one, a directory two and one for each ancestor."""
    found: set[str] = set()
    for section in (spec.get("process", {}), spec.get("file", {})):
        found |= {rule.get("execname") or rule["path"] for rule in section.get("matchPaths", [])}
        for rule in section.get("matchDirectories", []):
            parts = rule["dir"].split("/")
            found |= {rule["dir"], rule["dir"].rstrip("/")}
            found |= {"/".join(parts[:depth]) + "/" for depth in range(1, len(parts) - 1)}
    return found


def _match_iface(name: str) -> Doc:
    return {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": name}}


def _match_state() -> Doc:
    return {"match": {"op": "==", "left": {"ct": {"key": "state"}}, "right": {"set": ["established", "related"]}}}
