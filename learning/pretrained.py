"""Load trained preconditioners, from the package or from a training run."""

from __future__ import annotations

import os
from importlib import resources

import torch

from learning.devices import usable_device
from learning.krylov.preconditioner import Preconditioner
from learning.preconditioners.architectures import preconditioner_of
from learning.training.weights import load_weights

__all__ = ["PRETRAINED", "load_preconditioner", "load_pretrained", "pretrained_card"]

PRETRAINED = {
    "multigrid": "ecd3660c9e754d8c83bd1f2288ce3fc9b4ebc5f4258bbe70b9f8c5842da07f30",
    "unet-static": "0911eb74ed1ab64465aba7746fbd6081960de3ece66c3784580495d057862d31",
    "unet-dynamic": "cb1209760c67ec5ace9193a3f95ccad4769aad3ccf377f883c2172b2425ba0ac",
}
"""SHA-256 of the tensors of each model in learning/pretrained_weights, by name.

A file that was exchanged is noticed: the hash inside it may fit its tensors, this one does not. The
README of that folder says how to add a model.
"""

_FOLDER = resources.files("learning") / "pretrained_weights"


def load_pretrained(name: str, device: torch.device | str = "cpu") -> Preconditioner:
    """Load a preconditioner that comes with the package.

    Args:
        name: One of `PRETRAINED`; `pretrained_card(name)` says what it was trained on.
        device: Where it is to run, the device of `learning.solve`.

    Raises:
        FileNotFoundError: If the package was installed without its weights.
        ValueError: If there is no such model or device, or if the file does not hold the weights
            that this version of the package ships.
    """
    _check_name(name)
    with resources.as_file(_FOLDER / f"{name}.safetensors") as path:
        return _load(path, device, PRETRAINED[name])


def load_preconditioner(
    path: str | os.PathLike[str], device: torch.device | str = "cpu"
) -> Preconditioner:
    """Load a preconditioner from a file of weights, such as the `best.safetensors` of a run.

    Args:
        path: File written by training or by `learning.save_weights`.
        device: Where it is to run, the device of `learning.solve`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no complete weights (see `learning.load_weights`), or if there is
            no such device.
    """
    return _load(path, device)


def pretrained_card(name: str) -> str:
    """Return the model card of a preconditioner that comes with the package, in Markdown.

    It states data, protocol, hardware, time, metrics and limits.

    Args:
        name: One of `PRETRAINED`.

    Raises:
        ValueError: If there is no such model.
    """
    _check_name(name)
    return (_FOLDER / f"{name}.md").read_text(encoding="utf-8")


def _check_name(name: str) -> None:
    if name not in PRETRAINED:
        raise ValueError(
            f"got name={name!r}; wanted one of {sorted(PRETRAINED)}. For weights in a file of your "
            "own use load_preconditioner(path)."
        )


def _load(
    path: str | os.PathLike[str], device: torch.device | str, sha256: str | None = None
) -> Preconditioner:
    weights = load_weights(path)
    if sha256 is not None and weights.sha256 != sha256:
        raise ValueError(
            f"got weights of SHA-256 {weights.sha256} in {os.fspath(path)!r}; wanted {sha256}, "
            "those of this version of the package. Install it again, or use "
            "load_preconditioner(path) if you mean these weights."
        )
    return preconditioner_of(weights.model.to(usable_device(device)))
