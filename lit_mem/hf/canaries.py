"""Canaries for a Hugging Face trainer: inserted at random into the training set before the trainer is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

from datasets import Dataset, concatenate_datasets
from torch import nn

from lit_mem.data.canaries.base import Canary, CanarySource, Content, Setting
from lit_mem.data.canaries.conversations import conversation
from lit_mem.data.canaries.traps import Traps
from lit_mem.data.chat.messages import checked
from lit_mem.data.chat.options import Chat
from lit_mem.errors import ConfigError, DataError
from lit_mem.guards import evaluation_mode, preserved_random_state

Rows = TypeVar("Rows", list[str], list[dict[str, Any]], Dataset)

_TOKENIZED, _CHAT, _MESSAGES = "input_ids", "conversations", "messages"


@dataclass(frozen=True)
class CanarySet:
    """Canaries of a run, inserted and held out, for `MemorizationCallback(canaries=...)`; its repr has no texts.

    Attributes:
        canaries: the canaries, each with its coin.
        source: name of the canary source.
        chat: chat options of canaries in conversations; None if they are texts.
        kind: the source; None if not known.
    """

    canaries: tuple[Canary, ...] = field(repr=False)
    source: str
    chat: Chat | None = None
    kind: CanarySource | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.canaries)

    @property
    def texts(self) -> list[str]:
        """The canary rows of the training set: each inserted canary, repeated by its repetitions."""
        return [one.text for one in self._trained()]

    def rows(self) -> list[Any]:
        """The same rows in the training set's form: texts, or lists of messages."""
        return [one.text if self.chat is None else conversation(one) for one in self._trained()]

    def _trained(self) -> list[Content]:
        return [one.content for one in self.canaries if one.inserted for _ in range(one.repetitions)]


def insert_canaries(
    train: Rows, canaries: CanarySource, tokenizer: Any, text_column: str = "text", model: nn.Module | None = None
) -> tuple[Rows, CanarySet]:
    """Insert canaries into a training set; call it before the set is tokenized and the trainer built.

    The inserted canaries are appended, each as often as its repetitions; the trainer shuffles. No canary is a text of
    `train`. With the columns `prompt` and `completion` a canary is a completion of an empty prompt; with the column
    `messages` it is the assistant's answer to the user message "Please go on."; other columns are null in its rows.

    Args:
        train: a list of texts, a list of rows, or a `datasets.Dataset`.
        canaries: such as `lit_mem.data.canaries.Secrets(n=200, repetitions=[1, 4, 16])`; reproducible by its seed.
        tokenizer: tokenizer of the model.
        text_column: the column of rows with the texts that are trained on.
        model: the untrained base model, for sources that sample from it (`Unigram`, `Bigram`, `NewTokens` and
            `UnlikelySuffix`); it is unchanged.

    Returns:
        Training rows of the same type, and the set to pass to the callback.

    Raises:
        ConfigError: `train` or `canaries` has the wrong type, or canaries consist of tokens that the tokenizer does not
            restore from their text.
        DataError: a text is missing.
    """
    if not isinstance(canaries, CanarySource):
        raise ConfigError(
            f"insert_canaries: canaries is {type(canaries).__name__}; expected a source, such as Secrets(n=200)"
        )
    if isinstance(canaries, Traps):
        raise ConfigError(
            "insert_canaries: Traps are sampled as tokens from the base model, which is not available here; expected a "
            "source of texts, such as Secrets or Lines"
        )
    columns = _text_columns(train, text_column)
    text_tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
    with preserved_random_state(), nullcontext() if model is None else evaluation_mode(model):
        base = None if model is None else lambda: model
        made = canaries.make(Setting(text_tokenizer, _texts(train, columns), base))
    chat = Chat() if columns == [_MESSAGES] else None
    found = CanarySet(tuple(_of_text(one) for one in made), type(canaries).__name__, chat, canaries)
    if chat is None:
        _check_tokens(made, text_tokenizer, found.source)
    return _with_rows(train, columns, found.rows()), found


def _names(train: Any) -> list[str] | None:
    """Column names of rows; None for a list of texts.

    Raises:
        ConfigError: `train` has the wrong type.
    """
    if isinstance(train, Dataset):
        return list(train.column_names)
    if isinstance(train, list) and train:
        if all(isinstance(one, str) for one in train):
            return None
        if all(isinstance(one, Mapping) for one in train):
            return list(dict.fromkeys(name for row in train for name in row))
    found = "an empty list" if train == [] else type(train).__name__
    raise ConfigError(
        f"insert_canaries: train is {found}; expected a list of texts, a list of rows or a datasets.Dataset"
    )


def _text_columns(train: Any, text_column: str) -> list[str]:
    """Columns of the text, in order; empty for a list of texts.

    Raises:
        ConfigError: there are none, or other columns conflict with canaries.
    """
    names = _names(train)
    if names is None:
        return []
    halves: list[str] = [name for name in ("prompt", "completion") if name in names]
    for name in (_TOKENIZED, _CHAT):
        if name in names and name != text_column:
            wanted = "rows before they are tokenized" if name == _TOKENIZED else f"conversations as {_MESSAGES!r}"
            raise ConfigError(f"insert_canaries: train has the column {name!r}; expected {wanted}")
    if _MESSAGES in names and not {text_column, *halves} & {*names} - {_MESSAGES}:
        return [_MESSAGES]
    if text_column in names and len(halves) < 2:
        return [text_column]
    if text_column not in names and len(halves) == 2:
        return halves
    there = ", ".join(map(repr, names)) or "no columns"
    raise ConfigError(
        f"insert_canaries: train has {there}; expected either the column {text_column!r} (text_column) or 'prompt' and "
        "'completion' or 'messages' alone"
    )


def _texts(train: Any, columns: Sequence[str]) -> list[str]:
    """The texts of all rows; for conversations, the content of each message.

    Raises:
        DataError: a text is not a string, or a conversation is malformed.
    """
    if not columns:
        return list(train)
    plain = train.with_format(None) if isinstance(train, Dataset) else None
    read = [plain[name][:] if plain is not None else [row.get(name) for row in train] for name in columns]
    if columns == [_MESSAGES]:
        rows = [checked(messages, f"train, row {i}") for i, messages in enumerate(read[0], start=1)]
        return [message["content"] for row in rows for message in row]
    for name, values in zip(columns, read, strict=True):
        for i, value in enumerate(values, start=1):
            if not isinstance(value, str):
                raise DataError(f"train, row {i}: {name} is {type(value).__name__}; expected a string")
    return ["".join(parts) for parts in zip(*read, strict=True)]


def _of_text(canary: Canary) -> Canary:
    return canary._replace(content=canary.content._replace(ids=None))


def _check_tokens(made: Sequence[Canary], tokenizer: Any, source: str) -> None:
    """Reject token canaries that the tokenizer does not restore from their text.

    Raises:
        ConfigError: there are some.
    """
    contents = [one.content for one in made if one.content.ids is not None]
    lost = sum(
        tuple(tokenizer(one.text, add_special_tokens=False)["input_ids"]) != one.ids for one in contents
    )  # the trainer tokenizes text
    if lost:
        raise ConfigError(
            f"insert_canaries: {source} samples tokens, but the tokenizer gives other tokens for the text of {lost} of "
            f"{len(made)} canaries; expected a source of texts, such as Secrets or Lines"
        )


def _with_rows(train: Any, columns: Sequence[str], texts: list[Any]) -> Any:
    if not columns:
        return [*train, *texts]
    filled: dict[str, list[Any]] = {columns[-1]: texts} | dict.fromkeys(columns[:-1], [""] * len(texts))
    names = _names(train) or []
    if not isinstance(train, Dataset):
        rest: dict[str, Any] = dict.fromkeys(names)
        return [*train, *(rest | {name: filled[name][i] for name in columns} for i in range(len(texts)))]
    nulls = {name: [None] * len(texts) for name in names}
    more = Dataset.from_dict(nulls | filled, features=train.features)
    kept = dict(train.format)
    options = {name: kept[name] for name in ("type", "columns", "output_all_columns")}
    return concatenate_datasets([train.with_format(None), more]).with_format(**options, **kept["format_kwargs"])
