"""A stamp changes with every way in which a file is replaced."""

from __future__ import annotations

import os
from pathlib import Path

from gateway.certs.stamps import stamp_of


def test_writing_replacing_and_removing_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "file"
    seen = [stamp_of((path, None))]
    path.write_text("one")
    seen.append(stamp_of((path, None)))
    path.write_text("longer")
    seen.append(stamp_of((path, None)))
    beside = tmp_path / "new"
    beside.write_text("longer")
    os.utime(beside, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    os.replace(beside, path)
    seen.append(stamp_of((path, None)))
    path.unlink()
    assert len(set(seen)) == len(seen)
    assert stamp_of((path, None)) == seen[0]
