"""How to ignore what a daemon does: calls, crashes, restarts, what it shows, how it is reached."""

from __future__ import annotations

from collections.abc import Mapping

from tests.quirks.shape import Edit

HAND = "gateway/enforce/kubearmor"
DRIVER, CLIENT, LANE = f"{HAND}/driver.py", f"{HAND}/client.py", f"{HAND}/lane.py"
DOCUMENTS, SETTINGS, EVIDENCE = f"{HAND}/documents.py", f"{HAND}/settings.py", f"{HAND}/evidence.py"
LSM, DRIFT, TRANSPORT = f"{HAND}/lsm.py", f"{HAND}/drift.py", f"{HAND}/transport.py"
EAR, STREAMS = "gateway/watch/kubearmor/ear.py", "gateway/watch/kubearmor/streams.py"
CHAINS = "gateway/enforce/nft/chains.py"

EDITS: Mapping[str, tuple[Edit, ...]] = {
    "MODIFIED for an unknown name is stored on disk only, or ends the daemon": (
        Edit("updates by MODIFIED", "gateway/kubearmor/policies.py", 'ADDED = "ADDED"', 'ADDED = "MODIFIED"'),
    ),
    "a container policy is deleted only by the selector it was sent with": (
        Edit(
            "deletes by name alone",
            DOCUMENTS,
            "    if step.document is None:\n        return render_event",
            "    if step.event is EventType.DELETED or step.document is None:\n        return render_event",
        ),
    ),
    "two calls at a time can be applied in the wrong order": (
        Edit(
            "policies do not wait for one another",
            LANE,
            "        async with self._lock:\n            if now() <",
            "        if True:\n            if now() <",
        ),
        Edit(
            "deletions do not wait",
            LANE,
            "        async with self._lock:\n            return await daemon.send(kind, event)",
            "        if True:\n            return await daemon.send(kind, event)",
        ),
        Edit(
            "probes do not wait",
            LANE,
            "        async with self._lock:\n            return await daemon.probe()",
            "        if True:\n            return await daemon.probe()",
        ),
    ),
    "it may listen and never answer": (
        Edit(
            "a probe without a deadline",
            CLIENT,
            "call(empty_pb2.Empty(), timeout=self._settings.rpc_timeout)",
            "call(empty_pb2.Empty())",
        ),
        Edit(
            "a policy without a deadline",
            CLIENT,
            "policy_pb2.policy(policy=event), timeout=self._settings.rpc_timeout",
            "policy_pb2.policy(policy=event)",
        ),
        Edit(
            "a question of health without a deadline",
            CLIENT,
            "health_pb2.HealthCheckRequest(service=service), timeout=self._settings.rpc_timeout",
            "health_pb2.HealthCheckRequest(service=service)",
        ),
    ),
    "each network policy lays all rules of the host anew": (
        Edit(
            "sends without a pause",
            DRIVER,
            "return max(self._settings.pace, spent * (1 / self._settings.share - 1))",
            "return 0.0",
        ),
        Edit(
            "the oldest truth wins",
            DRIVER,
            "        self._admitted = admitted\n",
            "        self._admitted = self._admitted or admitted\n",
        ),
        Edit("a pace that is none", SETTINGS, "pace: float = 1.0", "pace: float = 0.01"),
    ),
    "each repair lays them anew too": (
        Edit(
            "repairs for ever",
            DRIFT,
            "        if len(self._repairs) <= AT_ONCE:\n",
            "        if self._repairs:\n",
        ),
        Edit(
            "every repair of a storm after the same while",
            DRIFT,
            "max(FIRST_HOLD, 2 * self._hold)",
            "FIRST_HOLD",
        ),
    ),
    "it may die of a policy and say nothing": (
        Edit(
            "takes a call that failed for a daemon that is not there",
            CLIENT,
            "    if sending and trouble is not Trouble.KUBERNETES:\n",
            "    if False:\n",
        ),
        Edit(
            "gives it no time to start",
            DRIVER,
            "            pause = max(pause, settings.crash_backoff)\n",
            "            pause = max(pause, 0.0)\n",
        ),
        Edit(
            "the same generation again",
            DRIVER,
            "        self._generation += 1\n",
            "        self._generation += 0\n",
        ),
        Edit(
            "believes that what was sent still stands",
            DRIVER,
            "        self._host = self._declared = None\n",
            "        self._host = None\n",
        ),
    ),
    "a policy may end it each time": (
        Edit(
            "sends it again and again",
            LANE,
            "            if self._unanswered[name] >= MAX_UNANSWERED:\n",
            "            if False:\n",
        ),
        Edit(
            "leaves everything alone that has the same kind",
            LANE,
            "            if now() < self._shunned_until.get(name, 0.0):\n",
            "            if now() < max(self._shunned_until.values(), default=0.0):\n",
        ),
    ),
    "daemons that stop together come back together": (
        Edit(
            "the driver comes in step",
            DRIVER,
            "return pause * (1 + secrets.randbelow(1000) / 4000)",
            "return pause",
        ),
        Edit(
            "the ear comes in step",
            EAR,
            "pause * random.uniform(0.5, 1.0)",
            "pause * max(0.75, random.random() * 0)",
        ),
    ),
    "Applied although `nft` failed": (
        Edit("does not look at what it reads", DRIVER, "        if not wrong:\n", "        if True:\n"),
    ),
    "Applied although there is no security module": (
        Edit(
            "none is as good as one",
            DOCUMENTS,
            'return (Stage.VERIFIED, said) if lsm.enforcer else (Stage.FAILED, f"{lsm.why}; {said}")',
            "return Stage.VERIFIED, said",
        ),
        Edit(
            "not known is as good as one",
            DOCUMENTS,
            'return Stage.ACCEPTED, f"{said}; not verified, as',
            'return Stage.VERIFIED, f"{said}; not verified, as',
        ),
        Edit(
            "one that was there is there",
            EVIDENCE,
            "        self._lsm = None\n\n    async",
            "        pass\n\n    async",
        ),
        Edit(
            "the record's silence is one",
            LSM,
            "    if enforcer:\n        return Lsm(enforcer)\n",
            '    if enforcer is not None:\n        return Lsm(enforcer or "BPFLSM")\n',
        ),
        Edit("believes whoever wrote the record", LSM, " or found.st_mode & 0o022:", ":"),
    ),
    "the probe shows memory, with much filled in": (
        Edit(
            "does not compare the text of the host policy",
            DRIVER,
            "found.generation == policy.generation and same(policy, found)",
            "found.generation == policy.generation",
        ),
        Edit(
            "does not compare the text of documents",
            DOCUMENTS,
            "found.generation == generation and self._texts.get(name) == normal(found.spec)",
            "found.generation == generation",
        ),
        Edit(
            "compares rules as they stand",
            "gateway/kubearmor/content.py",
            "{**rule, **{each: _nearest(each, rule, section, whole) for each in _INHERITED}}",
            "{**rule}",
        ),
        Edit(
            "takes no list apart",
            "gateway/kubearmor/content.py",
            '    for word in words.split(","):\n',
            "    for word in (words,):\n",
        ),
    ),
    "network policies are never shown": (
        Edit(
            "does not read the tables",
            DRIVER,
            "        elif self._network.standing and self._settings.tables is Tables.READ:\n",
            "        elif False:\n",
        ),
        Edit(
            "takes what is not shown for gone",
            DOCUMENTS,
            "set() if self._declared is None else set(self._declared.absent)\n        self._verified.clear()",
            "set()\n        self._verified.clear()",
        ),
    ),
    "what is identical is not applied again": (
        Edit(
            "repairs with the same generation",
            DRIVER,
            "        self._generation += 1\n",
            "        self._generation += 0\n",
        ),
    ),
    "a probe may be larger than 4 MiB": (
        Edit(
            "keeps the library's limit",
            SETTINGS,
            "max_receive: int = 64 * 1024 * 1024",
            "max_receive: int = 4 * 1024 * 1024",
        ),
    ),
    "the first network policy ends a daemon whose enforcer did not start": (
        Edit(
            "no table is evidence enough",
            EVIDENCE,
            "                    return _NO_TABLE\n",
            '                    return ""\n',
        ),
        Edit(
            "trusts without being told to",
            EVIDENCE,
            "if self._tables is Tables.TRUST:",
            "if self._tables is not Tables.READ:",
        ),
    ),
    "established and forwarded traffic is not cut": (
        Edit(
            "lets established connections pass",
            CHAINS,
            "        'iif \"lo\" accept',",
            "        'iif \"lo\" accept', 'ct state established accept',",
        ),
        Edit(
            "judges only what ends here",
            CHAINS,
            "type filter hook prerouting priority {HOOK_PRIORITY}; policy accept;",
            "type filter hook input priority {HOOK_PRIORITY}; policy accept;",
        ),
    ),
    "SERVING comes before the restore": (
        Edit("one probe is enough", DRIVER, "if shown is not None and shown == seen:", "if shown is not None:"),
        Edit("no quiet period", SETTINGS, "quiet: float = 5.0", "quiet: float = 0.0"),
    ),
    "a kind may be disabled": (
        Edit(
            "a failure like any other",
            DRIVER,
            "        elif status == PolicyStatus.NotEnabled:\n",
            "        elif False:\n",
        ),
    ),
    "a denial whose policy was overwritten comes as a log, a failed `nft` as a message": (
        Edit(
            "hears alerts alone",
            EAR,
            "streams: tuple[str, ...] = tuple(STREAMS)",
            'streams: tuple[str, ...] = ("alerts",)',
        ),
        Edit(
            "takes no log for an alert",
            "gateway/kubearmor/alerts.py",
            "    if log.Result not in _DENIED:\n",
            "    if True:\n",
        ),
    ),
    "a stream ends at once for a filter that it does not know": (
        Edit(
            "alerts without a filter",
            STREAMS,
            '_stream("alerts", "WatchAlerts", "all",',
            '_stream("alerts", "WatchAlerts", "",',
        ),
        Edit("logs by the word of alerts", STREAMS, '"WatchLogs", "system",', '"WatchLogs", "policy",'),
    ),
    "streams have no history, and one may end alone": (
        Edit(
            "a stream that ended is a lost connection",
            EAR,
            "                if error.code() is grpc.StatusCode.UNAVAILABLE:\n",
            "                if True:\n",
        ),
        Edit(
            "does not tell that it lost them",
            EAR,
            '        self._lost(f"KubeArmor\'s streams ended ({said})")\n',
            "",
        ),
    ),
    "alerts of packets are not limited, one for each source port": (
        Edit(
            "takes whatever comes",
            EAR,
            "        if not self._limit.takes(alert.source or alert.subject, now.boot):\n",
            "        if False:\n",
        ),
        Edit(
            "one limit for all",
            EAR,
            "self._limit.takes(alert.source or alert.subject, now.boot)",
            'self._limit.takes("", now.boot)',
        ),
    ),
    "who pings more often than every five minutes is thrown out": (
        Edit(
            "keeps the connection alive",
            TRANSPORT,
            '        ("grpc.use_local_subchannel_pool", 1),\n',
            '        ("grpc.use_local_subchannel_pool", 1),\n        ("grpc.keepalive_time_ms", 10_000),\n',
        ),
    ),
    "anybody who reaches its port is believed": (
        Edit(
            "dials anywhere",
            TRANSPORT,
            '        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback\n',
            '        return bool(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))\n',
        ),
    ),
    "its certificate names the node's address alone": (
        Edit("demands the address that it dials", TRANSPORT, "    if tls.name:\n", "    if False:\n"),
    ),
    "policies and streams part ways in coming versions": (
        Edit(
            "one address for both",
            SETTINGS,
            "        return self.logs or self.address\n",
            "        return self.address\n",
        ),
        Edit(
            "demands a health service of a socket",
            CLIENT,
            '        if self._settings.health is None:\n            return ""\n',
            '        if self._settings.health is None:\n            return "no health service"\n',
        ),
    ),
}
