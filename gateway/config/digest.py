"""The digest of a book: of its file and of every file of the profiles that it names.

What lives here: reading those bytes again. What must not: what they mean.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from gateway.config.document import SMALL_FILE, read_bytes
from gateway.core.policy import Book


def book_digest(path: Path, book: Book, places: Mapping[str, str]) -> str:
    """Return sha256 over the names and bytes of all files of a book, in hexadecimal.

    ``places`` are where the reader found its parts. Raises ``ConfigError`` for a file that cannot be read now.
    """
    home = path.absolute().parent
    files = [path.absolute()]
    for name, profile in sorted(book.profiles.items()):
        place = places.get(f"profile {name}")
        if place is not None:
            files.append(Path(place.rsplit(":", 2)[0]))
        files += map(Path, profile.documents)
    digest = hashlib.sha256()
    for file in files:
        data = read_bytes(file, SMALL_FILE)
        name = str(file.relative_to(home)) if file.is_relative_to(home) else str(file)
        digest.update(f"{name}\0{len(data)}\0".encode("utf-8", "surrogateescape"))
        digest.update(data)
    return digest.hexdigest()
