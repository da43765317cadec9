"""--scale: which sweep of a study runs, and what is said where it is missing, wrong or not wanted."""

import dataclasses
import json
import sys

import pytest

from jepa_train.base.errors import ConfigError
from jepa_train.config.scales import LEJEPA, RECTIFIED, SCALES, SEEDS, VITS, Scale
from sweeps import demo_lejepa, lejepa_batch
from sweeps.__main__ import main as several
from sweeps.engine import main
from sweeps.engine.plan.describe import experiment_tags
from sweeps.engine.plan.plan import make_plan
from sweeps.engine.spec.cells import fixed_cells
from sweeps.engine.spec.scale import at_scale


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(lejepa_batch.sweep, lejepa_batch.__file__, words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_scale_must_be_said_and_be_one_of_four(capsys: pytest.CaptureFixture[str]) -> None:
    missing = refusal(capsys)
    assert missing.startswith("error: --scale must be given, one of mini (the bundled digits, ")
    assert all(f"{name} ({about})" in missing for name, about in SCALES.items())
    assert "invalid choice: 'medium'" in refusal(capsys, "--scale", "medium")
    assert refusal(capsys, "--scale") == "error: --scale needs a value; --help lists the options"


def test_sweeps_without_scales_refuse_one() -> None:
    with pytest.raises(ConfigError, match=r"^--scale is of sweep files with scales, got mini for demo_lejepa; "):
        at_scale(demo_lejepa.SWEEP, "mini")


def test_help_tells_what_the_study_is_for(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["lejepa_batch.py"])
    with pytest.raises(SystemExit) as done:
        main(lejepa_batch.sweep, lejepa_batch.__file__, ["--help"])
    text = capsys.readouterr().out
    assert done.value.code == 0
    assert "LeJEPA, Table 1 c: the batch." in text
    assert "mini" in text


def test_several_studies_run_at_one_scale(capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path))
    assert several(["lejepa_batch", "--status", "--json", "--scale", "mini"]) == 0
    (facts,) = json.loads(capsys.readouterr().out)["sweeps"]
    assert facts["sweep"] == "lejepa_batch_mini"
    assert several(["lejepa_batch", "--status"]) == 2
    assert capsys.readouterr().err.startswith("error: --scale must be given")


def test_a_name_without_its_scale_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^name must end in the scale, got 'lejepa_batch' at mini; write "):
        dataclasses.replace(lejepa_batch.sweep("mini"), name="lejepa_batch")


def test_the_store_is_told_study_and_scale(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path))
    plan = make_plan(lejepa_batch.sweep("mini"), tmp_path / "lejepa_batch.py")
    tags = experiment_tags(plan)
    assert (tags["sweep.name"], tags["sweep.scale"]) == ("lejepa_batch", "mini")
    assert len(fixed_cells(plan.sweep, plan.base)) == 4 * len(SEEDS["mini"])


@pytest.mark.parametrize("scale", ["mini", "small", "lab"])
def test_no_ladder_has_the_papers_own_scale_and_all_have_the_others(scale: Scale) -> None:
    for ladder in (LEJEPA, RECTIFIED, VITS):
        assert scale in ladder
        assert "paper" not in ladder
