"""lit_mem's entry in a Lightning checkpoint, and its strict validation on loading."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict, cast

import torch
from torch import Tensor

from lit_mem.adapters.recorded import MadeWith
from lit_mem.errors import CheckpointError
from lit_mem.models.checkpoint_file import open_checkpoint


class Spent(TypedDict):
    """The privacy state of a checkpoint.

    Keys:
        history: noise multiplier, sampling rate and number of steps, one entry per change of the first two.
        noise_multiplier: for the remaining steps; unchanged if the number of epochs changes.
        texts: number of training texts.
        ledger: path of the ledger; "" if there is none.
        ledger_id: id of its first line.
        ledger_chain: hash of its last line; absent in older versions.
        unaccounted: whether training started from weights without a ledger of their training.
    """

    history: list[list[float]]
    noise_multiplier: float
    texts: int
    ledger: str
    ledger_id: str
    ledger_chain: NotRequired[str]
    unaccounted: NotRequired[bool]


class MemberDigests(TypedDict):
    """Digests in a checkpoint of the texts that its model was trained on; see `lit_mem.data.members`.

    Keys:
        salt: (16,) uint8, the key of the digests, drawn once per run.
        members: (N, 8) uint8, keyed BLAKE2b of each text, sorted; including inserted canaries.
        left_out: (C, 8) uint8, digests of the held-out canaries.
    """

    salt: Tensor
    members: Tensor
    left_out: Tensor


class _Amid(TypedDict, total=False):
    gradients: dict[str, Tensor]
    random_states: list[dict[str, Any]]
    schedule: dict[str, Any]
    privacy: Spent
    members: MemberDigests
    made_with: MadeWith
    learning: dict[str, Any]


class CheckpointContent(_Amid):
    """The `lit_mem` entry of a checkpoint.

    Keys:
        format: version of this layout.
        base: the base model's id, for messages.
        fingerprint: `models.fingerprint.fingerprint` of the base.
        random_state: `guards.random_state` of the saving process at that time.
        random_states: random states of all processes, by rank.
        gradients: by parameter name, gradients accumulated since the last step, if a step takes several batches and
            some were done; absent otherwise.
        privacy: for private training, the spent budget; absent otherwise.
        members: digests of the texts trained on; absent if written by an earlier version, or if the data gave none.
        made_with: how to rebuild the model, for `CausalLM.load_from_checkpoint`; absent in older versions.
        learning: `metrics.learning.Learning.state`, the losses before training by text; absent in earlier versions.
        schedule: `shape` of the learning-rate schedule and its number of `steps` (0 if it does not need one).
    """

    format: int
    base: str
    fingerprint: dict[str, str]
    random_state: dict[str, Any]


def own_content(checkpoint: Any) -> CheckpointContent:
    """The `lit_mem` entry of a loaded checkpoint.

    Raises:
        CheckpointError: it was not written by lit_mem.
    """
    content = checkpoint.get("lit_mem") if isinstance(checkpoint, Mapping) else None
    whole = (
        isinstance(content, Mapping)
        and content.get("format") == 1
        and content.keys() >= CheckpointContent.__required_keys__
        and checkpoint.keys() >= {"state_dict", "pytorch-lightning_version"}
    )
    if not whole:
        raise CheckpointError("this checkpoint was not written by lit_mem (or by a later version of it)")
    known = cast("CheckpointContent", content)
    if "members" in known:
        _check_digests(known["members"])
    if "privacy" in known:
        _check_spent(known["privacy"])
    return known


def _check_spent(spent: Any) -> None:
    """Raise unless the values match `Spent`."""
    try:
        numbers = [float(x) for steps in spent["history"] for x in steps]
        whole = all(len(steps) == 3 and steps[2] >= 0 and 0 < steps[1] <= 1 for steps in spent["history"])
        numbers += [float(spent["noise_multiplier"]), 1 / spent["texts"]]
        texts = [spent["ledger"], spent["ledger_id"], spent.get("ledger_chain", "")]
        fits = whole and all(0 <= x < math.inf for x in numbers) and all(isinstance(text, str) for text in texts)
    except (AttributeError, KeyError, TypeError, ValueError, ArithmeticError):
        fits = False
    if not fits:
        raise CheckpointError(
            "this checkpoint is damaged: its privacy entry does not have the steps, texts and ledger of a run"
        )


def _check_digests(members: Any) -> None:
    """Raise unless the digests match `MemberDigests`."""
    expected = {"salt": (16,), "members": (-1, 8), "left_out": (-1, 8)}
    for name, shape in expected.items():
        found = members.get(name) if isinstance(members, Mapping) else None
        if not (
            isinstance(found, Tensor)
            and found.dtype == torch.uint8
            and found.dim() == len(shape)
            and found.shape[-1] == shape[-1]
        ):
            raise CheckpointError(f"this checkpoint is damaged: its members.{name} is not a uint8 tensor {shape}")


def read_content(path: Any, map_location: Any = None, mmap: bool = False, checksums: bool = False) -> Mapping[str, Any]:
    """Read a checkpoint written by lit_mem.

    Args:
        path: as for `open_checkpoint`.
        map_location: as for `open_checkpoint`.
        mmap: as for `open_checkpoint`.
        checksums: as for `open_checkpoint`.

    Raises:
        CheckpointError: it cannot be read, or was not written by lit_mem; the message begins with the path.
    """
    checkpoint = open_checkpoint(path, map_location, mmap, checksums)
    try:
        own_content(checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return checkpoint


def check_content(
    checkpoint: Mapping[str, Any], model_id: str, fingerprint: Mapping[str, str], trained: Mapping[str, Tensor]
) -> CheckpointContent:
    """Validate a checkpoint against the model it will be loaded into.

    Args:
        checkpoint: the checkpoint loaded by Lightning.
        model_id: id of this run's base model.
        fingerprint: fingerprint of this run's base model.
        trained: this run's trainable parameters by name.

    Raises:
        CheckpointError: not written by lit_mem, or for another base model or adapter.
    """
    content = own_content(checkpoint)
    # Quantization changes all weights except embeddings and norms: then only those can be compared.
    which = "full" if fingerprint["full"] and content["fingerprint"]["full"] else "light"
    if fingerprint[which] != content["fingerprint"][which]:
        raise CheckpointError(
            f"this checkpoint belongs to the base model {content['base']!r} (fingerprint "
            f"{content['fingerprint'][which]}), not to {model_id!r} ({fingerprint[which]})"
        )
    saved = checkpoint["state_dict"]
    missing, surplus = sorted(trained.keys() - saved.keys()), sorted(saved.keys() - trained.keys())
    if missing or surplus:
        raise CheckpointError(
            "this checkpoint holds another adapter: "
            + "; ".join(
                f"{what} {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
                for what, names in (("it lacks", missing), ("it also has", surplus))
                if names
            )
            + "; check model.adapter's targets and layers"
        )
    for name, parameter in trained.items():
        if saved[name].shape != parameter.shape:
            raise CheckpointError(
                f"this checkpoint holds another adapter: {name} is {tuple(saved[name].shape)} there and "
                f"{tuple(parameter.shape)} here; check model.adapter.rank"
            )
    return content
