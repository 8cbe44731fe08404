"""The pages for senders: their commands and programs run as they stand, and the table of sources is the code's."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.core.model import Presented
from gateway.verdicts import FORMATS, Algorithm, Format, Proof, VerdictAuthenticator
from tests.intake.rest.site import place_of, posting_site
from tests.posting import key_for, sign
from tests.verdicts.bench import Bench

ROOT = Path(__file__).parent.parent


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page."""
    text = (ROOT / "docs" / page).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.skipif(not shutil.which("curl") or not shutil.which("openssl"), reason="needs curl and openssl")
def test_the_examples_for_relying_parties_work(tmp_path: Path) -> None:
    site = posting_site(tmp_path)
    place = "{}:{}".format(*place_of(site))
    keys, post = blocks("rest.md", "sh")
    (program,) = blocks("rest.md", "python")

    def run(*argv: str) -> str:
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("bash", "-eu", "-c", keys)
    site.settings["sources"] = [
        {**each, "certificates": ["dns:rp.example"]} if each["name"] == "rp" else each
        for each in site.settings["sources"]
    ]
    site.write("ragate.yaml", site.settings)
    with site.running() as service:
        said = run("bash", "-eu", "-c", post.replace("gateway.example:8443", place))
        assert '"state":"verified"' in said
        assert service.standing("cam-1") == "trusted"
        host, _, port = place.partition(":")
        program = program.replace('"gateway.example", 8443', f'"{host}", {port}')
        said = run(sys.executable, "-c", program)
        assert said.startswith("(202"), said
        service.wait("cam-1", "distrusted")


def test_the_settings_of_the_page_are_those_of_the_reader(tmp_path: Path) -> None:
    import yaml

    from gateway.config.posting import DOOR_KEYS, LIMIT_KEYS, POSTER_KEYS

    (text,) = blocks("rest.md", "yaml")
    shown = yaml.safe_load(text)
    assert set(shown["doors"]["rest"]) == set(DOOR_KEYS)
    assert set(shown["doors"]["rest"]["limits"]) == set(LIMIT_KEYS)
    assert set(shown["sources"][0]) <= set(POSTER_KEYS)


def test_the_table_of_sources_is_the_codes() -> None:
    text = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| ([a-z, ]+) \| (.*) \| (.*) \|$", text, re.MULTILINE)
    found = {name: tuple(rest) for name, *rest in rows if name in FORMATS or name == "sediment"}
    assert list(found) == ["sediment", *FORMATS]
    for name, form in FORMATS.items():
        may = "raise, lower" if form.raises else "lower"
        assert found[name] == (may, f"{form.verified}; time, replay, order", form.stolen)


def test_every_attack_has_its_tests() -> None:
    """The tests that docs/attacks.md names exist, and so do the cases that it names of them."""
    text = (ROOT / "docs" / "attacks.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`((?: \[[^]]+\])*)", text)
    assert len(named) > 40
    for file, function, cases in named:
        source = (ROOT / file).read_text()
        assert f"def {function}(" in source, f"{file}::{function}"
        for case in re.findall(r"\[([^]]+)\]", cases):
            assert f'"{case}": (' in source, f"{file}: {case}"
    rows = [line for line in text.partition("## SEDIMENT doors")[0].splitlines() if line.startswith("| ")]
    assert all(row.count(" | ") == 3 for row in rows), "an attack has a cell for each door"


def test_the_example_of_a_format_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module and the row of docs/adapters.md, run as they stand."""
    import types

    module, row = blocks("adapters.md", "python")
    line = types.ModuleType("line")
    exec(compile(module, "line.py", "exec"), line.__dict__)
    made = eval(row, {"Format": Format, "Algorithm": Algorithm, "Proof": Proof, "line": line})
    assert isinstance(made, Format)
    monkeypatch.setitem(FORMATS, "line", made)
    now = int(time.time())
    bench = Bench("line", {"k1": "Ed25519"})
    assert isinstance(bench.authenticator, VerdictAuthenticator)

    def signed(data: bytes) -> Presented:
        return Presented(False, "k1", sign(key_for("k1"), "", data))

    good = f"cam-1 good {now}\n".encode()
    assert bench.verdict(good, now, signed(good)).outcome.value == "passed"
    assert bench.refused(good, now, signed(good)) == "replay"
    assert bench.refused(good, now) == "signature"
    bad = f"cam-1 bad {now + 1}".encode()
    assert bench.verdict(bad, now + 1, signed(bad)).outcome.value == "failed"
    assert bench.refused(b"cam-1 maybe 1", now, signed(b"cam-1 maybe 1")) == "format"
    other = f"cam-9 good {now}".encode()
    assert bench.refused(other, now, signed(other)) == "device"
