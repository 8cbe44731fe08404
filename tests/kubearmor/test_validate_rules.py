"""The edges of the rules: where one begins, where it ends, and what must not set it off."""

from __future__ import annotations

import pytest

from gateway.kubearmor.budget import count, directory_keys
from gateway.kubearmor.check_network import duration_ok, network_of, port_number
from gateway.kubearmor.documents import ContainerDocument, HostDocument
from gateway.kubearmor.findings import Mode
from gateway.kubearmor.policies import FileRule
from gateway.kubearmor.validate import validate
from tests.kubearmor.test_validate import CLEAN, CONTAINER, HEAD, HOST, codes, judge

NETWORK = HEAD + (
    "kind: KubeArmorNetworkPolicy\nmetadata: {name: nsp-a}\nspec:\n"
    "  nodeSelector: {matchLabels: {kubearmor.io/hostname: edge-1}}\n  action: Block\n"
)
BOTH = '[{ipBlock: {cidr: 10.0.0.1/32}}, {ipBlock: {cidr: "100::/128"}}]'


def entry(text: str) -> str:
    return f"{NETWORK}  ingress:\n    - {{{text}}}\n"


def process(rule: str, head: str = CONTAINER, action: str = "Block") -> str:
    return f"{head}  process:\n    matchPaths:\n      - {rule}\n  action: {action}\n"


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("severity: 1", True),
        ("severity: 10", True),
        ("severity: 0", False),
        ('severity: "5"', False),
        ("severity: 5.5", False),
        ("message: yes", False),
        ("message: 'yes'", True),
        ("message: y", False),
        ("message: 12", False),
        ("message: 12:30", True),
        ("message: 2026-11-21", True),
        ("message: !secret x", False),
        ("tags: one", False),
        ("tags: [one, 2]", False),
        ("tags: [one, two]", True),
        ("action: block", False),
        ("process: []", False),
    ],
)
def test_types_are_those_that_the_daemon_sees(value: str, good: bool) -> None:
    text = f"{CONTAINER}  file:\n    {value}\n    matchPaths:\n      - path: /etc/passwd\n  action: Block\n"
    if value.startswith("process"):
        text = f"{CLEAN}  file: []\n"
    assert (codes(text) == []) is good


def test_the_spec_takes_an_action_in_lower_case_without_kubernetes_only() -> None:
    text = process("path: /usr/bin/nc", action="block")
    assert codes(text) == []
    assert codes(text, Mode.K8S) == ["KA-ACTION"]
    assert codes(text.replace("action: block", "action: BLOCK")) == ["KA-ACTION"]


@pytest.mark.parametrize("size", [199, 200])
def test_a_path_may_have_199_bytes(size: int) -> None:
    path = "/" + "x" * (size - 1)
    assert codes(process(f"path: {path}")) == ([] if size == 199 else ["KA-PATH-LONG"])
    accented = "/" + "é" * 99
    assert len(accented) < 199 == len(accented.encode())
    assert codes(process(f"path: {accented}")) == []


@pytest.mark.parametrize("size", [64, 65])
def test_a_directory_may_have_64_bytes(size: int) -> None:
    text = f"{HOST}  file:\n    matchDirectories:\n      - {{dir: /{'x' * (size - 2)}/, readOnly: true}}\n"
    assert codes(text + "  action: Block\n") == ([] if size == 64 else ["KA-DIR-LONG"])


@pytest.mark.parametrize("count_", [20, 21])
def test_twenty_arguments_are_allowed(count_: int) -> None:
    arguments = ", ".join(f"a{n}" for n in range(count_))
    assert codes(process(f"{{path: /bin/sh, allowedArgs: [{arguments}]}}")) == (
        [] if count_ == 20 else ["KA-ARGUMENTS"]
    )
    assert codes(process(f"{{path: /bin/sh, allowedArgs: [{'x' * 104}]}}")) == ["KA-ARGUMENTS"]


@pytest.mark.parametrize("word", ["net_raw", "cap_net_raw", "net_raw, net_admin"])
def test_capabilities_and_protocols_may_be_comma_lists(word: str) -> None:
    text = f"{CONTAINER}  capabilities:\n    matchCapabilities:\n      - capability: {word}\n  action: Block\n"
    assert codes(text) == []
    text = f"{CONTAINER}  network:\n    matchProtocols:\n      - protocol: tcp, UDP,icmp\n  action: Block\n"
    assert codes(text) == []
    assert codes(text.replace("UDP", "Udp")) == ["KA-PROTOCOL"]


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "/etc/x"])
def test_a_name_must_not_be_a_path(name: str) -> None:
    assert codes(CLEAN.replace("ksp-a", name)) == ["KA-NAME-PATH"]


@pytest.mark.parametrize("name", ['"a\\nb"', "'a\"b'", "A", "-a", "a_b", '"a b"'])
def test_a_name_must_not_carry_other_characters(name: str) -> None:
    assert codes(CLEAN.replace("ksp-a", name)) == ["KA-NAME"]


@pytest.mark.parametrize("name", ["a", "0-a", "a.b-c", "x" * 253])
def test_names_of_a_cluster_are_fine(name: str) -> None:
    assert codes(CLEAN.replace("ksp-a", name)) == []


@pytest.mark.parametrize(
    "text",
    ["10.0.0.0/33", "10.0.0.300/32", "edge.example", "10.0.0.1 } accept", "fe80::1%eth0", "10.0.0.0/255.0.0.0",
     "::/129",
     "10.0.0.1\nadd rule ip kubearmor INPUT accept", "010.0.0.1", "10.0.0.0/", " 10.0.0.1"],
)  # fmt: skip
def test_whatever_nft_would_read_otherwise_is_no_prefix(text: str) -> None:
    assert network_of(text) is None


@pytest.mark.parametrize("text", ["10.0.0.1", "10.0.0.0/8", "::/0", "2001:db8::1", "10.1.2.3/8"])
def test_addresses_and_prefixes_are(text: str) -> None:
    assert network_of(text) is not None


@pytest.mark.parametrize("text", ["0", "65536", "-1", "22 accept", "", "rtsp", "\uff12\uff12", "0x16", "22\n"])
def test_what_is_no_port(text: str) -> None:
    assert port_number(text) is None


def test_ports_and_the_four_names_that_the_daemon_knows() -> None:
    assert [port_number(word) for word in ("1", "65535", "ssh", "HTTP", "https", "dns")] == [
        1,
        65535,
        22,
        80,
        443,
        53,
    ]


@pytest.mark.parametrize(
    ("text", "good"),
    [("1h", True), ("1h30m", True), ("1.5s", True), (".5s", False), ("1s", True), ("999ms", False),
     ("1000ms", True),
     ("1 h", False), ("1d", False), ("", False), ("h", False), ("-1h", False), ("60", False), ("0.5m", True)],
)  # fmt: skip
def test_durations_of_a_second_or_more(text: str, good: bool) -> None:
    assert duration_ok(text) is good


def test_a_rule_needs_both_families_unless_it_names_none_or_is_for_containers() -> None:
    ports = 'ports: [{port: "443"}], action: Block'
    assert codes(entry(f"from: {BOTH}, {ports}")) == []
    assert codes(entry(f"from: [{{ipBlock: {{cidr: 10.0.0.1/32}}}}], {ports}")) == ["KA-NET-FAMILY"]
    assert codes(entry(f'from: [{{ipBlock: {{cidr: "2001:db8::/32"}}}}], {ports}')) == ["KA-NET-FAMILY"]
    assert codes(entry(ports)) == []


def test_blocking_everybody_is_an_error_only_where_nobody_was_allowed_before() -> None:
    block = "    - {action: Block}\n"
    allow = f'    - {{from: {BOTH}, ports: [{{port: "22"}}], action: Allow}}\n'
    assert "KA-NET-BLOCK-ALL" in codes(f"{NETWORK}  ingress:\n{block}")
    assert "KA-NET-BLOCK-ALL" not in codes(f"{NETWORK}  ingress:\n{allow}{block}")
    assert "KA-NET-BLOCK-ALL" in codes(f"{NETWORK}  ingress:\n{allow}  egress:\n{block}")
    assert "KA-NET-BLOCK-ALL" in codes(f"{NETWORK}  ingress:\n{block.replace('Block', 'block')}")
    assert "KA-NET-BLOCK-ALL" not in codes(
        f"{NETWORK}  ingress:\n{block.replace('action', 'iface: [eth0], action')}"
    )


@pytest.mark.parametrize(
    ("first", "second", "shadowed"),
    [
        ("action: Audit", f"from: {BOTH}, action: Block", True),
        (f"from: {BOTH}, action: Allow", "action: Block", False),
        ('ports: [{port: "443"}], action: Allow', 'ports: [{port: "443"}], action: Block', True),
        ('ports: [{port: "443"}], action: Allow', 'ports: [{port: "443", protocol: UDP}], action: Block', False),
        ('ports: [{port: "1", endPort: 1024}], action: Allow', 'ports: [{port: "22"}], action: Block', True),
        ('ports: [{port: "22"}], action: Allow', 'ports: [{port: "1", endPort: 1024}], action: Block', False),
        ("iface: [eth0], action: Allow", "action: Block", False),
        ("action: Allow", "iface: [eth0], action: Block", True),
        ("iface: [eth0, eth1], action: Allow", "iface: [eth1], action: Block", True),
        ('ports: [{port: "443"}], action: Allow', "action: Block", False),
    ],
)
def test_an_entry_is_shadowed_when_an_earlier_one_covers_all_of_it(first: str, second: str, shadowed: bool) -> None:
    found = codes(f"{NETWORK}  ingress:\n    - {{{first}}}\n    - {{{second}}}\n")
    assert ("KA-NET-SHADOW" in found) is shadowed


def test_entries_of_other_hosts_or_directions_do_not_shadow() -> None:
    allow = f"{NETWORK}  ingress:\n    - {{action: Allow}}\n"
    other = allow.replace("nsp-a", "nsp-b").replace("Allow", "Block")
    assert "KA-NET-SHADOW" in codes(f"{allow}---\n{other}")
    assert "KA-NET-SHADOW" in codes(f"{allow}---\n{other.replace('edge-1', chr(34) + '*' + chr(34))}")
    assert "KA-NET-SHADOW" not in codes(f"{allow}---\n{other.replace('edge-1', 'edge-2')}")
    assert "KA-NET-SHADOW" not in codes(f"{allow}---\n{other.replace('ingress', 'egress')}")


def test_the_order_matters_only_between_verdicts_that_differ() -> None:
    wide = f'{NETWORK}  ingress:\n    - {{ports: [{{port: "1", endPort: 99}}], action: Allow}}\n'
    narrow = wide.replace('"1", endPort: 99', '"443"').replace("Allow", "Block")
    meets = wide.replace('"1", endPort: 99', '"50", endPort: 200').replace("Allow", "Block")
    assert "KA-NET-ORDER" in codes(f"{wide.replace('nsp-a', 'nsp-b')}---\n{meets}")
    assert "KA-NET-ORDER" not in codes(f"{wide}---\n{meets.replace('nsp-a', 'nsp-b')}")
    assert "KA-NET-ORDER" not in codes(f"{wide.replace('nsp-a', 'nsp-b')}---\n{narrow}")
    assert "KA-NET-ORDER" not in codes(f"{wide.replace('nsp-a', 'nsp-b')}---\n{meets.replace('Block', 'Allow')}")


@pytest.mark.parametrize("directory", ["/", "/etc/", "/usr/local/share/ca-certificates/"])
def test_a_directory_costs_itself_twice_and_its_ancestors(directory: str) -> None:
    keys = directory_keys(directory)
    if directory != "/":
        assert set(keys) == FileRule(directory[:-1], directory=True, read_only=True).keys()
    assert len(directory_keys("/usr/local/share/ca-certificates/")) == 6


@pytest.mark.parametrize(
    ("section", "entries"),
    [
        ("process: {matchPaths: [{path: /a}, {path: /b}]}", 2),
        ("process: {matchPaths: [{path: /a}]}, file: {matchPaths: [{path: /a}]}", 1),
        ("process: {matchPaths: [{path: /a, fromSource: [{path: /x}, {path: /y}]}]}", 2),
        ("process: {matchPaths: [{path: /a, action: Allow}]}", 2),
        ("process: {matchPaths: [{path: /a, action: Audit}]}", 0),
        ("process: {action: Audit, matchPaths: [{path: /a}, {path: /b, action: Block}]}", 1),
        ("file: {matchDirectories: [{dir: /usr/local/share/ca-certificates/}]}", 6),
        ("file: {matchDirectories: [{dir: /a/b/}, {dir: /a/c/}]}", 6),
        ("network: {matchProtocols: [{protocol: all}]}", 7),
        ("network: {matchProtocols: [{protocol: 'tcp,udp'}]}", 2),
        ("network: {matchDNSQueries: [{domain: example.org}]}", 5),
        ("capabilities: {matchCapabilities: [{capability: net_raw}, {capability: cap_net_raw}]}", 1),
        ("file: {matchPatterns: [{pattern: /a*}]}, syscalls: {matchSyscalls: [{syscall: [open]}]}", 0),
    ],
)
def test_what_rules_cost(section: str, entries: int) -> None:
    text = CONTAINER.replace("spec:\n", "spec:\n  action: Block\n") + "".join(
        f"  {key}\n" for key in section.replace("}, file", "}|file").replace("}, syscalls", "}|syscalls").split("|")
    )
    (document,) = judge(text).documents
    assert isinstance(document, ContainerDocument)
    assert count([document.spec]) == entries


def test_a_host_has_one_dns_entry_less_and_no_capabilities() -> None:
    text = f"{HOST}  network: {{matchDNSQueries: [{{domain: a.b}}]}}\n  action: Block\n"
    (document,) = judge(text).documents
    assert isinstance(document, HostDocument)
    assert count([document.spec]) == 4


def _many(name: str, first: int, number: int, head: str) -> tuple[str, bytes]:
    rules = "".join(f"      - path: /usr/bin/x{n}\n" for n in range(first, first + number))
    text = head.replace("-a}", f"-{name}}}") + f"  process:\n    matchPaths:\n{rules}  action: Block\n"
    return f"{name}.yaml", text.encode()


def test_the_budget_is_that_of_all_documents_of_a_container() -> None:
    one, two = _many("one", 0, 200, CONTAINER), _many("two", 150, 106, CONTAINER)
    assert [each.code for each in validate([one], Mode.VM).findings] == ["KA-BUDGET-NEAR"]
    report = validate([one, two], Mode.VM)
    assert report.usages[0][1:] == (256, 256, 2)
    assert [each.code for each in report.findings] == ["KA-BUDGET-NEAR"]
    over = validate([one, _many("two", 150, 107, CONTAINER)], Mode.VM)
    assert [(each.file, each.code) for each in over.findings] == [("two.yaml", "KA-BUDGET")]


def test_documents_of_other_containers_have_tables_of_their_own() -> None:
    other = CONTAINER.replace("app: a", "app: b")
    report = validate([_many("one", 0, 190, CONTAINER), _many("two", 190, 190, other)], Mode.VM)
    assert [usage.entries for usage in report.usages] == [190, 190]
    narrower = CONTAINER.replace("app: a", "app: a, tier: edge")
    report = validate([_many("one", 0, 190, CONTAINER), _many("two", 190, 190, narrower)], Mode.VM)
    assert [usage.entries for usage in report.usages] == [190, 380]


def test_a_container_name_meets_longer_names_unless_it_is_anchored() -> None:
    def named(name: str) -> str:
        return CONTAINER.replace("app: a", f"kubearmor.io/container.name: {name}")

    loose = validate([_many("one", 0, 9, named("web")), _many("two", 9, 9, named("web-admin$"))], Mode.VM)
    assert [usage.entries for usage in loose.usages] == [9, 18]
    exact = validate([_many("one", 0, 9, named("web$")), _many("two", 9, 9, named("web-admin$"))], Mode.VM)
    assert [usage.entries for usage in exact.usages] == [9, 9]


def test_a_policy_for_every_host_counts_on_each() -> None:
    every = HOST.replace("edge-1", "'*'")
    report = validate([_many("one", 0, 9, HOST), _many("two", 9, 9, every)], Mode.VM)
    assert [(usage.subject, usage.entries) for usage in report.usages] == [("host edge-1", 18)]
    two = validate(
        [_many("one", 0, 9, HOST.replace("edge-1", "'edge-1,edge-2'")), _many("two", 9, 9, HOST)], Mode.VM
    )
    assert [(usage.subject, usage.entries) for usage in two.usages] == [("host edge-1", 18), ("host edge-2", 9)]


def test_the_same_rule_twice_is_no_conflict() -> None:
    assert codes(f"{CLEAN}---\n{CLEAN.replace('ksp-a', 'ksp-b')}") == []


def test_kinds_may_share_a_name_in_a_cluster() -> None:
    text = f"{CLEAN}---\n{process('path: /usr/bin/nc', HOST.replace('hsp-a', 'ksp-a'))}"
    assert codes(text) == ["KA-NAME-CLASH"]
    assert codes(text, Mode.K8S) == []


def test_namespaces_keep_equal_names_apart_in_a_cluster_only() -> None:
    one, two = (CLEAN.replace("name: ksp-a", f"name: ksp-a, namespace: {space}") for space in ("east", "west"))
    assert codes(f"{one}---\n{two}", Mode.K8S) == []
    assert "KA-NAME-TWICE" in codes(f"{one}---\n{two}")


def test_what_a_cluster_selects_otherwise() -> None:
    listed = CLEAN.replace("app: a", 'kubearmor.io/container.name: "[web, db]", app: a')
    assert codes(listed, Mode.K8S) == []
    assert set(codes(listed)) == {"KA-CONTAINER-LABELS", "KA-CONTAINER-REGEX"}
    assert codes(CLEAN.replace("{app: a}", "{}"), Mode.K8S) == ["KA-SELECTOR-EMPTY"]


def test_patterns_that_only_audit_are_fine() -> None:
    text = f"{CONTAINER}  file:\n    matchPatterns:\n      - pattern: /home/*/.ssh/*\n    action: Audit\n"
    assert codes(text) == ["KA-AUDIT-ONLY"]


def test_a_wrong_type_is_told_once_and_not_again_as_missing() -> None:
    assert codes(entry(f"from: {BOTH}, ports: [{{port: 443}}], action: Block")) == ["KA-TYPE"]
    assert codes(entry(f"from: {BOTH}, ports: [{{endPort: 443}}], action: Block")) == ["KA-NET-PORT-MISSING"]
    assert codes(process("path: 7")) == ["KA-TYPE"]
    assert codes(process("{path: /usr/bin/nc, fromSource: [{path: 7}]}")) == ["KA-TYPE"]
    assert codes(CLEAN.replace("{app: a}", "[app]")) == ["KA-TYPE"]
    assert codes(process("path: /usr/bin/nc", HOST.replace("{kubearmor.io/hostname: edge-1}", "7"))) == ["KA-TYPE"]


def test_an_unknown_action_of_a_network_entry_drops_and_allows_nobody() -> None:
    block = "    - {action: Block}\n"
    odd = f'    - {{from: {BOTH}, ports: [{{port: "22"}}], action: Permit}}\n'
    assert {"KA-ACTION", "KA-NET-BLOCK-ALL"} <= set(codes(f"{NETWORK}  ingress:\n{odd}{block}"))


def test_ownership_and_directories_are_no_finding_of_their_own() -> None:
    rule = "{dir: /var/lib/ragate/, recursive: true, ownerOnly: true}"
    assert codes(f"{HOST}  file:\n    matchDirectories:\n      - {rule}\n  action: Block\n") == []


def test_system_calls_may_come_from_a_directory_however_it_is_written() -> None:
    source = "fromSource: [{dir: /foo, recursive: true}]"
    text = f"{CONTAINER}  syscalls:\n    matchSyscalls:\n      - {{syscall: [unlink], {source}}}\n  action: Audit\n"
    assert codes(text) == []
