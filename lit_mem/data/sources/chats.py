"""Your own conversations, from files."""

from __future__ import annotations

from lit_mem.data.sources.chat_fields import ChatFields
from lit_mem.data.sources.chat_forms import ChatForm
from lit_mem.data.sources.text import TextFiles


class ChatFiles(TextFiles):
    """Conversations from the file types of `TextFiles`.

    Supports OpenAI's `messages` ({role, content}, with tool calls and a column `tools`), ShareGPT's `conversations`
    ({from, value}), Alpaca's `instruction`, `input` and `output` (with `history`), Dolly's `instruction`, `context` and
    `response`, `prompt` and `completion` (texts, or messages as in TRL), and `question` and `answer`; each with a
    column `system`, if there is one. Which turns are trained on and scored: `data.chat.loss`.

    Args:
        train: the file of the fine-tuning set; its conversations are the members.
        heldout: conversations never trained on; None: split off from `train`.
        test: a second held-out set; None: use `heldout`.
        form: "auto": detected from the columns, and logged.
        column: column of conversations, for the forms `messages` and `sharegpt`; None: detected.
        group_column: a patient, a customer: conversations with the same value stay on one side of every split.
        delimiter: delimiter of csv and tsv files; None: detected from the header.
        encoding: encoding of text files, such as cp1252; never guessed.
        skip_unusable: skip unusable rows, with one warning that counts and lists them.

    Raises:
        ConfigError: members and held-out rows are the same file.
    """

    def __init__(
        self,
        train: str,
        heldout: str | None = None,
        test: str | None = None,
        form: ChatForm = "auto",
        column: str | None = None,
        group_column: str | None = None,
        delimiter: str | None = None,
        encoding: str = "utf-8",
        skip_unusable: bool = False,
    ) -> None:
        super().__init__(train, heldout, test, delimiter=delimiter, encoding=encoding, skip_unusable=skip_unusable)
        self.fields = ChatFields(form, column, group_column, reading=self.reading)
