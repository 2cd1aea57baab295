"""Apply a chat template to whole conversations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from lit_mem.errors import ConfigError, DataError

_PROBE: Final = ("Question", "Answer")


class TemplateError(Exception):
    """A template fails on its input."""


class ChatTemplate:
    """A chat template that is applied to whole conversations.

    Args:
        tokenizer: a Hugging Face tokenizer.
        text: the template; None: the tokenizer's own.

    Raises:
        DataError: there is no template.
    """

    def __init__(self, tokenizer: Any, text: str | None = None) -> None:
        if text is None and not getattr(tokenizer, "chat_template", None):
            raise DataError(
                "the tokenizer has no chat template; expected the tokenizer of a chat model, or data.chat.template: a "
                "file with one, or asset:chatml"
            )
        self.tokenizer, self._text = tokenizer, text

    @cached_property
    def marks_turns(self) -> bool:
        """Whether it has `{% generation %}` blocks, which mark the assistant's part of a conversation."""
        return re.search(r"\{%-?\s*generation\s*-?%\}", self._spelled()) is not None

    @cached_property
    def end(self) -> str:
        """The text that ends an assistant turn, such as "<|im_end|>" or " </s>"; "" if there is none."""
        user, assistant = _PROBE
        try:
            text = self.text([{"role": "user", "content": user}, {"role": "assistant", "content": assistant}])
        except TemplateError:
            return str(self.tokenizer.eos_token or "")
        tail = text[text.rindex(assistant) + len(assistant) :] if assistant in text else ""
        named = {str(token) for token in self.tokenizer.all_special_tokens}
        named |= {str(token) for token in getattr(self.tokenizer, "added_tokens_decoder", {}).values()}
        first = min(((tail.find(name), name) for name in named if name and name in tail), default=None)
        return tail.rstrip() if first is None else tail[: first[0] + len(first[1])]

    def text(self, turns: Sequence[Mapping[str, Any]], generate: bool = False, tools: Any = None) -> str:
        """Render messages as text.

        Args:
            turns: as returned by `messages.checked`.
            generate: add the generation prompt for the next assistant turn.
            tools: functions that the conversation may call.

        Raises:
            ConfigError: the template is malformed.
            TemplateError: the template fails. The message has the reason only if the template itself spells it
                out; other reasons may contain text of the messages.
        """
        from jinja2 import TemplateSyntaxError

        try:
            text: str = self.tokenizer.apply_chat_template(
                list(turns), tools=tools, tokenize=False, add_generation_prompt=generate, chat_template=self._text
            )
        except TemplateSyntaxError as error:
            raise ConfigError(f"the chat template is malformed, line {error.lineno}: {error.message}") from None
        except Exception as error:  # a template can fail with any exception
            reason = str(error)
            spelled = bool(reason) and reason in self._spelled()
            raise TemplateError(" ".join(reason.split())[:200] if spelled else type(error).__name__) from None
        return text

    def mask(self, turns: Sequence[Mapping[str, Any]], tools: Any = None) -> tuple[list[int], list[bool]]:
        """Token ids of a conversation, and the template's own mask of assistant tokens.

        Raises:
            TemplateError: the template fails.
        """
        try:
            whole = self.tokenizer.apply_chat_template(
                list(turns), tools=tools, chat_template=self._text, return_assistant_tokens_mask=True, return_dict=True
            )
        except Exception as error:
            raise TemplateError(type(error).__name__) from None
        return list(whole["input_ids"]), [bool(own) for own in whole["assistant_masks"]]

    def _spelled(self) -> str:
        return self._text if self._text is not None else str(self.tokenizer.chat_template)
