"""Texts from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lit_mem.data.sources.base import Corpus, Source
from lit_mem.data.sources.chat_fields import ChatFields
from lit_mem.data.sources.chat_forms import ChatForm
from lit_mem.data.sources.fields import RowFields, TextFields
from lit_mem.data.sources.local_sets import local_sets, local_split
from lit_mem.data.sources.reading import Reading
from lit_mem.data.sources.table import Table
from lit_mem.errors import ConfigError, DataError
from lit_mem.functional.plain_text import printable

if TYPE_CHECKING:
    from datasets import Dataset


class HubDataset(Source):
    r"""Texts from a dataset on the hub, or from a local folder that `datasets.load_dataset` supports.

    A local folder of several `.txt` or `.md` files is read as by `TextFiles`, each file as one text; so is a folder
    written by `save_to_disk`.

    Args:
        path: the dataset's id, such as "user/reports", or a folder.
        name: its configuration, if it has several.
        revision: branch, tag or commit; use a commit for a reproducible run.
        train_split: the fine-tuning set; slices such as "train[:80%]" work too.
        heldout_split: rows never trained on; None: split off from the training rows.
        test_split: a second held-out set; None: use `heldout_split`.
        text_column: the column with the texts; ignored with templates.
        prompt_template: text that is not trained on, with column names in braces: "Question: {question}\nAnswer:". \n
            and \t are a line break and a tab, \\n is a backslash and an n. "file:prompt.txt" reads the template from
            that file.
        completion_template: text that is trained on and scored: " {answer}". Set both templates, or neither.
        group_column: a patient, a document: rows with the same value stay on one side of every
            split.
        skip_unusable: skip unusable rows (without a text or a group), with one warning that counts and lists them;
            otherwise they are an error.
        chat: read the rows as conversations of this form, as by `ChatFiles`; "auto": detected from the columns; None:
            read them as texts.
        chat_column: column of conversations; None: detected.

    Raises:
        ConfigError: the templates are malformed, or members and held-out rows are the same split.
    """

    def __init__(
        self,
        path: str,
        name: str | None = None,
        revision: str | None = None,
        train_split: str = "train",
        heldout_split: str | None = None,
        test_split: str | None = None,
        text_column: str = "text",
        prompt_template: str | None = None,
        completion_template: str | None = None,
        group_column: str | None = None,
        skip_unusable: bool = False,
        chat: ChatForm | None = None,
        chat_column: str | None = None,
    ) -> None:
        reading = Reading(skip_unusable=skip_unusable)
        texts = TextFields(text_column, prompt_template, completion_template, group_column, reading=reading)
        self.fields: RowFields = texts
        if chat is not None:
            options = ("chat", "chat_column")
            self.fields = ChatFields(chat, chat_column, group_column, options=options, reading=reading)
        for option, split in (("heldout_split", heldout_split), ("test_split", test_split)):
            if split == train_split:
                raise ConfigError(
                    f"{option} is the same as train_split ({split}); expected rows that are not trained on"
                )
        self.path, self.name, self.revision = path, name, revision
        self.splits = (train_split, heldout_split, test_split)

    def load(self) -> Corpus:
        """Download or open the dataset, and check every row.

        Raises:
            DataError: the dataset, configuration, split or column does not exist, the network is unreachable, it is a
                loading script (which `datasets` no longer runs), or a row has no text.
        """
        train, heldout, test = self.splits
        return Corpus(
            train=self._split(train),
            heldout=None if heldout is None else self._split(heldout),
            test=None if test is None else self._split(test),
            name=self.path if self.name is None else f"{self.path}/{self.name}",
        )

    def _split(self, split: str) -> Dataset:
        if sets := {} if self.name else local_sets(self.path):
            return local_split(self.path, sets, split, self.fields)
        dataset = self._opened(split)
        if not len(dataset):
            raise DataError(f"{self.path}, split {split!r}: is empty; expected at least one row")
        label = printable(Path(self.path).name if Path(self.path).is_dir() else self.path)
        table = Table.of_dataset(f"{self.path}, split {split!r}", dataset)
        return self.fields.dataset(table, f"{label}/{split}")

    def _opened(self, split: str) -> Dataset:
        import datasets
        from datasets import exceptions

        try:
            return datasets.load_dataset(self.path, name=self.name, split=split, revision=self.revision)
        except exceptions.DatasetNotFoundError as error:
            why = "no such folder, nor a dataset on the hub that you may read; expected 'user/name'"
            raise self._error(why, error) from error
        except exceptions.DataFilesNotFoundError as error:
            raise self._error("has no readable data files", error) from error
        except exceptions.DatasetGenerationError as error:
            # This error may quote the data, so its message is not passed on.
            cause = type(error.__cause__ or error).__name__
            raise DataError(f"{self.path}: its files cannot be read as one table ({cause})") from error
        except (ConnectionError, TimeoutError) as error:
            why = "the hub is unreachable; download the dataset beforehand, or set path to a local folder"
            raise self._error(why, error) from error
        except (ValueError, RuntimeError, OSError, exceptions.DatasetsError) as error:
            if "scripts are no longer supported" in str(error):
                why = (
                    "is a loading script, which `datasets` no longer runs; "
                    "use its data files as a folder, or with TextFiles"
                )
            elif isinstance(error, FileNotFoundError):  # EmptyDatasetError, which is not public
                why = "has no readable data files"
            elif "nknown split" in str(error):
                why = f"has no split {split!r}"
            elif "does not have a datasets dtype" in str(error):
                why = "has a column of a type that `datasets` does not support; TextFiles skips it in a parquet file"
            elif "BuilderConfig" in str(error) or "Config name is missing" in str(error):
                why = f"has no configuration {self.name!r}" if self.name else "has several configurations; set name"
            else:
                why = "cannot be loaded"
            raise self._error(why, error) from error

    def _error(self, why: str, error: BaseException) -> DataError:
        """One line: the reason, then the message of `datasets` without file names, which may be names of persons."""
        said = " ".join(str(error).split())
        folder = Path(self.path)
        names = {file.name for file in folder.rglob("*")} if folder.is_dir() else set()
        for name in sorted(names, key=len, reverse=True):
            said = said.replace(name, "(a file)")
        return DataError(f"{self.path}: {why} ({type(error).__name__}: {said[:300]})")
