"""Text lengths in a model's tokens, with its tokenizer if it is cached locally, and without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lit_mem import assets
from lit_mem.data.columns import Lengths
from lit_mem.errors import ConfigError
from lit_mem.files.untrusted import panics_raised

_BYTES_A_TOKEN: Final = 3
_SAMPLE: Final = 4000
_LONGEST: Final = 400
_POSITIONS: Final = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
_LARGEST: Final = 256 * 2**20


@dataclass(frozen=True)
class TokenLengths:
    """Token lengths of texts, including special tokens.

    Attributes:
        whole: lengths of prompt and completion together.
        longest_prompt: tokens of the longest prompt; 0 if there are none.
        counted: whether counted with the model's tokenizer; otherwise estimated as a third of the bytes.
        positions: context length of the model; None: unknown.
    """

    whole: Lengths
    longest_prompt: int
    counted: bool
    positions: int | None


def token_lengths(model_id: str, prompts: Sequence[str], completions: Sequence[str], add_eos: bool) -> TokenLengths:
    """Count tokens; for many texts, of 4,000 evenly spaced ones and of the 400 largest in bytes.

    Args:
        model_id: hub id, folder or asset.
        prompts: (N,) texts, N at least 1.
        completions: (N,) texts.
        add_eos: whether an end-of-text token is appended.

    Raises:
        ConfigError: `model_id` is a folder or an asset that does not exist.
        ModelError: native code panics on the tokenizer's file.
    """
    folder = _folder(model_id)
    texts = [a + b for a, b in zip(prompts, completions, strict=True)]
    step = max(1, len(texts) // _SAMPLE)
    sample = texts[::step]
    longest = sorted(texts, key=len)[-_LONGEST:] if step > 1 else []
    tokenizer = _tokenizer(folder)
    size = (lambda some: _counted(tokenizer, some)) if tokenizer is not None else _estimated
    lengths = [n + add_eos for n in size(sample)]
    most = max([*lengths, *(n + add_eos for n in size(longest))])
    whole = Lengths.of(lengths)
    given = sorted({prompt for prompt in prompts if prompt}, key=len)[-_LONGEST:]
    return TokenLengths(
        Lengths(whole.median, whole.high, most), max(size(given), default=0), tokenizer is not None, _positions(folder)
    )


def is_here(model_id: str) -> bool:
    """Whether a model's configuration is available locally: in a folder, an asset, or the hub cache."""
    return _file(_folder(model_id), "config.json") is not None


def has_chat_template(model_id: str) -> bool:
    """Whether a model's tokenizer is available locally and has a chat template; else guessed from a hub id."""
    folder = _folder(model_id)
    if _file(folder, "chat_template.jinja") is not None:
        return True
    file = _file(folder, "tokenizer_config.json")
    if file is None:
        return any(word in model_id.lower() for word in ("instruct", "chat", "-it"))
    try:
        config = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError, OSError):
        return False
    return isinstance(config, dict) and bool(config.get("chat_template"))


def _folder(model_id: str) -> Path | str:
    """The path of a folder or an asset; a hub id unchanged."""
    if model_id.startswith(assets.PREFIX):
        return assets.path(model_id.removeprefix(assets.PREFIX))
    path = Path(model_id)
    if path.exists() or model_id.endswith(".gguf"):
        return path
    if model_id.startswith((".", "/", "~")) or model_id.count("/") > 1:
        raise ConfigError(f"--model is the folder {model_id}, which does not exist")
    return model_id


def _file(folder: Path | str, name: str) -> Path | None:
    if isinstance(folder, Path):
        found = folder / name
    else:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError

        try:
            cached = try_to_load_from_cache(folder, name)
        except HFValidationError as error:
            raise ConfigError(f"--model is {folder!r}; expected a hub id, a folder or asset:tiny_llama") from error
        if not isinstance(cached, str):
            return None
        found = Path(cached)
    return found if found.is_file() and found.stat().st_size <= _LARGEST else None


def _tokenizer(folder: Path | str) -> Any:
    file = _file(folder, "tokenizer.json")
    if file is None:
        return None
    from tokenizers import Tokenizer

    with panics_raised("the tokenizer of --model"):
        try:
            made = Tokenizer.from_file(str(file))
        except Exception:  # the library raises plain exceptions
            return None
        made.no_truncation()
        made.no_padding()
        return made


def _positions(folder: Path | str) -> int | None:
    if (file := _file(folder, "config.json")) is None:
        return None
    try:
        config = json.loads(file.read_text("utf-8"))
    except (ValueError, RecursionError, OSError):
        return None
    found = [config.get(name) for name in _POSITIONS] if isinstance(config, dict) else []
    return next((value for value in found if isinstance(value, int) and value > 1), None)


def _counted(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    with panics_raised("the tokenizer of --model"):
        return [len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))]


def _estimated(texts: Sequence[str]) -> list[int]:
    return [2 + len(text.encode()) // _BYTES_A_TOKEN for text in texts]
