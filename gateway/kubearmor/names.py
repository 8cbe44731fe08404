"""Names of policies: unique on a node, safe as file name and in an nft log prefix.

What must not live here: what a policy contains.
"""

from __future__ import annotations

import hashlib
import re
from enum import Enum

from gateway.core.errors import RagateError


class DocumentRefused(RagateError):
    """A policy document that must not be sent. The text names the rule and, where there is one, the mend."""


#: KubeArmor concatenates the name into a file path and into an nft log prefix without escaping either
#: (interface 1.6, 4.3), so only characters that are harmless in both are used.
_NAME = re.compile(r"[a-z0-9-]{1,63}\Z")

#: Longest name; KubeArmor's nft log prefix allows 108 characters, DNS labels and people 63.
MAX_NAME = 63

_MAX_SLUG = MAX_NAME - len("00--") - len("-00000000")

#: What comes behind the order in a name; the kinds of document; the last is for clusters alone.
WORDS = ("host", "network", "container", "cluster")


class Kind(Enum):
    """The kinds of policy that are used here. All kinds share one name space on disk (interface 1.6)."""

    HOST = "host"
    NETWORK = "network"
    CONTAINER = "container"


def check_name(name: str) -> str:
    """Return ``name``, or raise ``DocumentRefused``: 1 to 63 of a-z, 0-9 and the hyphen."""
    if not _NAME.match(name):
        msg = f"policy name {name[:80]!r}: use 1 to {MAX_NAME} of a-z, 0-9 and the hyphen"
        raise DocumentRefused(msg)
    return name


def policy_name(order: int, kind: Kind, slug: str, identity: str) -> str:
    """Return ``<order>-<kind>-<slug>-<8 hex of sha256(identity)>``.

    ``order`` is 10 to 99: after a restart KubeArmor applies policies in alphabetical order and the first match
    wins, so two digits keep the alphabet equal to the intended order. ``slug`` is any text for people; it is
    lowered, cleaned and cut. ``identity`` tells apart what the slug does not. Raises ``DocumentRefused``.
    """
    return document_name(order, kind.value, slug, identity)


def document_name(order: int, word: str, slug: str, identity: str) -> str:
    """As ``policy_name``, for one of ``WORDS``. Raises ``DocumentRefused``."""
    if not 10 <= order <= 99 or word not in WORDS:
        msg = f"policy order {order}: use 10 to 99, so that alphabetical order is the intended order"
        raise DocumentRefused(msg)
    clean = re.sub(r"[^a-z0-9]+", "-", slug.lower()).strip("-")
    clean = clean[: _MAX_SLUG - max(len(word), len(Kind.NETWORK.value))].rstrip("-")
    digest = hashlib.sha256(identity.encode()).hexdigest()[:8]
    return check_name("-".join(part for part in (str(order), word, clean, digest) if part))
