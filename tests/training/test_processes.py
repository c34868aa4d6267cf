"""Training on several processes gives what one gives."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from learning.training import runs
from learning.training.loop import train
from learning.training.processes import check_agreement

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(250)
@pytest.mark.parametrize("batch_size", [5, 1])
def test_two_processes_train_as_one(
    tensors, history, static_stage, dataset, larger, tmp_path, batch_size
):
    """On two data sets. With batches of one, the second process has only zeros to add."""
    data_sets = [dataset, larger]
    stage = dataclasses.replace(static_stage, batch_size=batch_size, num_problems=3, num_epochs=1)
    script = (
        "import sys; from learning import Stage, load_dataset, load_weights, train\n"
        "data_sets = [load_dataset(file) for file in sys.argv[2:]]\n"
        f"run = train({stage!r}, data_sets, sys.argv[1], progress=False)\n"
        "load_weights(run.best)  # as the next stage does, in each process\n"
    )
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    result = subprocess.run(
        [*command, tmp_path / "script.py", tmp_path / "two", *(data.path for data in data_sets)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    one = train(stage, data_sets, tmp_path / "one", progress=False)
    for got, wanted in zip(history(tmp_path / "two"), history(one.path), strict=True):
        assert got == pytest.approx(wanted, rel=1e-4)
    for name, tensor in tensors(one.best).items():
        got = tensors(tmp_path / "two" / "best.safetensors")[name]
        torch.testing.assert_close(got, tensor, rtol=1e-3, atol=1e-4)


def test_processes_without_a_common_folder_are_refused(monkeypatch):
    def gather(states, own):
        states[:] = [own, (0, 0)]

    monkeypatch.setattr("torch.distributed.all_gather_object", gather)
    state = runs.TrainingState(None, None, epoch=1, batch=2)
    with pytest.raises(ValueError, match=r"got processes at .* \[\(1, 2\), \(0, 0\)\]; wanted all"):
        check_agreement(state, 2)
