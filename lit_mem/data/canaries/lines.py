"""Your own canaries, from a file."""

from __future__ import annotations

from pathlib import Path

from lit_mem.data.canaries.base import CanarySource, Content, Setting, dice
from lit_mem.data.overlap import normalized
from lit_mem.data.sources.fields import TextFields
from lit_mem.data.sources.rows import read_table
from lit_mem.errors import ConfigError, DataError


class Lines(CanarySource):
    """The rows of a file; about half of them, by fair coins, are held out of the training set.

    The rows must be alike, so that nothing but the coin distinguishes inserted from held-out ones; otherwise the
    metrics are not valid.

    Args:
        path: a file, folder or glob pattern, as for `lit_mem.data.sources.TextFiles`.
        n: size of a random subset of the rows; None: all.
        text_column: the column with the texts; ignored with templates. For txt files it is "text".
        prompt_template: the prompt for extracting the secret, with column names in braces.
        completion_template: the secret, with column names in braces. Set both templates, or neither.
        repetitions: how often a canary is in the training set if inserted; canaries cycle through this list. None: 1, 4
            and 16.
        seed: seed of the subset and the coins.
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
        """The rows, in random order if a subset is taken.

        Raises:
            ConfigError: the file has fewer rows than n.
            DataError: the file is invalid, or a row repeats another row or a text of the data.
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
                    f"{content.origin}: is a text of the data, ignoring case and punctuation; expected canaries that "
                    "are in the training set only if their coin says so"
                )
            if first.setdefault(key, content.origin) != content.origin:
                raise DataError(
                    f"{content.origin}: repeats {first[key]}, ignoring case and punctuation; expected distinct rows"
                )
        if self.n is not None:
            dice(self.seed, "subset").shuffle(contents)
        return contents[: self.n]
