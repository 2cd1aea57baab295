"""One-line errors for what transformers raises while loading a model or a tokenizer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from safetensors import SafetensorError, safe_open

from lit_mem.adapters.origin import adapter_at
from lit_mem.errors import ModelError
from lit_mem.files.untrusted import panics_raised

What = Literal["tokenizer", "weights"]

_NO_ACCESS: Final = re.compile(r"gated repo|\b40[13] (Client|Forbidden|Unauthorized)")


@contextmanager
def one_line_errors(what: What, name: str, option: str, place: str) -> Iterator[None]:
    """Turn any exception of the body into one line that names the option and what to do.

    Args:
        what: what the body loads.
        name: value of the option.
        option: the option with the model.
        place: folder or hub id.

    Raises:
        ModelError: instead of any other exception.
    """
    try:
        with panics_raised(f"the {what} of {option} {name!r}"):
            yield
    except ModelError:
        raise
    except Exception as error:  # the library raises dozens of exception types
        raise ModelError(
            f"cannot load the {what} of {option} {name!r}: {_hint(what, name, Path(place), error)}"
        ) from error


def _hint(what: What, name: str, folder: Path, error: Exception) -> str:
    """The cause, and what the user can do about it."""
    text = " ".join(str(error).split())
    if folder.is_dir() and not name.endswith(".gguf") and not (folder / "config.json").is_file():
        if adapter_at(str(folder)) is not None:
            return f"it is an adapter, saved without a {what}; expected a full model's folder or id"
        return "the folder has no config.json; expected that of a Hugging Face model"
    if "custom code" in text or "trust_remote_code" in text:
        return "it needs its own code, which is never run; expected a model that transformers supports"
    if what == "weights" and isinstance(error, OSError) and (pickled := _pickled(folder)) is not None:
        return f"{pickled.name} is a pickle, which can execute code when loaded; expected .safetensors files"
    if isinstance(error, SafetensorError):
        return f"{_damaged(folder) or 'a .safetensors file'} is damaged or truncated ({text[:200]})"
    if "attn_implementation" in text:
        return f"model.attention: {text[:300]}"
    if _NO_ACCESS.search(text):
        return "it is gated: request access on its hub page, then log in with `hf auth login`"
    if "gguf" in text.lower() and isinstance(error, ImportError):
        return "GGUF files need the extra: pip install 'lit_mem[gguf]'"
    if "bitsandbytes" in text.lower():
        return "quantization needs the extra: pip install 'lit_mem[quantization]', and a GPU that it supports"
    if isinstance(error, OSError) and not folder.exists():
        if "safetensors" in text:
            return "it has no .safetensors file; pickled weights are not loaded, since they can execute code"
        return "it is neither a local folder nor in the hub cache, and the hub is unreachable or does not have it"
    return f"{type(error).__name__}: {text[:300]}"


def _pickled(folder: Path) -> Path | None:
    """The first pickled weights file of a folder without other weights."""
    if any(folder.glob("*.safetensors")):
        return None
    return next((file for end in ("bin", "pt", "pth", "ckpt") for file in sorted(folder.glob(f"*.{end}"))), None)


def _damaged(folder: Path) -> Path | None:
    """The first unreadable weights file of a folder."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except SafetensorError:
            return file
    return None
