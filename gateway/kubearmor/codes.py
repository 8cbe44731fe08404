"""The list of codes that a finding can have. A code's name is stable; its words may improve.

Facts are those of the KubeArmor interface notes ("interface" and a section) at commit 510cee31, or of the custom
resource definitions published in ``deployments/CRD`` of kubearmor/KubeArmor at that commit ("schema").
What must not live here: the rules that find them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gateway.kubearmor.findings import Code, Finding, Mode, Place, Severity

#: Characters of a document that a finding repeats.
_EXCERPT = 64

_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE

_FORM = {
    "KA-KIND": Code(_E, _E, "kind is missing or misspelt", "The kind alone decides what the document is."),
    "KA-KIND-FOREIGN": Code(_N, _N, "not a KubeArmor document", "It is for another program and was not checked."),
    "KA-KIND-VM": Code(
        _E, None, "a kind that only clusters know", "A daemon without Kubernetes has no call that takes this kind."
    ),
    "KA-API-VERSION": Code(
        _N, _E, "apiVersion is missing or unknown", "A cluster refuses it; without one it is ignored."
    ),
    "KA-DUPLICATE-KEY": Code(
        _E, _E, "a key stands twice in one mapping", "The last one wins in silence and the first has no effect."
    ),
    "KA-UNKNOWN-FIELD": Code(
        _E,
        _E,
        "a field that no version knows",
        "KubeArmor drops unknown and misspelt fields in silence; the rule then does less, or more, than it says.",
    ),
    "KA-FIELD-CASE": Code(
        _W, _E, "a field in the wrong case", "The daemon reads names in any case, a cluster drops this one."
    ),
    "KA-TYPE": Code(
        _E, _E, "a value of the wrong type", "One wrong type makes the daemon refuse the whole document as Invalid."
    ),
    "KA-NULL": Code(_N, _N, "a key without a value", "It is read as absent; a rule may have been forgotten here."),
    "KA-REQUIRED": Code(
        _E,
        _E,
        "a required field is missing",
        "The published schema demands it; the engine takes empty text instead.",
    ),
    "KA-NAME": Code(
        _E,
        _E,
        "a policy name that is unsafe",
        "The daemon writes it into a file path and an nft script as it stands; a cluster takes DNS names only.",
    ),
    "KA-NAME-PATH": Code(
        _E,
        _E,
        "a policy name that is a path",
        "The daemon writes <name>.yaml as root without cleaning the name: '../' leaves its folder.",
    ),
    "KA-NAME-LONG": Code(
        _E,
        _E,
        "a policy name that is too long",
        "nft takes log prefixes up to 127 characters; a longer one makes the rules of the whole node fail.",
    ),
    "KA-NAME-CLASH": Code(
        _E,
        None,
        "two kinds share one name",
        "Without Kubernetes all kinds share one backup file per name: one is lost at the next restart.",
    ),
    "KA-NAME-TWICE": Code(_E, _E, "two documents share kind and name", "The later one replaces the earlier."),
    "KA-SIZE": Code(
        _E, _E, "a document larger than one message", "gRPC takes 4 MiB, a cluster about 1.5 MiB; more is refused."
    ),
}

_SCHEMA = {
    "KA-SEVERITY": Code(_E, _E, "severity out of range", "The schema takes 1 to 10."),
    "KA-ACTION": Code(
        _E,
        _E,
        "an action that is no action",
        "Below the spec the engine compares letter by letter: a file rule with 'block' does nothing, and a network"
        " entry with any unknown word drops.",
    ),
    "KA-PATH": Code(
        _E, _E, "a path that is not absolute, or ends with '/'", "The schema refuses it; the kernel never sees it."
    ),
    "KA-PATH-LONG": Code(
        _E, _E, "a path of more than 199 bytes", "The engine cuts it there: another path is then matched."
    ),
    "KA-PATH-DOTS": Code(
        _W, _W, "a path with '.', '..' or '//'", "The kernel reports resolved paths, so this one never matches."
    ),
    "KA-PATH-WILDCARD": Code(
        _W, _W, "a wildcard where a literal path is taken", "Paths and directories are compared byte by byte."
    ),
    "KA-PATH-NONE": Code(_E, _E, "a process rule without path or execname", "It matches nothing."),
    "KA-PATH-EXECNAME": Code(_W, _W, "both path and execname", "execname wins and the path is ignored."),
    "KA-EXECNAME": Code(_E, _E, "an execname with a '/'", "It is a bare program name; the schema refuses slashes."),
    "KA-DIR": Code(
        _E,
        _E,
        "a directory that does not start and end with '/'",
        "Without the last '/' the files below never match.",
    ),
    "KA-DIR-LONG": Code(
        _E,
        _E,
        "a directory of more than 64 bytes",
        "The kernel looks for '/' in the first 64 bytes of a path only.",
    ),
    "KA-SOURCE-EMPTY": Code(
        _E, _E, "a source without a path", "An empty source means every program: the rule is far wider than meant."
    ),
    "KA-ARGUMENTS": Code(
        _E, _E, "too many or too long allowed arguments", "The schema takes 20; the engine compares 103 bytes."
    ),
    "KA-PROTOCOL": Code(
        _E, _E, "an unknown network protocol", "The engine stores an empty key for it: the rule matches nothing."
    ),
    "KA-CAPABILITY": Code(
        _E,
        _E,
        "an unknown or wrongly spelt capability",
        "The engine looks an unknown name up as number 0, which is chown: another capability is restricted.",
    ),
    "KA-SYSCALL": Code(_E, _E, "an unknown system call", "The schema refuses it; the monitor never reports it."),
    "KA-PRESET": Code(
        _E, _E, "an unknown preset or preset action", "Presets are a closed list and only audit or block."
    ),
    "KA-DEVICE-LEVEL": Code(_E, _E, "a device level below 1", "The schema refuses it."),
    "KA-EXPRESSION": Code(
        _E,
        _E,
        "an unknown key or operator in matchExpressions",
        "The schema takes label (cluster policies also namespace), In and NotIn.",
    ),
    "KA-LEVEL": Code(_E, _E, "an unknown level", "The schema takes Pod and Policy."),
    "KA-CEL-SELECTOR": Code(
        _E, _E, "both selector and nodeSelector", "The schema refuses it: a policy is for containers or for nodes."
    ),
    "KA-CEL-QUOTA": Code(
        _E,
        _E,
        "a container network entry without limit and duration",
        "The schema refuses it: container network policies are quotas only.",
    ),
}

_ENGINE = {
    "KA-IGNORED-PATTERN": Code(
        _W,
        _W,
        "matchPatterns that should enforce",
        "The BPF enforcer has no code for patterns; only AppArmor enforces them. On most kernels nothing happens.",
    ),
    "KA-IGNORED-CAPABILITY": Code(
        _W, _W, "capabilities in a host policy", "The BPF enforcer copies process, file and network rules only."
    ),
    "KA-SYSCALL-AUDIT": Code(
        _W, _W, "system calls that should be blocked", "System calls are only audited, whatever the action says."
    ),
    "KA-APPARMOR": Code(
        _W, _W, "raw AppArmor text", "Only the AppArmor enforcer reads it; it was not checked here."
    ),
    "KA-DEVICE": Code(
        _N, _N, "device rules", "They need the daemon's USB device handler, which is off unless configured."
    ),
    "KA-DNS": Code(_N, _N, "DNS rules", "Only messages to port 53 are seen: DNS over TLS or HTTPS passes unseen."),
    "KA-PTS": Code(_N, _N, "pts: true", "Only pts: false has an effect."),
    "KA-NO-RULES": Code(_W, _W, "a policy without rules", "It does nothing."),
    "KA-AUDIT-ONLY": Code(_N, _N, "a policy that only audits", "It writes alerts and stops nothing."),
    "KA-ACTION-DEFAULT": Code(
        _N, _N, "no action anywhere", "A rule without an action on it, its section or the spec blocks."
    ),
    "KA-ALLOW": Code(
        _N,
        _N,
        "an Allow rule in a container policy",
        "It makes the whole class of access a list of what is allowed. What is not listed follows the default"
        " posture, which only audits unless configured to block.",
    ),
    "KA-ALLOW-HOST": Code(
        _W,
        _W,
        "an Allow rule in a host policy",
        "It makes every process, file or network access of the host a question of this list; with posture block the"
        " host stops working, with posture audit nothing is stopped.",
    ),
    "KA-SELECTOR-EMPTY": Code(
        _E,
        _N,
        "a container policy that selects nothing",
        "Without Kubernetes it is refused as Invalid; in a cluster it is for every pod of its namespace.",
    ),
    "KA-NODE-EMPTY": Code(
        _E, _E, "a nodeSelector without labels", "It never matches a node, yet the answer is Applied."
    ),
    "KA-NODE-LABEL": Code(
        _E,
        None,
        "a node label that no node has",
        "Without Kubernetes a node has one label, kubearmor.io/hostname; any other never matches.",
    ),
    "KA-NODE-NAME": Code(_E, _E, "a host name that is none", "It never matches, yet the answer is Applied."),
    "KA-NODE-REGEX": Code(
        _N, _N, "a host name pattern", "It is not anchored: 'edge-*' also matches 'my-edge-1' or 'edge'."
    ),
    "KA-EXPRESSION-VM": Code(
        _E, None, "matchExpressions without Kubernetes", "They are ignored; only matchLabels select."
    ),
    "KA-NAMESPACE": Code(
        _N, _N, "a namespace that has no effect", "This kind, or a daemon without Kubernetes, ignores it."
    ),
    "KA-CONTAINER-REGEX": Code(
        _W,
        None,
        "a container name that matches others too",
        "The name is a regular expression without anchors: 'web' also matches 'web-admin'.",
    ),
    "KA-CONTAINER-PATTERN": Code(
        _E, None, "a container name that is no expression", "An expression that cannot be compiled is Invalid."
    ),
    "KA-CONTAINER-LABELS": Code(
        _E, None, "kubearmor.io/container.name beside other labels", "The two together are refused as Invalid."
    ),
    "KA-CONTAINER-LIST": Code(
        None,
        _E,
        "container names that are no list",
        "In a cluster the value is a list in brackets, and its first and last characters are cut off unseen.",
    ),
    "KA-LATER-WINS": Code(
        _W,
        _W,
        "two rules for one path, program and source",
        "All rules of a container or host share one table: the later document wins and the earlier has no effect.",
    ),
    "KA-BUDGET": Code(
        _E,
        _E,
        "more than 256 table entries",
        "Each container and each host has one kernel table of 256 entries for all policies; what does not fit is"
        " lost, only a log line says so, and which entries are lost is chance.",
    ),
    "KA-BUDGET-NEAR": Code(
        _N, _N, "more than three quarters of the table", "The next policy may not fit; what does not fit is lost."
    ),
    "KA-TAG": Code(_N, _N, "a tag with a comma", "Alerts join tags with commas: it comes out as two."),
}

_NETWORK = {
    "KA-NET-FAMILY": Code(
        _E,
        _E,
        "addresses of one family only",
        "A rule is made for both families, and the family without addresses matches everybody: a block of one IPv4"
        " address drops all new IPv6 traffic of the host, an allow opens the port to all of IPv6.",
    ),
    "KA-NET-LOCKOUT": Code(
        _E,
        _E,
        "Allow as the action of the whole policy",
        "It turns the default of INPUT and OUTPUT in both families to drop, unless the host's posture is audit:"
        " DNS, time, neighbour discovery and management are cut.",
    ),
    "KA-NET-BLOCK-ALL": Code(
        _E,
        _E,
        "an entry that blocks everybody on every port",
        "Nothing stands before it that allows anybody: new management connections are cut too.",
    ),
    "KA-NET-NO-PORTS": Code(
        _N, _N, "an entry without ports", "It is for every protocol, ICMP and neighbour discovery included."
    ),
    "KA-NET-PORT-MISSING": Code(
        _E, _E, "ports without a port number", "The item is ignored, its protocol too: every protocol matches."
    ),
    "KA-NET-PORT": Code(
        _E,
        _E,
        "a port that is no port",
        "It is pasted into the nft script: an unknown name makes the rules of the whole node fail for ever, a line"
        " break adds rules of its own.",
    ),
    "KA-NET-PORT-RANGE": Code(
        _E, _E, "a port range that is none", "nft refuses it, and with it every rule of the node."
    ),
    "KA-NET-PROTOCOL": Code(
        _E,
        _E,
        "a protocol that has no ports",
        "Only TCP, UDP and SCTP have; nft refuses the others, and with them every rule of the node.",
    ),
    "KA-NET-CIDR": Code(
        _E,
        _E,
        "an address that is no prefix",
        "It is pasted into the nft script: a bad one makes the rules of the whole node fail for ever though the"
        " answer is Applied, a name is looked up in DNS, a line break adds rules of its own.",
    ),
    "KA-NET-HOST-BITS": Code(_N, _N, "an address with bits beyond its prefix", "They are ignored: it is wider."),
    "KA-NET-INTERFACE": Code(
        _E, _E, "an interface name that is none", "nft takes 15 characters without spaces or quotes; more fails."
    ),
    "KA-NET-AUDIT": Code(
        _W,
        _W,
        "Audit in a network policy",
        "It writes an alert and accepts at once: no later entry is asked, also no Block.",
    ),
    "KA-NET-SHADOW": Code(
        _W, _W, "an entry that is never reached", "The first match wins across all policies of a node."
    ),
    "KA-NET-ORDER": Code(
        _W,
        _N,
        "an order that a restart changes",
        "After a restart policies are applied in alphabetical order of their names, and the first match wins.",
    ),
    "KA-NET-QUOTA": Code(
        _W,
        _W,
        "a quota on a host",
        "It ignores addresses, ports and interfaces, counts the whole chain, and accepts everything below the limit"
        " before any later entry is asked.",
    ),
    "KA-NET-LIMIT": Code(_E, _E, "a limit that is none", "The schema takes a number and KB, MB, GB, K, M or G."),
    "KA-NET-DURATION": Code(
        _E, _E, "a duration that is none", "The quota is then left out and the entry matches like any other."
    ),
    "KA-NET-QUOTA-HALF": Code(
        _E, _E, "limit or duration alone", "The quota is left out and the entry matches like any other."
    ),
    "KA-NET-LEVEL": Code(_W, _W, "level in a host policy", "It is for container policies and ignored here."),
    "KA-NET-POD-VM": Code(
        _E,
        None,
        "a container network policy without Kubernetes",
        "Without Kubernetes the addresses of containers are unknown: no rule is made, yet the answer is Applied.",
    ),
}

#: Every code there is.
CODES: Mapping[str, Code] = MappingProxyType(_FORM | _SCHEMA | _ENGINE | _NETWORK)


class Notes:
    """The findings so far, for documents that go to ``mode``."""

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self.found: list[Finding] = []
        self._places: set[tuple[str, Place]] = set()

    def add(self, code: str, place: Place, what: str, mend: str) -> None:
        """Remember one finding, unless it is fine in this mode."""
        entry = CODES[code]
        severity = entry.severity(self.mode)
        if severity is not None:
            self._places.add((code, place))
            self.found.append(Finding(*place, severity, code, what, entry.why, mend))

    def has(self, code: str, place: Place) -> bool:
        """Whether there is such a finding at a place: what follows from it need not be told."""
        return (code, place) in self._places


def quoted(text: str) -> str:
    """Return a bounded, printable excerpt of a document's own words."""
    return repr(text if len(text) <= _EXCERPT else text[:_EXCERPT] + "…")
