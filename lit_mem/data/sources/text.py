"""Texts of one's own, from files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from lit_mem.data.sources.base import Corpus, Source
from lit_mem.data.sources.fields import RowFields, TextFields
from lit_mem.data.sources.rows import read_table
from lit_mem.errors import ConfigError
from lit_mem.functional.plain_text import printable

if TYPE_CHECKING:
    from datasets import Dataset


class TextFiles(Source):
    r"""Texts from json, jsonl, csv, parquet or txt files.

    Relative paths are relative to the working directory. Every split may be of another kind of
    file.

    Args:
        train: the file of the fine-tuning set; its rows are the members. A `.json` file is an array
            of objects or one object a line; a `.txt` file is one example a line; a `.csv` file
            starts with column names. All but parquet may be compressed (`.jsonl.gz`).
        heldout: rows never trained on; None: split off from `train`.
        test: a second held-out set; None: `heldout` serves.
        text_column: the column of texts; ignored when templates are given. For txt files it is
            "text".
        prompt_template: given and not trained on, with column names in braces: "Question:
            {question}\nAnswer:". \n and \t are a line break and a tab, \\n is a backslash and an n.
        completion_template: trained on and scored: " {answer}". Both templates, or neither.
        group_column: a patient, a document: rows with the same value stay on one side of every
            split.

    Raises:
        ConfigError: the templates are malformed, or members and held-out rows are one file.
    """

    def __init__(
        self,
        train: str,
        heldout: str | None = None,
        test: str | None = None,
        text_column: str = "text",
        prompt_template: str | None = None,
        completion_template: str | None = None,
        group_column: str | None = None,
    ) -> None:
        self.fields: RowFields = TextFields(text_column, prompt_template, completion_template, group_column)
        for name, other in (("heldout", heldout), ("test", test)):
            if other is not None and os.path.realpath(other) == os.path.realpath(train):
                raise ConfigError(f"{name} is the same file as train ({train}); expected rows that are not trained on")
        self.train, self.heldout, self.test = train, heldout, test

    def load(self) -> Corpus:
        """Read and check every row.

        Raises:
            DataError: a file is absent or a row is not what was expected; the message names file,
                row and field.
        """
        paths = (self.train, self.heldout, self.test)
        names = [printable(Path(path).name) for path in paths if path is not None]
        # Origins serve as groups too, so two files of one name in two folders must not share them.
        short = len(set(names)) == len(names)

        def split(path: str) -> Dataset:
            return self.fields.dataset(read_table(path), printable(Path(path).name if short else path))

        return Corpus(
            train=split(self.train),
            heldout=None if self.heldout is None else split(self.heldout),
            test=None if self.test is None else split(self.test),
            name=self.train,
        )
