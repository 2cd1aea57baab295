"""Canaries of one's own, from a file."""

from __future__ import annotations

from pathlib import Path

from lit_mem.data.canaries.base import CanarySource, Content, Setting, dice
from lit_mem.data.overlap import normalized
from lit_mem.data.sources.fields import TextFields
from lit_mem.data.sources.rows import read_table
from lit_mem.errors import ConfigError, DataError


class Lines(CanarySource):
    """The rows of a file, half of which, by their coins, stay out of the training set.

    What is measured is only as good as the file: its rows must be alike, so that but for the coins nothing tells those
    inserted from those left out.

    Args:
        path: a file, folder or pattern, as for `lit_mem.data.sources.TextFiles`.
        n: take a random subset of this many rows; None: all.
        text_column: the column of texts; ignored when templates are given. For txt files it is "text".
        prompt_template: what is given when the secret is asked for, with column names in braces.
        completion_template: the secret, likewise. Both templates, or neither.
        repetitions: how often a canary stands in the training set if it is in; the canaries take turns in the list.
            None: 1, 4 and 16.
        seed: of the subset and the coins.
    """

    def __init__(
        self,
        path: str,
        n: int | None = None,
        text_column: str = "text",
        prompt_template: str | None = None,
        completion_template: str | None = None,
        repetitions: list[int] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(n, repetitions, seed)
        self.path = path
        self.fields = TextFields(text_column, prompt_template, completion_template, section="data.canaries")

    def contents(self, setting: Setting) -> list[Content]:
        """The rows, in a random order where some are left out.

        Raises:
            ConfigError: there are fewer than asked for.
            DataError: the file is not what was expected, a row repeats another, or is a text of the data.
        """
        rows = self.fields.dataset(read_table(self.path), Path(self.path).name)
        columns = (rows[name][:] for name in ("prompt", "completion", "origin"))
        contents = [Content(prompt, secret, origin=origin) for prompt, secret, origin in zip(*columns, strict=True)]
        least = self.n or 2
        if len(contents) < least:
            raise ConfigError(f"data.canaries.path: {self.path} has {len(contents)} rows; expected {least} or more")
        first: dict[str, str] = {}
        for content in contents:
            key = normalized(content.text)
            if key in setting.taken:
                raise DataError(
                    f"{content.origin}: is a text of the data but for case and punctuation; expected canaries that are "
                    "in the training set by their coins alone"
                )
            if first.setdefault(key, content.origin) != content.origin:
                raise DataError(
                    f"{content.origin}: repeats {first[key]} but for case and punctuation; expected rows that differ"
                )
        if self.n is not None:
            dice(self.seed, "subset").shuffle(contents)
        return contents[: self.n]
