"""Options of conversations: the chat template, and which turns carry the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from lit_mem import assets
from lit_mem.errors import ConfigError, options_of

ChatLoss = Literal["assistant", "last", "all"]
"""`assistant`: every assistant turn; `last`: the last one; `all`: the whole text of the conversation."""


@dataclass(frozen=True)
class Chat:
    """Options of conversations.

    Attributes:
        loss: which tokens are trained on and scored: `assistant` (every assistant turn), `last` (the last one) or
            `all`. The token that ends an assistant turn is trained on but not scored.
        template: a file with a chat template (Jinja, as in Hugging Face tokenizers); `asset:chatml` is a bundled one;
            None: the tokenizer's own.

    Raises:
        ConfigError: `loss` is unknown.
    """

    loss: ChatLoss = "assistant"
    template: str | None = None

    def __post_init__(self) -> None:
        if self.loss not in get_args(ChatLoss):
            raise ConfigError(f"data.chat.loss is {self.loss!r}; expected one of {', '.join(get_args(ChatLoss))}")

    def template_text(self) -> str | None:
        """The text of `template`; None: use the tokenizer's own.

        Raises:
            ConfigError: the file does not exist, or is not a text file.
        """
        if self.template is None:
            return None
        if self.template.startswith(assets.PREFIX):
            return assets.chat_template(self.template.removeprefix(assets.PREFIX))
        try:
            text = Path(self.template).expanduser().read_text("utf-8-sig")
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            raise ConfigError(f"data.chat.template is {self.template}, which cannot be read ({why})") from error
        if not text.strip():
            raise ConfigError(f"data.chat.template is {self.template}, which is empty; expected a Jinja template")
        return text


def chat_options(given: Chat | Mapping[str, Any] | None) -> Chat:
    """The options as an instance, built from a mapping if needed; None: the defaults.

    Raises:
        ConfigError: an option name is unknown, or `given` has another type.
    """
    return options_of(Chat, given, "chat") or Chat()
