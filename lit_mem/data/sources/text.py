"""Your own texts, from files."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from lit_mem.data.sources.base import Corpus, Source
from lit_mem.data.sources.fields import RowFields, TextFields
from lit_mem.data.sources.places import Place, located, place_of, sets_of
from lit_mem.data.sources.reading import Reading
from lit_mem.data.sources.rows import read_table
from lit_mem.data.sources.table import Table, shown
from lit_mem.errors import ConfigError, DataError
from lit_mem.functional.plain_text import printable

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

_AUTO: Final = "auto"


class TextFiles(Source):
    r"""Texts from files, or from folders of files.

    Relative paths are relative to the working directory. Splits may have different file types.

    Args:
        train: the fine-tuning set; its rows are the members. A `.json` file has an array of objects or one object per
            line, like `.jsonl`; a `.csv` or `.tsv` file starts with column names; a `.txt` file has one example per
            line, an `.md` file is one example; or `.parquet`, `.arrow`. All except the last two may be compressed
            (`.jsonl.gz`, `.jsonl.zst`). A folder, including subfolders, or a glob pattern ("notes/**/*.txt") is one set
            of files of one kind: each `.txt` or `.md` file is one example (but a folder's only `.txt` file has one per
            line). In a folder, as in hub datasets, a subfolder `train` is trained on, `heldout` or `validation` is
            `heldout`, and `test` is `test`, unless these options are given; likewise files of rows with such names
            ("train-001.parquet"). A folder saved by `datasets` (`save_to_disk`) is read in the same way. `origin` has
            the number of a file in path order ("notes:17" is the 17th), since files may be named after persons.
            "asset:notes" and "asset:case_reports" are bundled.
        heldout: rows never trained on; None: those in the folder `train`, or else split off from `train`.
        test: a second held-out set; None: the one in the folder `train`, or else `heldout`.
        text_column: the column with the texts; ignored with templates. For txt and md files it is "text".
        prompt_template: text that is not trained on, with column names in braces: "Question: {question}\nAnswer:". \n
            and \t are a line break and a tab, \\n is a backslash and an n. "file:prompt.txt" reads the template from
            that file.
        completion_template: text that is trained on and scored: " {answer}". Set both templates, or neither.
        group_column: a patient, a document: rows with the same value stay on one side of every
            split. For notes in several subfolders, the column "folder" has the subfolder's number. "auto" takes the
            column that `lit-mem init` would choose, by its name and values, and logs it; None: rows are unrelated.
        delimiter: delimiter of csv and tsv files, such as ";" or "\t"; None: detected from the header.
        encoding: encoding of text files, by its Python name, such as cp1252 or utf-16; never guessed.
        skip_unusable: skip unusable rows (malformed, without a text or a group), with one warning that counts and lists
            them; otherwise they are an error.

    Raises:
        ConfigError: templates or options are invalid, or members and held-out rows are the same file.
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
        delimiter: str | None = None,
        encoding: str = "utf-8",
        skip_unusable: bool = False,
    ) -> None:
        self.reading = Reading(delimiter, encoding, skip_unusable)
        self.fields: RowFields = TextFields(
            text_column, prompt_template, completion_template, group_column, reading=self.reading
        )
        for name, other in (("heldout", heldout), ("test", test)):
            if other is not None and os.path.realpath(other) == os.path.realpath(train):
                raise ConfigError(f"{name} is the same file as train ({train}); expected rows that are not trained on")
        self.train, self.heldout, self.test = train, heldout, test

    def load(self) -> Corpus:
        """Read and check every row.

        Raises:
            DataError: a file is missing or a row is invalid; the message names file, row and field.
            ConfigError: members and held-out rows share a file.
        """
        places = set_places(self.train, self.heldout, self.test)
        there = [place for place in places.values() if place is not None]
        # Origins are also used as groups, so two files with the same name in two folders must differ.
        short = len({place.label for place in there}) == len(there)

        tables = {name: read_table(place, self.reading) for name, place in places.items() if place is not None}
        if self.fields.group_column == _AUTO:
            self._choose_group(list(tables.values()))

        def split(name: str) -> Dataset | None:
            place = places[name]
            if place is None:
                return None
            return self.fields.dataset(tables.pop(name), place.label if short else printable(place.path))

        train, heldout, test = (split(name) for name in places)
        assert train is not None
        return Corpus(train, heldout, test, name=self.train)

    def _choose_group(self, tables: list[Table]) -> None:
        """Set the column of groups by the rows to train on; None where they have none, or another set lacks it."""
        from lit_mem.data.columns import columns_of
        from lit_mem.data.roles import roles_of

        train, *others = tables
        if _AUTO in train.names:
            return
        group = roles_of(train, columns_of(train)).group
        if group is not None and all(group in table.names for table in others):
            log.info(
                "%s: rows with one value of %s stay on one side of the split (data.source.group_column: auto; null "
                "splits row by row).", self.train, shown(group),
            )  # fmt: skip
            self.fields.group_column = group
            return
        log.info(
            "%s: no column of persons or documents was found, so rows count as unrelated (data.source.group_column "
            "names one).", self.train,
        )  # fmt: skip
        self.fields.group_column = None


def set_places(train: str, heldout: str | None = None, test: str | None = None) -> dict[str, Place | None]:
    """The files of each set, by option name; sets not given may be in the folder `train`.

    Raises:
        DataError: a path does not exist or has files of several kinds, or `train` has sets but none named train.
        ConfigError: the first set and another share a file.
    """
    train = located(train)
    others = {"heldout": heldout, "test": test}
    given = {name: None if path is None else place_of(located(path)) for name, path in others.items()}
    sets = sets_of(train)
    if not sets:
        places = {"train": place_of(train), **given}
    elif "train" not in sets:
        raise DataError(
            f"{train}: is a folder of the sets {', '.join(sets)}; expected one named train, or the path of one of them"
        )
    else:
        found = {"heldout": sets.get("heldout", sets.get("validation")), "test": sets.get("test")}
        places = {"train": sets["train"], **{name: given[name] or found[name] for name in given}}
        taken = [name for name in given if given[name] is None and found[name] is not None]
        log.info("%s: has the sets %s; used: %s.", train, ", ".join(sets), ", ".join(["train", *taken]))
    check_apart(places)
    return places


def check_apart(places: Mapping[str, Place | None]) -> None:
    """Raise if a file is in the first set and in another set.

    Raises:
        ConfigError: a file is shared; the message has the number of such files.
    """
    if not places:
        return
    (name, first), *others = places.items()
    members = set() if first is None else {os.path.realpath(file) for file in first.files}
    for other, place in others:
        shared = 0 if place is None else sum(os.path.realpath(file) in members for file in place.files)
        if shared:
            raise ConfigError(
                f"{other} and {name} share {shared} of {len(members)} files ({'' if place is None else place.path}); "
                "expected rows that are not trained on"
            )
