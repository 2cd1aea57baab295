"""Detect sensitive spans that are not annotated, by your own patterns or Presidio's."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any

from lit_mem.errors import ConfigError, check_range

Found = tuple[str, int, int]
"""Kind, start and end, in characters of the text."""


class Detector(ABC):
    """Detects sensitive spans; they are counted by kind, and never printed or written."""

    @abstractmethod
    def __call__(self, text: str) -> list[Found]:
        """Kind, start and end of each span, in characters."""


class Patterns(Detector):
    r"""Your own regular expressions.

    Args:
        patterns: by kind, such as {record: 'MRN[ -]?\d{6}', mail: '\S+@\S+'}. If a pattern has a group named "piece",
            that group is the span, as in "born (?P<piece>\d{4})".

    Raises:
        ConfigError: there is no pattern, or one is malformed.

    >>> Patterns({"record": r"record (?P<piece>\d+)"})("record 6487, day 9")
    [('record', 7, 11)]
    """

    def __init__(self, patterns: dict[str, str]) -> None:
        if not patterns:
            raise ConfigError("data.detector.patterns is empty; expected at least one, such as {record: 'MRN \\d+'}")
        self.patterns: dict[str, re.Pattern[str]] = {}
        for kind, pattern in patterns.items():
            try:
                self.patterns[kind] = re.compile(pattern)
            except re.error as error:
                raise ConfigError(f"data.detector.patterns: {kind} is malformed ({error})") from error

    def __call__(self, text: str) -> list[Found]:
        """Each non-empty match."""
        found = []
        for kind, pattern in self.patterns.items():
            group = "piece" if "piece" in pattern.groupindex else 0
            for match in pattern.finditer(text):
                start, end = match.span(group)
                if start < end:
                    found.append((kind, start, end))
        return found


class Presidio(Detector):
    """Microsoft Presidio's recognizers based on patterns and checksums, without a language model (extra `pii`).

    E-mail and IP addresses, card, bank, telephone, tax and insurance numbers and the like. Names and places need a
    language model and are not detected. No network access.

    Args:
        entities: kinds to detect, by Presidio's names, such as [EMAIL_ADDRESS, US_SSN]; None: all for the language.
        language: language of the texts.
        min_score: minimum Presidio score, from 0 to 1. Context words around a span, which would raise the score, are
            not used.

    Raises:
        ConfigError: Presidio is not installed, or has no recognizer for a kind or the language.
    """

    def __init__(self, entities: list[str] | None = None, language: str = "en", min_score: float = 0.4) -> None:
        check_range("data.detector.min_score", min_score, at_least=0, at_most=1)
        self.entities, self.language, self.min_score = entities, language, min_score
        try:
            import presidio_analyzer  # noqa: F401  (only to name the extra if it is missing)
        except ImportError as error:
            raise ConfigError("data.detector Presidio needs the extra: pip install 'lit_mem[pii]'") from error
        if entities and (unknown := [one for one in entities if one not in self._known]):
            raise ConfigError(
                f"data.detector.entities has {unknown[0]!r}, which no pattern recognizer of Presidio detects for "
                f"language {language!r}; expected some of {', '.join(self._known)}"
            )
        if not self._known:
            raise ConfigError(f"data.detector.language is {language!r}, for which Presidio has no patterns")

    @cached_property
    def _recognizers(self) -> list[Any]:
        from presidio_analyzer import PatternRecognizer, RecognizerRegistry
        from presidio_analyzer.predefined_recognizers import PhoneRecognizer

        registry = RecognizerRegistry(supported_languages=[self.language])
        registry.load_predefined_recognizers(languages=[self.language])
        return [one for one in registry.recognizers if isinstance(one, PatternRecognizer | PhoneRecognizer)]

    @cached_property
    def _known(self) -> list[str]:
        return sorted({kind for one in self._recognizers for kind in one.supported_entities})

    def __call__(self, text: str) -> list[Found]:
        """Each span with a sufficient score from any recognizer, once."""
        found: dict[Found, None] = {}
        with _offline_domains():
            for recognizer in self._recognizers:
                kinds = recognizer.supported_entities
                wanted = kinds if self.entities is None else [kind for kind in kinds if kind in self.entities]
                results: Sequence[Any] = recognizer.analyze(text, wanted, None) if wanted else ()
                for one in results or ():
                    if one.score >= self.min_score:
                        found[one.entity_type, one.start, one.end] = None
        return list(found)


@contextmanager
def _offline_domains() -> Iterator[None]:
    """Presidio downloads the list of domain suffixes, unless another source is set."""
    from tldextract import tldextract as module

    before = module.TLD_EXTRACTOR
    module.TLD_EXTRACTOR = _bundled_domains()
    try:
        yield
    finally:
        module.TLD_EXTRACTOR = before


@cache
def _bundled_domains() -> Any:
    """An extractor with the list bundled with the library."""
    from tldextract import TLDExtract

    return TLDExtract(suffix_list_urls=(), cache_dir=None)
