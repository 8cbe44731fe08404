"""What the documentation names exists: metrics, rules, commands, notices, refusals; and nothing is left out."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from typer.main import get_command
from typer.testing import CliRunner

from gateway.certs import Role
from gateway.cli.commands import app
from gateway.console.facts import NOTICE_KINDS, VERDICT_BUCKETS
from gateway.core.errors import Refusal
from gateway.core.model import Standing
from tests.agentlink.pair import site_certificates
from tests.e2e.installed import Installed, until
from tests.ports import free_port

ROOT = Path(__file__).parent.parent
OPERATIONS = ROOT / "docs" / "operations.md"
RULES = ROOT / "docs" / "prometheus-rules.yaml"
FOLDERS = ("certs", "compose")
PAGES = [
    ROOT / "README.md",
    *(ROOT / folder / "README.md" for folder in FOLDERS),
    *sorted((ROOT / "docs").rglob("*.md")),
]
UNITS = sorted((ROOT / "docs" / "systemd").glob("*.service"))

METRIC = re.compile(r"\b(?:ragate|process)_[a-z0-9_]+\b(?!\.)")
#: Suffixes of samples that belong to a family of another name.
HISTOGRAM = ("_bucket", "_sum", "_count")


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Metric names and their labels, scraped from a running service."""
    port = free_port()
    site = Installed(
        tmp_path_factory.mktemp("site"),
        devices={"cam-1": ("127.7.0.1",)},
        services=[{"name": "feed", "address": "127.0.0.1", "port": port, "protocol": "tcp", "path": "routed"}],
        target={
            "path_gate": "relay",
            "relay": [{"service": "feed", "listen": f"127.0.0.1:{free_port()}"}],
            "kubearmor": {"address": f"127.0.0.1:{free_port()}", "health": "none"},
        },
        source={"feed": f"127.0.0.1:{free_port()}"},
        door=("127.0.0.1", free_port()),
        console=("127.0.0.1", free_port()),
        sediment={"forward_to": f"127.0.0.1:{free_port()}"},
    )
    relying = {"listen": f"127.0.0.1:{free_port()}", "app_server": "feed", "verifier": "127.0.0.1:8100"}
    site.settings["doors"]["relying"] = relying
    certificates = site_certificates(site.folder / "certs", "app")
    site.settings["agents"] = {"listen": f"127.0.0.1:{free_port()}"}
    site.settings["certificates"] = {
        "authority": str(certificates.authority),
        "certificate": str(certificates.certificate(Role.GATEWAY, "gw")),
        "key": str(certificates.key(Role.GATEWAY, "gw")),
    }
    cluster = {"kubeconfig": "none.yaml", "namespace": "sediment"}  # nobody is there: shown, and tried again
    site.settings["targets"] += [
        {"name": "app-server", "agent": "app"},
        {"name": "edge", "kubernetes": cluster},
    ]
    site.write("ragate.yaml", site.settings)
    with site.running(ready=False) as service:  # its agent never comes
        until(lambda: service.process.poll() is None and service.answers("cam-1"), lambda: service.log)
        text = service.get("/metrics").text
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name
            if family.type == "histogram":
                found.setdefault(name, set()).update(sample.labels)
                name = next((name.removesuffix(one) for one in HISTOGRAM if name.endswith(one)), name)
            found.setdefault(name, set()).update(set(sample.labels) - {"le"})
    return found


def documented() -> dict[str, set[str]]:
    """Metric names in the first column of the table of metrics, with their labels."""
    text = OPERATIONS.read_text().partition("\n## Metrics\n")[2].partition("\n## ")[0]
    found = {}
    for line in text.splitlines():
        if line.startswith("| `"):
            for name, labels in re.findall(r"`([a-z0-9_]+)(?:\{([a-z,]+)\})?`", line.split("|")[1]):
                found[name] = set(labels.split(",")) - {""}
    return found


def test_the_table_of_metrics_is_the_exposition(exposed: dict[str, set[str]]) -> None:
    families = {
        name: labels
        for name, labels in exposed.items()
        if not (name.endswith(HISTOGRAM) and name.removesuffix(f"_{name.rsplit('_', 1)[1]}") in exposed)
    }
    assert documented() == families


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_metric_that_a_page_names_exists(page: Path, exposed: dict[str, set[str]]) -> None:
    assert {name for name in METRIC.findall(page.read_text()) if name not in exposed} == set()


def every_rule() -> list[dict[str, Any]]:
    loaded = yaml.safe_load(RULES.read_text())
    assert set(loaded) == {"groups"}
    assert all(set(group) == {"name", "rules"} for group in loaded["groups"])
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def rules() -> list[dict[str, Any]]:
    return [rule for rule in every_rule() if "record" not in rule]


def recorded() -> dict[str, str]:
    """Expression by the name under which its result is kept."""
    found = [rule for rule in every_rule() if "record" in rule]
    assert all(set(rule) == {"record", "expr"} for rule in found)
    assert len({rule["record"] for rule in found}) == len(found)
    return {rule["record"]: rule["expr"] for rule in found}


def test_every_alert_has_the_shape_that_prometheus_wants() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names)) > 10
    for rule in rules():
        assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}, rule["alert"]
        assert re.fullmatch(r"[0-9]+[smh]", rule.get("for", "1m"))
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert rule["annotations"]["summary"]
        expr = re.sub(r'"[^"]*"', '""', rule["expr"])
        for opening, closing in ("()", "[]", "{}"):
            assert expr.count(opening) == expr.count(closing), rule["alert"]


def test_every_rule_asks_for_series_that_exist(exposed: dict[str, set[str]]) -> None:
    closed = {
        "reason": {refusal.value for refusal in Refusal},
        "kind": set(NOTICE_KINDS),
        "standing": {standing.label for standing in Standing},
    }
    known = recorded()
    for rule in every_rule():
        where = rule.get("alert") or rule["record"]
        series = re.findall(r"((?:ragate|process)_[a-z0-9_]+)(?:\{([^}]*)\})?", rule["expr"])
        kept = re.findall(r"ragate:[a-z0-9_:]+", rule["expr"])
        assert set(kept) <= set(known), where
        assert series or kept or rule["expr"].startswith("up{"), where
        for name, selector in series:
            assert name in exposed, where
            for label, value in re.findall(r'([a-z]+)(?:=~|!=|=)"([^"]*)"', selector):
                assert label in exposed[name], where
                assert label not in closed or set(value.split("|")) <= closed[label], where


SECONDS = {"m": 60, "h": 3_600, "d": 86_400}


def seconds(window: str) -> int:
    return int(window[:-1]) * SECONDS[window[-1]]


def test_the_share_of_late_verdicts_is_counted_at_a_bound_that_the_histogram_has() -> None:
    for name, expr in recorded().items():
        window = name.rpartition("_")[2]
        assert set(re.findall(r"\[(\w+)\]", expr)) == {window}, name
        (bound,) = re.findall(r'_bucket\{le="([0-9.]+)"\}', expr)
        assert float(bound) in VERDICT_BUCKETS
        assert bound == str(float(bound)), "as the exposition writes it"


def test_each_burn_rate_is_asked_of_a_long_window_and_a_twelfth_of_it() -> None:
    """As the site reliability workbook has it: the share of a month's budget that is spent when it rings."""
    one = r"ragate:verdicts_late:ratio_(\w+) > ([0-9.]+) \* 0.01"
    pair = rf"\({one} and {one}\)"
    spent = {}
    for rule in rules():
        for long, factor, short, again in re.findall(pair, rule["expr"]):
            assert factor == again
            assert seconds(long) == 12 * seconds(short)
            spent[long] = float(factor) * seconds(long) / seconds("30d")
    assert {long: round(share, 3) for long, share in spent.items()} == {
        "1h": 0.02,
        "6h": 0.05,
        "1d": 0.1,
        "3d": 0.1,
    }


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_the_rules() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_is_in_the_runbook_and_the_other_way_round() -> None:
    text = OPERATIONS.read_text().partition("\n## Alerts\n")[2].partition("\n## ")[0]
    assert {rule["alert"] for rule in rules()} == set(re.findall(r"\bRagate[A-Za-z]+\b", text))
    mentioned = set(re.findall(r"\bRagate[A-Za-z]+\b", OPERATIONS.read_text()))
    assert mentioned == {rule["alert"] for rule in rules()}


def test_every_notice_and_every_refusal_has_an_entry() -> None:
    text = OPERATIONS.read_text()
    assert re.findall(r"^### Notice (\S+)$", text, re.MULTILINE) == list(NOTICE_KINDS)
    table = text.partition("\n## Refusals\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `([a-z]+)` \|", table, re.MULTILINE) == [refusal.value for refusal in Refusal]


def anchor(heading: str) -> str:
    """How a heading is linked to."""
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = {anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, place = target.partition("#")
        if "://" in target:
            continue
        assert not path or (page.parent / path).exists(), target
        assert path or place in headings, target


# --- commands ----------------------------------------------------------------------------------------------------


def command_lines() -> Iterator[Any]:
    """Every ``ragate …`` in code of a page and in the unit files."""
    for page in PAGES:
        text = page.read_text()
        blocks = re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL)
        code = [line for block in blocks for line in block.splitlines()]
        code += re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        for line in code:
            if re.match(r"\s*ragate [a-z]", line):
                yield pytest.param(line.strip(), id=f"{page.name}: {line.strip()[:50]}")
    for unit in UNITS:
        for line in re.findall(r"^Exec.*bin/ragate (.+?)(?: >|$)", unit.read_text(), re.MULTILINE):
            yield pytest.param(f"ragate {line}", id=f"{unit.name}: {line[:50]}")


LINES = list(command_lines())


def test_command_lines_were_found() -> None:
    assert len(LINES) > 10


@pytest.mark.parametrize("line", LINES)
def test_every_command_line_parses(line: str) -> None:
    """Its words are a command's, and its options and arguments are taken by that command's own parser."""
    words = shlex.split(line, comments=True)[1:]
    command: Any = get_command(app)
    path = []
    while getattr(command, "commands", None) is not None:
        assert words, f"{line}: no subcommand"
        assert words[0] in command.commands, f"{line}: no command {words[0]!r}"
        path.append(words[0])
        command = command.commands[words.pop(0)]
        if not words and getattr(command, "commands", None) is not None:
            break
    assert CliRunner().invoke(app, [*path, "--help"]).exit_code == 0
    if getattr(command, "commands", None) is None and words:
        with command.make_context(path[-1], words, resilient_parsing=False):
            pass


# --- units -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_are_hardened_and_hold_no_unknown_section(unit: Path) -> None:
    lines = [line for line in unit.read_text().splitlines() if line and not line.startswith("#")]
    assert {line for line in lines if line.startswith("[")} == {"[Unit]", "[Service]", "[Install]"}
    settings = dict(line.split("=", 1) for line in lines if "=" in line)
    assert settings["CapabilityBoundingSet"] == "CAP_NET_ADMIN"
    assert settings["NoNewPrivileges"] == "yes"
    assert settings["ProtectSystem"] == "strict"
    assert "WatchdogSec" not in settings  # nothing feeds it
