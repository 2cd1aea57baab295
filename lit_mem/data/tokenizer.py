"""The tokenizer of a run: the one in the options, or the model's."""

from __future__ import annotations

from typing import Any

from lit_mem.errors import ConfigError, ModelError


def tokenizer_of(tokenizer_id: str | None, module: Any) -> Any:
    """Return a Hugging Face tokenizer.

    Args:
        tokenizer_id: hub id or folder, `data.tokenizer`; None: `module.tokenizer`.
        module: the trained module, or None.

    Raises:
        ConfigError: it cannot be loaded, or there is none.
        ModelError: the module's tokenizer cannot be loaded.
    """
    from lit_mem.models.hub import load_tokenizer

    if tokenizer_id is not None:
        try:
            return load_tokenizer(tokenizer_id, option="data.tokenizer")
        except ModelError as error:
            raise ConfigError(str(error)) from error
    if module is None or not hasattr(module, "tokenizer"):
        raise ConfigError("data.tokenizer is not set, and the trained model has no tokenizer")
    return module.tokenizer
