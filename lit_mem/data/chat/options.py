"""How conversations are read by a model: the chat template, and which turns carry the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from lit_mem.errors import ConfigError, options_of

ChatLoss = Literal["assistant", "last", "all"]
"""`assistant`: every turn of the assistant's; `last`: the last of them; `all`: the whole text of the conversation."""


@dataclass(frozen=True)
class Chat:
    """Options of conversations.

    Attributes:
        loss: which tokens are trained on and scored: `assistant` (each turn of the assistant's), `last` (the last of
            them) or `all`. The token that ends a turn of the assistant's is trained on and not scored.
        template: a file with a chat template (Jinja, as Hugging Face tokenizers have it); `asset:chatml` is one that
            comes with the package; None: the tokenizer's own.

    Raises:
        ConfigError: there is no such loss.
    """

    loss: ChatLoss = "assistant"
    template: str | None = None

    def __post_init__(self) -> None:
        if self.loss not in get_args(ChatLoss):
            raise ConfigError(f"data.chat.loss is {self.loss!r}; expected one of {', '.join(get_args(ChatLoss))}")

    def template_text(self) -> str | None:
        """The template that `template` names; None: the tokenizer's own is to be used.

        Raises:
            ConfigError: there is no such file, or it is no text.
        """
        if self.template is None:
            return None
        if self.template.startswith("asset:"):
            from lit_mem import assets

            return assets.chat_template(self.template.removeprefix("asset:"))
        try:
            text = Path(self.template).expanduser().read_text("utf-8-sig")
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            raise ConfigError(f"data.chat.template is {self.template}, which cannot be read ({why})") from error
        if not text.strip():
            raise ConfigError(f"data.chat.template is {self.template}, which is empty; expected a Jinja template")
        return text


def chat_options(given: Chat | Mapping[str, Any] | None) -> Chat:
    """The options as given, or from some of them by name; None: the defaults.

    Raises:
        ConfigError: there is no option of a name, or it is of another kind.
    """
    return options_of(Chat, given, "chat") or Chat()
