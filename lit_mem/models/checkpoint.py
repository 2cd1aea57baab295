"""What lit_mem adds to a Lightning checkpoint, and the strict check when one is loaded."""

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
    """What a checkpoint keeps of a private training.

    Keys:
        history: noise multiplier, sampling rate and number of steps, as often as one of the first two changed.
        noise_multiplier: of the steps to come; it is not chosen anew where the number of epochs changes.
        texts: how many training texts there are.
        ledger: path of the ledger; "" where there is none.
        ledger_id: of its first line.
        ledger_chain: hash of its last line; absent in those of older versions.
        unaccounted: whether it began with weights whose training no ledger has.
    """

    history: list[list[float]]
    noise_multiplier: float
    texts: int
    ledger: str
    ledger_id: str
    ledger_chain: NotRequired[str]
    unaccounted: NotRequired[bool]


class MemberDigests(TypedDict):
    """What a checkpoint keeps of the texts that its model was trained on; see `lit_mem.data.members`.

    Keys:
        salt: (16,) uint8, the key of the digests, drawn once a run.
        members: (N, 8) uint8, keyed BLAKE2b of each text, sorted; inserted canaries are among them.
        left_out: (C, 8) uint8, of the canaries that were left out.
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
        random_state: `guards.random_state` when it was saved, of the process that saved it.
        random_states: those of all processes, by rank.
        gradients: by name of the parameter, those of the batches since the last step, where a step takes several
            batches and some were done; absent otherwise.
        privacy: of a private training, what it has spent; absent otherwise.
        members: digests of the texts trained on; absent where an earlier version wrote it, or the data gave none.
        made_with: what makes the model again, for `CausalLM.load_from_checkpoint`; absent in those of older versions.
        learning: `metrics.learning.Learning.state`, the losses before training by text; absent in earlier versions.
        schedule: of the learning rate, its `shape` and how many `steps` it is over (0 where it needs none to be known).
    """

    format: int
    base: str
    fingerprint: dict[str, str]
    random_state: dict[str, Any]


def own_content(checkpoint: Any) -> CheckpointContent:
    """The `lit_mem` entry of a loaded checkpoint.

    Raises:
        CheckpointError: it was written by something else.
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
    """Raise unless the values are those of `Spent`."""
    try:
        numbers = [float(x) for steps in spent["history"] for x in steps]
        whole = all(len(steps) == 3 and steps[2] >= 0 and 0 < steps[1] <= 1 for steps in spent["history"])
        numbers += [float(spent["noise_multiplier"]), 1 / spent["texts"]]
        texts = [spent["ledger"], spent["ledger_id"], spent.get("ledger_chain", "")]
        fits = whole and all(0 <= x < math.inf for x in numbers) and all(isinstance(text, str) for text in texts)
    except (AttributeError, KeyError, TypeError, ValueError, ArithmeticError):
        fits = False
    if not fits:
        raise CheckpointError("this checkpoint is damaged: its privacy does not hold steps, texts and ledger of a run")


def _check_digests(members: Any) -> None:
    """Raise unless the digests have the shapes of `MemberDigests`."""
    expected = {"salt": (16,), "members": (-1, 8), "left_out": (-1, 8)}
    for name, shape in expected.items():
        found = members.get(name) if isinstance(members, Mapping) else None
        if not (
            isinstance(found, Tensor)
            and found.dtype == torch.uint8
            and found.dim() == len(shape)
            and found.shape[-1] == shape[-1]
        ):
            raise CheckpointError(f"this checkpoint is damaged: its members.{name} is no tensor of bytes, {shape}")


def read_content(path: Any, map_location: Any = None, mmap: bool = False, checksums: bool = False) -> Mapping[str, Any]:
    """A checkpoint of this package.

    Args:
        path: as for `open_checkpoint`.
        map_location: likewise.
        mmap: likewise.
        checksums: likewise.

    Raises:
        CheckpointError: it cannot be read, or was written by something else; the message begins with the path.
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
    """Compare a loaded checkpoint with the model it is to be loaded into.

    Args:
        checkpoint: as Lightning loaded it.
        model_id: id of this run's base model.
        fingerprint: of this run's base model.
        trained: this run's trainable parameters by name.

    Raises:
        CheckpointError: written by something else, for another base model, or for another adapter.
    """
    content = own_content(checkpoint)
    # Quantization changes all but embeddings and norms: then only those can be compared.
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
                for what, names in (("it lacks", missing), ("it alone has", surplus))
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
