"""doctor: a machine that is ready, and each problem with its remedy.

Run: python -m pytest tests/integration/cli/test_doctor.py
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from folders_of_images import write_folder

from sweeps.__main__ import main
from sweeps.engine.cli import doctor

Doctor = Callable[..., dict[str, str]]


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder that does not exist yet, and no cluster."""
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "results"))
    for name in ("MLFLOW_TRACKING_URI", "OMP_NUM_THREADS", "JEPA_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


@pytest.fixture
def examined(capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Run doctor in this process. Returns name -> the line with its level, without repeated blanks."""

    def examine(*words: str) -> dict[str, str]:
        code = main(["doctor", *words])
        lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
        assert code == any(line.startswith("problem ") for line in lines)
        return {line.split()[1]: line for line in lines}

    return examine


def test_a_fresh_machine_is_ready_and_doctor_writes_nothing(results: Path, examined: Doctor) -> None:
    found = examined("demo_rectified_lpjepa")
    assert {line.split()[0] for line in found.values()} <= {"ok", "warning"}
    assert {"Python", "packages", "CPU", "memory", "results", "store", "Ray"} <= found.keys()
    assert found["demo_rectified_lpjepa"].startswith("ok demo_rectified_lpjepa data digits")
    assert not results.exists()


def test_the_data_of_a_sweep_is_checked(examined: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(doctor.CHECKS, "Python")  # takes seconds
    found = examined("colour_folder", "demo_two_workers", "data.path=/nowhere")
    assert found["colour_folder"].startswith("problem colour_folder data.path must be a folder, got '/nowhere'")
    assert found["demo_two_workers"].startswith("warning demo_two_workers base is the best cell of sweep 'demo_lejepa'")


def test_a_sweep_outside_the_checkout_is_checked_by_its_path(
    examined: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    for slow in ("Python", "Ray"):
        monkeypatch.delitem(doctor.CHECKS, slow)
    (tmp_path / "my_values.py").write_text("LAMBS = [0.1]\n")
    (tmp_path / "my_folder.py").write_text(
        "from my_values import LAMBS\nfrom jepa_train.presets import DIGITS\nfrom sweeps.engine import Sweep\n"
        "SWEEP = Sweep(name='my_folder', purpose='', base=DIGITS, grid={'method.lamb': LAMBS})\n"
    )
    for name in ("my_folder.py", str(tmp_path / "my_folder.py")):
        assert examined(name)["my_folder"].startswith("ok my_folder data digits")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ([], "the first word must be a sweep, doctor, best or fetch; --help lists them"),
        (["doctor", "mine"], "'mine' is no sweep; doctor mine.py checks it"),
        (["mine"], "'mine' is no sweep; python mine.py runs it"),
        (["mine.py"], "'mine.py' is no sweep; python mine.py runs it"),
        (["other"], "'other' is no sweep; --help lists them"),
        (["doctor", "other"], "'other' is no sweep; --help lists them, and doctor takes the path of a file"),
        (["doctor", "other.py"], "doctor must get a sweep or the path of its file, got 'other.py'; there is no such"),
        (["doctor", "mine.py"], "{here}/mine.py: SWEEP must be Sweep(...), got None; write SWEEP = Sweep(name='mine'"),
    ],
)
def test_an_unknown_sweep_is_one_line_with_the_remedy(
    words: list[str], error: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").touch()
    assert main(words) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"error: {error.format(here=tmp_path)}")
    assert line.count("\n") == 1


def test_files_that_are_no_part_of_the_data_are_a_warning(examined: Doctor, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos")
    (folder / "train" / "ant" / ".DS_Store").write_text("x")
    found = examined("colour_folder", f"data.path={folder}")
    assert found["images"].startswith(
        f"ok images {folder}: 18 images of 2 classes (train 10, val 2, test 6); not used: 1 "
    )
    assert found["colour_folder"].startswith(
        "problem colour_folder global_batch must not exceed the 10 training images"
    ), "as a launch says"
    (folder / "train" / "ant" / "0.heic").write_text("x")
    found = examined("colour_folder", f"data.path={folder}")
    assert found["images"].startswith("warning images ")
    assert "not used: 1 *.heic (train/ant/0.heic), 1 hidden (train/ant/.DS_Store); 18 to be read" in found["images"]


@pytest.mark.parametrize(
    ("variable", "text", "name", "line"),
    [
        ("RAY_ADDRESS", "127.0.0.1:9", "Ray", "problem Ray .*got nothing from 127.0.0.1:9"),
        ("MLFLOW_TRACKING_URI", "http://me:canary@127.0.0.1:9", "store", "problem store .*; start the server"),
        ("JEPA_RESULTS", "/etc/passwd/x", "results", "problem results .* set JEPA_RESULTS"),
        ("JEPA_STORAGE", "s3://me:canary@bucket", "storage", "problem storage .* must hold no credentials"),
        ("JEPA_STORAGE", ".", "storage", "ok storage .* can be written to"),
    ],
)
def test_findings_by_environment(
    variable: str, text: str, name: str, line: str, examined: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    for slow in {"Python", "Ray"} - {name}:
        monkeypatch.delitem(doctor.CHECKS, slow)
    found = examined()
    assert re.match(line, found[name]), found[name]
    assert "canary" not in "".join(found.values())


def test_an_sqlite_store_and_metrics_that_wait(
    results: Path, template: bytes, examined: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(doctor.CHECKS, "Python")  # takes seconds
    (results / "spool").mkdir(parents=True)
    (results / "spool" / "study.jsonl").write_text("x" * 2_000_000)
    file = results / "mlflow.db"
    file.write_bytes(template)
    found = examined()
    assert found["store"].startswith("ok store sqlite:")
    assert found["offline"].startswith("warning offline queue 2.0 MB of metrics wait for the store; the next launch")
    file.write_text("no database" * 100)
    assert examined()["store"].startswith("problem store")


def test_packages_out_of_bounds(examined: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = (
        "jepa-sweeps 1.0 has requirement timm>=1.0.20, but you have timm 0.9.\nother 1 requires x, which is absent.\n"
    )
    monkeypatch.setattr(doctor, "subprocess", SimpleNamespace(run=lambda *_, **__: SimpleNamespace(stdout=answer)))
    monkeypatch.setattr(doctor, "version_of", lambda name: "not installed" if name == "ray" else "1")
    line = examined()["packages"]
    assert line.startswith("problem packages jepa-sweeps 1.0 has requirement timm>=1.0.20, but you have timm 0.9., ray")
    assert line.endswith("ray is not installed; pip install -r requirements.lock, then -e .")
