"""Whether a policy that is read back says what was sent, whatever KubeArmor has filled in.

It fills severity, tags, message and action of the section or the whole into every rule, splits comma lists into
rules, adds ``identities`` to selectors and writes empty sections (``core/unorchestratedUpdates.go:291-690``; seen
with the daemon itself). Both sides are brought into the form in which all of that has happened. What must not live
here: reading the probe, what follows from a difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

#: What a rule takes from its section, or from the whole, when it has none of its own.
_INHERITED = ("severity", "tags", "message", "action")
_COMMA = {"matchProtocols": "protocol", "matchDNSQueries": "domain", "matchCapabilities": "capability"}
_SECTIONS = ("process", "file", "network", "capabilities", "syscalls", "device")
_SELECTORS = ("selector", "nodeSelector")


def normal(spec: Mapping[str, object]) -> bytes:
    """Return a text that is equal for two specs, of host or container policies, that enforce the same under the
    same tags."""
    whole = {key: value for key, value in spec.items() if key not in (*_SECTIONS, *_SELECTORS)}
    action = str(whole.get("action") or "block")
    whole["action"] = action.capitalize() if action in {"allow", "audit", "block"} else action
    made: dict[str, object] = dict(whole)
    for name in _SELECTORS:
        selector = spec.get(name)
        if isinstance(selector, Mapping):
            made[name] = {key: value for key, value in selector.items() if key != "identities"}
    for name in _SECTIONS:
        section = spec.get(name)
        if isinstance(section, Mapping):
            made[name] = _section(section, whole)
    return msgspec.json.encode(_without_empty(made), order="deterministic")


def _section(section: Mapping[str, object], whole: Mapping[str, object]) -> dict[str, object]:
    made = {key: value for key, value in section.items() if not isinstance(value, list) or key in _INHERITED}
    for key, rules in section.items():
        if isinstance(rules, list) and key not in _INHERITED:
            found = [
                _without_empty({**rule, **{each: _nearest(each, rule, section, whole) for each in _INHERITED}})
                for given in rules
                for rule in _expanded(key, given)
            ]
            made[key] = sorted(found, key=lambda rule: msgspec.json.encode(rule, order="deterministic"))
    return made


def _nearest(key: str, *holders: Mapping[str, object]) -> object:
    return next((holder[key] for holder in holders if holder.get(key)), None)


def _expanded(key: str, rule: object) -> Iterator[dict[str, object]]:
    """One rule for each word of a comma list."""
    one = dict(rule) if isinstance(rule, Mapping) else {"": rule}
    field = _COMMA.get(key, "")
    words = one.get(field)
    if not isinstance(words, str):
        yield one
        return
    for word in words.split(","):
        yield {**one, field: word.replace(" ", "")}


def _without_empty(value: object) -> object:
    """Go's encoder leaves out what is empty, or writes it empty; ``pts: false`` has a meaning of its own."""
    if isinstance(value, Mapping):
        made = {key: _without_empty(each) for key, each in value.items()}
        return {key: each for key, each in made.items() if each or (key == "pts" and each is False)}
    if isinstance(value, list):
        return [_without_empty(each) for each in value]
    return value
