"""How to ignore what a daemon does with documents: names, order, prefixes, sizes, tables, what it leaves out."""

from __future__ import annotations

from collections.abc import Mapping

from tests.quirks.shape import Edit

PURE = "gateway/kubearmor"
NAMES, POLICIES, PREFIXES = f"{PURE}/names.py", f"{PURE}/policies.py", f"{PURE}/prefixes.py"
NETWORK, STEPS, SHARDS = f"{PURE}/network.py", f"{PURE}/steps.py", f"{PURE}/shards.py"
HOST, VOCABULARY, BUDGET, VALIDATE = (
    f"{PURE}/host.py",
    f"{PURE}/vocabulary.py",
    f"{PURE}/budget.py",
    f"{PURE}/validate.py",
)
ANCHOR = f"{PURE}/anchor.py"

EDITS: Mapping[str, tuple[Edit, ...]] = {
    "nothing tells that a policy's rules left its former container": (
        Edit(
            "updates it where it is",
            STEPS,
            "        elif before is not None and _selection(before) != _selection(document):\n",
            "        elif False:\n",
        ),
    ),
    "one wrong JSON type refuses the whole message": (
        Edit("ports as numbers", POLICIES, '{"port": str(self.number),', '{"port": self.number,'),
    ),
    "all kinds share one name space of files, named without escaping": (
        Edit("any name", NAMES, r'_NAME = re.compile(r"[a-z0-9-]{1,63}\Z")', r'_NAME = re.compile(r"(?s).*\Z")'),
        Edit("names without the kind", NAMES, "(str(order), word, clean, digest)", "(str(order), clean, digest)"),
        Edit("names that the slug alone tells apart", NAMES, "sha256(identity.encode())", 'sha256(b"")'),
    ),
    "order is that of arrival, after a restart that of names": (
        Edit(
            "leaves what came first where it is",
            STEPS,
            "    for name in _misplaced(order, every):\n",
            "    for name in ():\n",
        ),
        Edit("any number as the order", NAMES, "if not 10 <= order <= 99 or", "if not -100 <= order <= 999 or"),
    ),
    "the first match wins across all policies": (
        Edit(
            "blocks before it allows",
            NETWORK,
            "    entries.append(NetworkEntry(EVERYBODY, scope.gated, Action.BLOCK))\n",
            "    entries.insert(0, NetworkEntry(EVERYBODY, scope.gated, Action.BLOCK))\n",
        ),
    ),
    "a family without a prefix matches everybody": (
        Edit(
            "fills in one family alone",
            PREFIXES,
            "    return given + tuple(filler for filler in FILLERS if filler.family not in families)\n",
            "    return given + tuple(filler for filler in FILLERS[1:] if filler.family not in families)\n",
        ),
        Edit(
            "manages by one family",
            NETWORK,
            "        peers = both_families(aggregate(scope.management_from))\n",
            "        peers = aggregate(scope.management_from)\n",
        ),
        Edit(
            "takes entries of one family",
            POLICIES,
            "        if {peer.family for peer in self.peers} != {4, 6}:\n",
            "        if False:\n",
        ),
    ),
    "a bad prefix, port or protocol freezes the rules of the host": (
        Edit("any protocol", POLICIES, "        if self.protocol not in PROTOCOLS:\n", "        if False:\n"),
        Edit("any port", POLICIES, "        if not 1 <= self.number <= last <= 65535:\n", "        if False:\n"),
        Edit(
            "prefixes with bits of hosts",
            PREFIXES,
            "ipaddress.ip_network(text)",
            "ipaddress.ip_network(text, strict=False)",
        ),
        Edit("whatever is called a prefix", PREFIXES, "    if not good:\n", "    if False:\n"),
    ),
    "an entry without ports is for every protocol": (
        Edit("takes it", POLICIES, "        if not self.ports:\n", "        if False:\n"),
    ),
    "it takes 4 MiB at most": (
        Edit("each address by itself", PREFIXES, "        if first > end + 1:\n", "        if first > end:\n"),
        Edit("whatever size", POLICIES, "    if len(data) > MAX_EVENT:\n", "    if False:\n"),
        Edit(
            "always one policy",
            SHARDS,
            "    number = 1 if total <= filled else min(MAX_PARTS, -(-total // filled))\n",
            "    number = 1\n",
        ),
        Edit(
            "opens the first part before the others stand",
            "gateway/enforce/kubearmor/parts.py",
            "        if not await wire.push(parts.closed):\n",
            "        if not await wire.push(parts.policies[0]):\n",
        ),
    ),
    "Allow for the whole drops everything else of the host": (
        Edit(
            "the whole allows",
            POLICIES,
            '"action": "Block"}\n        if self.message:',
            '"action": "Allow"}\n        if self.message:',
        ),
    ),
    "Applied although the table of 256 entries is full": (
        Edit("a table without an end", VOCABULARY, "TABLE_ENTRIES = 256\n", "TABLE_ENTRIES = 256_000\n"),
        Edit(
            "a directory without its ancestors",
            BUDGET,
            '    return "/".join(parts[:-1]), directory, *ancestors\n',
            '    return "/".join(parts[:-1]), directory\n',
        ),
        Edit("our own policy of any size", HOST, "    if policy.cost > budget:\n", "    if False:\n"),
    ),
    "patterns, and capabilities of hosts, are ignored in silence": (
        Edit(
            "warns and sends",
            VALIDATE,
            "    return finding.severity is Severity.ERROR or finding.code in UNENFORCED\n",
            "    return finding.severity is Severity.ERROR\n",
        ),
        Edit("takes what it does not know", HOST, "        if key not in known:\n", "        if False:\n"),
    ),
    "paths are cut at 199 bytes, directories searched for in 64": (
        Edit(
            "our own rules of any length", POLICIES, "        if len(self.path) > limit:\n", "        if False:\n"
        ),
        Edit("paths of any length", VOCABULARY, "MAX_PATH = 199\n", "MAX_PATH = 4096\n"),
        Edit("directories of any length", VOCABULARY, "MAX_DIRECTORY = 64\n", "MAX_DIRECTORY = 4096\n"),
    ),
    "container names are expressions": (
        Edit(
            "sends them as books write them",
            ANCHOR,
            'return name if plain is None else f"{plain[1]}$|={plain[1]}[$][|]"',
            "return name",
        ),
        Edit(
            "sends them without their end",
            ANCHOR,
            'return name if plain is None else f"{plain[1]}$|={plain[1]}[$][|]"',
            "return name if plain is None else plain[1]",
        ),
    ),
}
