"""The machine: devices, precisions, memory, the cache folder, and relevant environment variables."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from lit_mem.errors import first_line
from lit_mem.files.places import cache_folder

_SHOWN: Final = (
    "CUDA_VISIBLE_DEVICES", "HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE", "LIT_MEM_DEBUG", "LIT_MEM_UMASK",
    "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "TRANSFORMERS_OFFLINE",
)  # fmt: skip
"""Environment variables whose values are flags and numbers."""

_OURS: Final = ("LIT_MEM_CACHE", "LIT_MEM_DEBUG", "LIT_MEM_UMASK")


def torch_or_problem() -> tuple[ModuleType | None, list[str]]:
    """The module torch and [], or None and one line that says why it cannot be imported."""
    try:
        import torch
    except Exception as error:
        return None, [f"torch cannot be imported: {type(error).__name__}: {_without_places(first_line(error))}"]
    return torch, []


def devices(torch: Any) -> list[str]:
    """A line for the CPU and for each accelerator, with the precisions it supports.

    Args:
        torch: the module; None if it cannot be imported.
    """
    if torch is None:
        return ["unknown without torch"]
    native = {True: "in hardware", False: "emulated", None: "unknown whether in hardware"}[_cpu_bfloat16(torch)]
    lines = [
        f"CPU: {os.cpu_count()} cores, of which {_usable_cores()} usable, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}, {_memory()} memory; float32, bfloat16 {native}"
    ]
    try:
        lines += _accelerators(torch)
    except Exception as error:  # a mismatched driver belongs in a bug report
        lines.append(f"accelerators: {type(error).__name__}: {_without_places(first_line(error))}")
    return lines


def _accelerators(torch: Any) -> list[str]:
    cuda, mps = torch.cuda, torch.backends.mps
    built = f"torch is built for {torch.version.cuda or torch.version.hip}"
    found = []
    for index in range(cuda.device_count() if cuda.is_available() else 0):
        about = cuda.get_device_properties(index)
        sixteen = "float16, bfloat16" if cuda.is_bf16_supported(including_emulation=False) else "float16, no bfloat16"
        memory, capability = f"{about.total_memory / 2**30:.0f} GiB", f"capability {about.major}.{about.minor}"
        found.append(f"CUDA {index}: {about.name}, {memory}, {capability}; float32, {sixteen}; {built}")
    if not found:
        found.append(f"CUDA: none; {built.replace('for None', 'without it')}")
    return [*found, f"MPS: {'yes; float32, float16, bfloat16' if mps.is_available() else 'none'}"]


def _cpu_bfloat16(torch: Any) -> bool | None:
    """Whether the CPU multiplies bfloat16 in hardware; None if torch does not report it."""
    tests = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile")]
    return any(test() for test in tests if test) if any(tests) else None


def _usable_cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (AttributeError, OSError, ValueError):  # not on Windows
        return "unknown"


def cache() -> str:
    """Location of the cache, by its environment variable instead of its path, and whether it is writable."""
    folder = cache_folder("")
    named = {"LIT_MEM_CACHE": "$LIT_MEM_CACHE", "XDG_CACHE_HOME": "$XDG_CACHE_HOME/lit_mem"}
    shown = next((text for name, text in named.items() if os.environ.get(name)), "~/.cache/lit_mem")
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return f"{shown}: not writable; set LIT_MEM_CACHE to a writable folder"
    return f"{shown}: writable, {shutil.disk_usage(there).free / 2**30:.1f} GiB free"


def variables() -> list[str]:
    """Environment variables that affect a run: values of flags and numbers; for others, whether they are set."""
    names = {*_OURS, *_SHOWN, "HF_HOME", "HF_TOKEN", "XDG_CACHE_HOME"}
    names |= {name for name in os.environ if name.startswith(("LIT_MEM_", "HF_", "TRANSFORMERS_", "PYTORCH_"))}
    return [_variable(name) for name in sorted(names)]


def _variable(name: str) -> str:
    value = os.environ.get(name)
    if value is None:
        return f"{name}: not set"
    unknown = "; not a variable of lit_mem" if name.startswith("LIT_MEM_") and name not in _OURS else ""
    plain = name in _SHOWN and re.fullmatch(r"[0-9,]{1,16}|true|false|yes|no|on|off", value.lower())
    return f"{name}: {value if plain else 'set'}{unknown}"


def _without_places(text: str) -> str:
    return text.replace(sys.prefix, "<environment>").replace(str(Path.home()), "~")
