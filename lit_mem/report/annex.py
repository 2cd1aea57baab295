"""The annex: what a data-protection officer files of a run, as plain data that page, Markdown and JSON share.

Its order follows EDPB Opinion 28/2024 (adopted on 17 December 2024), paragraphs 43, 46, 55 and 58; each section names
those that it answers. It documents tests. It does not decide whether a model is anonymous or may be released.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lit_mem.errors import ConfigError
from lit_mem.files.facts import Facts
from lit_mem.functional.planning import Scored
from lit_mem.report.annex_sections import sections
from lit_mem.report.attacks import as_rows, not_tried, tried
from lit_mem.report.contexts import release_of, threat_model
from lit_mem.report.counts import counts_of
from lit_mem.report.history import History

STANDARD: Final = "EDPB Opinion 28/2024, adopted on 17 December 2024"
_LONGEST: Final = 200


@dataclass(frozen=True)
class Filing:
    """What the person who files an annex states.

    Attributes:
        release: where the model goes: "weights", "api" or "internal"; None: not stated.
        author: who ran the test; None: not stated.

    Raises:
        ConfigError: the release is unknown, or the author is not one line of 1 to 200 characters.
    """

    release: str | None = None
    author: str | None = None

    def __post_init__(self) -> None:
        release_of(self.release)
        if self.author is not None and not (0 < len(self.author.strip()) <= _LONGEST and self.author.isprintable()):
            raise ConfigError(
                f"--author is {self.author!r:.60}; expected a name in one line of 1 to {_LONGEST} characters"
            )


def annex_of(
    report: Mapping[str, Any], history: History, facts: Facts | None, scored: Scored | None, filing: Filing
) -> dict[str, Any]:
    """The annex of a run.

    Args:
        report: the other parts of it.
        history: of the run.
        facts: of the run; None: not recorded.
        scored: how many texts were scored; None: not known.
        filing: what the person who files it states.

    Returns:
        Facts for machines, and `sections` in words: id, title, paragraphs (of the opinion), text (sentences), columns
        and rows (of a table; empty without one).
    """
    names = history.names
    measured = set() if history.last is None else {name for name in names if history.last.get(name) is not None}
    found: dict[str, Any] = {
        "standard": STANDARD,
        "release": filing.release,
        "author": filing.author,
        "started": None if facts is None else facts.started,
        "software": None if facts is None else dict(facts.versions),
        "base": base_of(facts),
        "data": data_of(facts),
        "counts": counts_of(facts, history, scored, report["persons"]),
        "threat_model": threat_model(filing.release, measured),
        "tried": as_rows(tried(names)),
        "not_tried": as_rows(not_tried(names, history.absent)),
    }
    return found | {"sections": sections(found, report, history)}


def base_of(facts: Facts | None) -> dict[str, Any] | None:
    """Name, revision and fingerprint of the base model; of a path only its last part."""
    if facts is None or (not facts.base and not facts.fingerprint):
        return None
    from lit_mem.audit.card_facts import public_name  # loads torch

    name = public_name(facts.base) if facts.base else None
    return {"name": name, "revision": facts.revision, "fingerprint": dict(facts.fingerprint)}


def data_of(facts: Facts | None) -> dict[str, Any] | None:
    """Keyed digests of both sets, with the salt that went into them; None where there are none."""
    if facts is None or facts.members.digest is None:
        return None
    return {
        "of": facts.digest_of,
        "members": facts.members.digest,
        "heldout": facts.heldout.digest,
        "salt": facts.digest_salt,
        "key": facts.digest_key,
    }
