"""Stages: those of the paper, and what is refused."""

import dataclasses

import pytest

from learning.training.stages import STAGES


def test_mixed_precision_is_for_architectures_that_have_it(static_stage, tilted):
    with pytest.raises(ValueError, match="mixed_precision=True with architecture='tilted', whi"):
        dataclasses.replace(static_stage, architecture=tilted, mixed_precision=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "error"}, "got loss='error'; wanted one of"),
        ({"loss": "energy"}, "loss='energy' with architecture='unet', .* wanted .*'log_sine'"),
        ({"architecture": "linear"}, r"got architecture='linear'; wanted one of \['unet'"),
        ({"families": ("canonical", "smooth")}, "smooth.*wanted some of"),
        ({"families": ()}, "wanted some of"),
        ({"batch_size": 0}, "got batch_size=0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0.* wanted a positive"),
        ({"static_weight": 1.5}, "static_weight=1.5.* one from 0 to 1"),
        ({"seed": -1}, "seed=-1.* not negative"),
    ],
)
def test_wrong_stages_are_refused(static_stage, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(static_stage, **change)


def test_the_papers_stages_are_those_of_its_tables():
    static, dynamic = STAGES["paper-static"], STAGES["paper-dynamic"]
    assert static.num_problems * len(static.families) == 2400
    assert static.num_validation * len(static.families) == 600
    assert (static.batch_size, static.num_epochs) == (5, 250)
    assert (dynamic.num_problems, dynamic.num_validation) == (100, 20)
    assert (dynamic.batch_size, dynamic.num_epochs, dynamic.num_steps) == (20, 150, 10)
