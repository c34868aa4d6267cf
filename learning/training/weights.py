"""Files of weights: safetensors with a hash; loading one runs no code."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

import mixeddim.tensors
from learning.preconditioners.architectures import ARCHITECTURES, architecture_of

__all__ = ["Weights", "load_weights", "save_weights"]

_FORMAT = "1"


@dataclass(frozen=True, eq=False)
class Weights:
    """A model read from a file.

    Attributes:
        model: The model in float32 on the CPU, in evaluation mode.
        metadata: `format_version`, `architecture`, `num_parameters`, `sha256` and
            `mixeddim_version`, and the entries passed to `save_weights`.
        sha256: Hash of the tensors, equal to the one in the metadata.
    """

    model: nn.Module
    metadata: Mapping[str, str]
    sha256: str

    @property
    def architecture(self) -> str:
        """Name of the model's architecture."""
        return self.metadata["architecture"]


def save_weights(
    model: nn.Module, path: str | os.PathLike[str], metadata: Mapping[str, str] = {}
) -> None:
    """Write a model's weights in one step, so that a reader never sees half a file.

    Args:
        model: A float32 model of a class in `ARCHITECTURES`, on any device.
        path: File to write, usually `*.safetensors`; its folder is created if missing.
        metadata: Further entries of the metadata, for example {"training": a JSON string}.

    Raises:
        ValueError: If the model is of another type or dtype or not finite, or if the metadata are
            not strings or use a name that this function writes itself.
    """
    architecture = architecture_of(model)
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    _check_tensors(tensors, _new_model(architecture).state_dict())
    own = {
        "format_version": _FORMAT,
        "architecture": architecture,
        "num_parameters": str(sum(p.numel() for p in model.parameters())),
        "sha256": _sha256(tensors),
        "mixeddim_version": mixeddim.__version__,
    }
    for key, value in metadata.items():
        if key in own or not isinstance(key, str) or not isinstance(value, str):
            raise ValueError(
                f"got metadata {key!r}: {value!r}; wanted strings, under other names than "
                f"{[*own]}. Rename it, or convert it with json.dumps."
            )
    with mixeddim.tensors.replacing(Path(path)) as part:
        # Not save_file, whose files are readable by their owner alone.
        part.write_bytes(safetensors.torch.save(tensors, {**own, **metadata}))


def load_weights(path: str | os.PathLike[str]) -> Weights:
    """Read a model written by `save_weights`; checks its hash and runs no code from the file.

    Args:
        path: File to read.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, or of another format, version or architecture, or if
            its weights do not fit the architecture or are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"got {str(path)!r}, which is no file; wanted weights written by save_weights. Check "
            "the path, or train a model first."
        )
    try:
        metadata, tensors = _read(path)
        _check_metadata(metadata)
        model = _new_model(metadata["architecture"])
        _check_tensors(tensors, model.state_dict(), metadata["sha256"])
    except ValueError as error:
        raise ValueError(f"cannot load weights from {str(path)!r}: {error}") from error
    model.load_state_dict(tensors)
    return Weights(model.eval(), MappingProxyType(metadata), metadata["sha256"])


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return file.metadata() or {}, tensors
    except SafetensorError as error:
        raise ValueError(
            f"got a file that is damaged, cut short or no safetensors at all ({error}); wanted one "
            "written by save_weights. Copy or download it again."
        ) from error


def _check_metadata(metadata: Mapping[str, str]) -> None:
    version, architecture = metadata.get("format_version"), metadata.get("architecture")
    if version is None or architecture is None or "sha256" not in metadata:
        raise ValueError(
            "got safetensors without format_version, architecture and sha256 in its metadata; "
            "wanted a file written by save_weights. Load it into the model and save it again."
        )
    if version != _FORMAT:
        raise ValueError(
            f"got format version {version!r}; wanted {_FORMAT!r}. The file is from mixeddim "
            f"{metadata.get('mixeddim_version', 'of unknown version')}: install that version, or "
            "save the weights again."
        )
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"got architecture {architecture!r}; wanted one of {[*ARCHITECTURES]}. Install a "
            "version of mixeddim that has it."
        )


def _new_model(architecture: str) -> nn.Module:
    # The initial weights are replaced later; drawing them must not shift the caller's random state.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        return ARCHITECTURES[architecture].model()


def _check_tensors(
    tensors: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    sha256: str | None = None,
) -> None:
    missing, surplus = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
    if missing or surplus:
        raise ValueError(
            f"got weights that lack {sorted(missing)} and have {sorted(surplus)} besides; wanted "
            "exactly those of the architecture. Use weights saved from it."
        )
    for name, wanted in expected.items():
        got = tensors[name]
        if (got.shape, got.dtype) != (wanted.shape, wanted.dtype):
            raise ValueError(
                f"got {name} of shape {tuple(got.shape)} in {got.dtype}; wanted "
                f"{tuple(wanted.shape)} in {wanted.dtype}. Use weights saved from this "
                "architecture in that dtype (model.float())."
            )
    if sha256 is not None and (computed := _sha256(tensors)) != sha256:
        raise ValueError(
            f"got weights of SHA-256 {computed}; wanted {sha256}, as the file says. It is "
            "corrupted: copy or download it again."
        )
    for name, got in tensors.items():
        if not got.isfinite().all():
            raise ValueError(
                f"got NaN or infinity in {name}; wanted finite weights. Use an earlier checkpoint."
            )


def _sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    """Hash name, dtype and shape, a line of JSON, and then the bytes of each tensor, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        dtype = str(tensor.dtype).removeprefix("torch.")
        digest.update(json.dumps([name, dtype, [*tensor.shape]]).encode() + b"\n")
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
