"""Files of weights: read back as written, and every kind of damage noticed."""

import hashlib
import os
import stat

import numpy as np
import pytest
import safetensors.torch
import torch

import learning
import mixeddim as md
from learning.preconditioners.architectures import ARCHITECTURES
from learning.training.weights import load_weights, save_weights


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return learning.UNet()


def sha256(tensors):
    """The hash as a reader without torch would compute it."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name].numpy()
        shape = ", ".join(str(n) for n in array.shape)
        digest.update(f'["{name}", "{array.dtype}", [{shape}]]\n'.encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def write(path, tensors, **metadata):
    """Write a file whose hash fits, whatever is in it; metadata of None are left out."""
    own = {"format_version": "1", "architecture": "unet", "sha256": sha256(tensors)}
    metadata = {key: value for key, value in (own | metadata).items() if value is not None}
    path.write_bytes(safetensors.torch.save(tensors, metadata))


# --- What is written is read ------------------------------------------------------------------


def test_weights_and_metadata_are_read_as_they_were_written(unet, tmp_path):
    path = tmp_path / "new folder" / "unet.safetensors"
    save_weights(unet, path, {"training": '{"epochs": 3}'})
    weights = load_weights(path)
    assert not weights.model.training
    assert weights.sha256 == sha256(unet.state_dict())
    assert dict(weights.metadata) == {
        "format_version": "1",
        "architecture": "unet",
        "num_parameters": "1091217",
        "sha256": weights.sha256,
        "mixeddim_version": md.__version__,
        "training": '{"epochs": 3}',
    }
    inputs = torch.randn(1, 2, 5, 4, 6)
    with torch.no_grad():
        assert torch.equal(weights.model(inputs), unet(inputs))


def test_loaded_models_can_be_trained_further(unet, tmp_path):
    save_weights(unet, tmp_path / "w")
    model = load_weights(tmp_path / "w").model
    assert all(p.requires_grad for p in model.parameters())


def test_memory_layout_and_mode_of_the_model_do_not_matter(unet, tmp_path):
    other = learning.UNet().eval().to(memory_format=torch.channels_last_3d)
    other.load_state_dict(unet.state_dict())
    save_weights(unet, tmp_path / "a")
    save_weights(other, tmp_path / "b")
    assert load_weights(tmp_path / "a").sha256 == load_weights(tmp_path / "b").sha256


def test_loading_leaves_random_numbers_alone(unet, tmp_path):
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    save_weights(unet, tmp_path / "w")
    load_weights(tmp_path / "w")
    assert torch.rand(1) == wanted


def test_other_users_can_read_the_file_as_far_as_the_umask_lets_them(unet, tmp_path):
    previous = os.umask(0o022)
    try:
        save_weights(unet, tmp_path / "w")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "w").stat().st_mode) == 0o644


def test_a_save_that_fails_leaves_the_old_file(unet, tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_weights(unet, path)
    before = path.read_bytes()

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        save_weights(learning.UNet(), path)
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_saved_under_its_name(name, tmp_path):
    save_weights(ARCHITECTURES[name].model(), tmp_path / "w")
    assert load_weights(tmp_path / "w").architecture == name


# --- What is not written ----------------------------------------------------------------------


def with_nan(model):
    with torch.no_grad():
        model.second.weight[3, 0, 1, 1, 1] = torch.nan
    return model


MODELS = {
    "other type": (lambda: torch.nn.Linear(2, 2), "type Linear; wanted one of .'UNet'"),
    "wrapped": (lambda: torch.nn.DataParallel(learning.UNet()), "without the wrapper"),
    "float64": (lambda: learning.UNet().double(), "torch.float64; wanted .* in torch.float32"),
    "float16": (lambda: learning.UNet().half(), "torch.float16; wanted .* in torch.float32"),
    "not finite": (lambda: with_nan(learning.UNet()), "NaN or infinity in second.weight"),
}


@pytest.mark.parametrize(("model", "message"), MODELS.values(), ids=MODELS)
def test_models_that_could_not_be_loaded_are_not_saved(model, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        save_weights(model(), tmp_path / "w")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("metadata", [{"epochs": 3}, {3: "epochs"}, {"sha256": "0"}], ids=str)
def test_metadata_are_strings_under_names_of_their_own(unet, metadata, tmp_path):
    with pytest.raises(ValueError, match=r"got metadata .*; wanted strings, under other names"):
        save_weights(unet, tmp_path / "w", metadata)


# --- What is not read -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_path_without_a_file_is_an_error(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="which is no file; wanted weights written by"):
        load_weights(tmp_path / name)


BYTES = {
    "empty": lambda _: b"",
    "text": lambda _: b"weights are not written in prose",
    "cut in its header": lambda content: content[:100],
    "cut in its tensors": lambda content: content[:-1],
    "too long": lambda content: content + b"0",
    "a pickle": lambda _: b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x94.",
}


@pytest.mark.parametrize("damage", BYTES.values(), ids=BYTES)
def test_files_that_are_no_safetensors_are_errors(unet, damage, tmp_path):
    path = tmp_path / "w"
    save_weights(unet, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match="w': got a file that is damaged, cut short or no safe"):
        load_weights(path)


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_a_flipped_bit_is_noticed(unet, part, tmp_path):
    path = tmp_path / "w"
    save_weights(unet, path)
    content = bytearray(path.read_bytes())
    first = 8 + int.from_bytes(content[:8], "little")  # the header's length, and the header
    content[first + int(part * (len(content) - 1 - first))] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"got weights of SHA-256 .* corrupted"):
        load_weights(path)


METADATA = {
    "none": ({"format_version": None}, "without format_version, architecture and sha256"),
    "no hash": ({"sha256": None}, "without format_version, architecture and sha256"),
    "later format": (
        {"format_version": "2", "mixeddim_version": "7.0"},
        "got format version '2'; wanted '1'. The file is from mixeddim 7.0: install",
    ),
    "other architecture": (
        {"architecture": "os.system"},
        r"got architecture 'os.system'; wanted one of \['unet'",
    ),
}


@pytest.mark.parametrize(("metadata", "message"), METADATA.values(), ids=METADATA)
def test_files_of_another_kind_are_errors(unet, metadata, message, tmp_path):
    write(tmp_path / "w", unet.state_dict(), **metadata)
    with pytest.raises(ValueError, match=message):
        load_weights(tmp_path / "w")


def other(**tensors):
    """Replace, add or, where None, remove tensors."""
    return lambda state: {k: v for k, v in (state | tensors).items() if v is not None}


TENSORS = {
    "missing": (other(**{"head.bias": None}), r"lack \['head.bias'\] and have \[\] besides"),
    "surplus": (other(extra=torch.ones(1)), r"lack \[\] and have \['extra'\] besides"),
    "shape": (
        other(**{"head.bias": torch.zeros(2)}),
        r"got head.bias of shape \(2,\) in torch.float32; wanted \(1,\) in torch.float32",
    ),
    "dtype": (
        other(**{"head.bias": torch.zeros(1).half()}),
        r"got head.bias of shape \(1,\) in torch.float16; wanted \(1,\) in torch.float32",
    ),
    "NaN": (other(**{"head.bias": torch.tensor([torch.nan])}), "NaN or infinity in head.bias"),
    "infinite": (other(**{"head.bias": torch.tensor([torch.inf])}), "NaN or infinity in head.bias"),
}


@pytest.mark.parametrize(("change", "message"), TENSORS.values(), ids=TENSORS)
def test_weights_that_do_not_fit_are_errors(unet, change, message, tmp_path):
    write(tmp_path / "w", change(dict(unet.state_dict())))
    with pytest.raises(ValueError, match=message):
        load_weights(tmp_path / "w")


def test_the_unchanged_weights_of_these_tests_do_load(unet, tmp_path):
    """Or the errors above could come from the way these tests write files."""
    write(tmp_path / "w", unet.state_dict())
    assert load_weights(tmp_path / "w").sha256 == sha256(unet.state_dict())
