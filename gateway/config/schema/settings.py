"""The schema of the main settings file.

What lives here: the file as a whole, its sources and targets. What must not: the shapes of its doors.
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.config import clusters, posting, remotes, sources, targets
from gateway.config.keyfiles import UNSAFE
from gateway.config.schema.doors import doors_section
from gateway.config.schema.shapes import (
    DURATION,
    ENDPOINT,
    NAME,
    TEXT,
    TRUTH,
    Schema,
    choice,
    either,
    exactly,
    file_of,
    list_of,
    section,
    whole,
)
from gateway.config.values import PASSES_MOST, Places
from gateway.verdicts import FORMATS, Algorithm, Proof


def settings_schema() -> Schema:
    """The main settings file, ``ragate.yaml``."""
    values = {
        "journal": TEXT,
        "console": exactly({"listen": ENDPOINT, "hosts": list_of(TEXT)}),
        "operator": exactly({"socket": TEXT, "group": NAME}),
        "doors": doors_section(),
        "sources": list_of(either(_source(), _poster())) | {"minItems": 1},
        # Of this host, of an agent's, or a cluster: which keys go together the reader says.
        "targets": list_of(exactly({**_remote(), **_cluster(), **_target()}, ("name",))) | {"minItems": 1},
        "inventory": TEXT,
        "book": TEXT,
        "management": list_of(TEXT),
        "sealing": exactly({"file": TEXT, "credential": TEXT}) | {"minProperties": 1, "maxProperties": 1},
        "doctor": exactly(dict.fromkeys(Places._fields, list_of(TEXT))),
        "agents": exactly({"listen": ENDPOINT}, ("listen",)),
        "certificates": exactly(dict.fromkeys(remotes.CERTIFICATE_KEYS, TEXT), remotes.CERTIFICATE_KEYS[:3]),
    }
    need = ("doors", "sources", "targets", "inventory", "book")
    return file_of("The main settings file of ragate", exactly(values, need))


def _source() -> Schema:
    """A source of format sediment."""
    api = {"address": ENDPOINT, "requests": whole(sources.REQUESTS_MOST), "per": DURATION}
    values: Mapping[str, Schema] = {
        "name": NAME,
        "format": choice(("sediment",)),
        "public_key": TEXT,
        "verifier_id": TEXT | {"minLength": 1, "maxLength": sources.VERIFIER_ID},
        "peers": list_of(TEXT),
        "max_age": DURATION,
        "grace": DURATION,
        "recovery_passes": whole(PASSES_MOST),
        UNSAFE: TRUTH,
        "feed": ENDPOINT,
        "api": either(ENDPOINT, exactly(api, ("address",))),
    }
    return exactly(values, ("name", "format", "public_key", "verifier_id"))


def _target() -> dict[str, Schema]:
    """The target of this host."""
    return {
        "name": NAME,
        "required": TRUTH,
        "path_gate": choice(targets.GATES),
        "lease": DURATION,
        "relay": list_of(exactly({"service": NAME, "listen": ENDPOINT}, ("service", "listen"))),
        "kubearmor": _kubearmor(),
    }


def _remote() -> dict[str, Schema]:
    """A target that an agent enforces on."""
    return {
        "name": NAME,
        "agent": NAME,
        "required": TRUTH,
        "lease": DURATION,
        "services": list_of(NAME) | {"minItems": 1},
        "relays": list_of(TEXT),
    }


def _kubearmor() -> Schema:
    """KubeArmor on the same host."""
    tls = dict.fromkeys(remotes.KUBEARMOR_TLS_KEYS, TEXT)
    values: Mapping[str, Schema] = {
        "address": TEXT,
        "logs": TEXT,
        "health": TEXT,
        "tables": choice(remotes.TABLES),
        "record": {"type": "string", "pattern": "^/"},
        "streams": list_of(choice(remotes.STREAMS)),
        "tls": section(remotes.KUBEARMOR_TLS_KEYS, tls, remotes.KUBEARMOR_TLS_KEYS[:3]),
    }
    return section(remotes.KUBEARMOR_KEYS, values)


def _cluster() -> dict[str, Schema]:
    """A target that is a cluster."""
    labels = {
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"pattern": f"^{clusters.LABEL_KEY}$"},
        "additionalProperties": {"type": "string", "pattern": f"^{clusters.LABEL}$"},
    }
    values: Mapping[str, Schema] = {
        "kubeconfig": TEXT,
        "in_cluster": TRUTH,
        "context": TEXT,
        "namespace": {"type": "string", "pattern": f"^{clusters.NAMESPACE}$"},
        "owner": {"type": "string", "pattern": f"^{clusters.LABEL}$"},
        "nodes": labels,
        "services": list_of(NAME) | {"minItems": 1},
    }
    return {"kubernetes": section(clusters.KUBERNETES_KEYS, values, ("namespace",))}


def _poster() -> Schema:
    """A source that posts its results. What its format, proof and keys must be to one another the reader says."""
    key = {"id": TEXT, "algorithm": choice([each.value for each in Algorithm]), "file": TEXT}
    subjects = dict.fromkeys(word for form in FORMATS.values() for word in form.subjects)
    values: Mapping[str, Schema] = {
        "name": NAME,
        "format": choice(list(FORMATS)),
        "proof": choice([each.value for each in Proof]),
        "keys": list_of(exactly(key, ("id", "file"))) | {"maxItems": posting.KEYS},
        "certificates": list_of(TEXT | {"pattern": posting.CERTIFICATE}),
        "subject": choice(list(subjects)),
        "zone": TEXT,
        "max_age": DURATION,
        "grace": DURATION,
        "recovery_passes": whole(PASSES_MOST),
        "rate": whole(posting.RATE_MOST),
    }
    return section(posting.POSTER_KEYS, values, ("name", "format"))
