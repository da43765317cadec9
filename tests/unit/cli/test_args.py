"""Command-line words of a sweep: options, and the one-line errors.

Run: python -m pytest tests/unit/cli/test_args.py
"""

from pathlib import Path

import pytest

from jepa_train.base.errors import ConfigError
from sweeps.__main__ import main
from sweeps.engine.cli.args import Options, read_words


def test_words_become_options() -> None:
    assert read_words(["a", "--retry", "failed", "data.path=/d", "b", "--max-gpu-hours=2.5", "--json"]) == Options(
        names=("a", "b"), places=("data.path=/d",), retry=frozenset({"failed"}), max_gpu_hours=2.5, json=True
    )
    assert read_words(["--take-over", "--scale", "mini"]) == Options(take_over=True, scale="mini")
    for label in (["lamb=0.1 seed=0"], ["lamb=0.1", "seed=0"]):  # the second as `ray submit` passes it on
        options = read_words(["data.path=/d", "--explain", *label, "--json"])
        assert (options.explain, options.places) == ("lamb=0.1 seed=0", ("data.path=/d",))


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--dryrun"], "--dryrun is not an option; did you mean '--dry-run'?"),
        (["--explain"], "--explain needs a value"),
        (["--explain", ""], "--explain needs a key or a label, got a blank"),
        (["--retry", "diverged"], "--retry: invalid choice: 'diverged'"),
        (["--max-gpu-hours", "nan"], "--max-gpu-hours must be positive, got nan"),
        (["--status", "--dry-run"], "--dry-run: not allowed with argument --status"),
    ],
)
def test_wrong_words_are_refused_in_one_line(words: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        read_words(words)
    assert str(refused.value).startswith(error)
    assert main(["demo_lejepa", *words]) == 2
    assert capsys.readouterr().err == f"error: {refused.value}\n"


def test_names_of_sweeps_are_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["demo_lejpa"]) == 2
    assert capsys.readouterr().err.startswith("error: 'demo_lejpa' is no sweep; did you mean 'demo_lejepa'?")
    assert main(["demo_lejepa", "demo_lejepa"]) == 2
    assert capsys.readouterr().err.endswith("\nerror: sweep demo_lejepa is given twice; name it once\n")
    monkeypatch.setattr("sweeps.__path__", [str(tmp_path)])
    for name, body in (("no_sweep", "None"), ("wrong_base", "Sweep(name='wrong_base', purpose='', base=1)")):
        (tmp_path / f"{name}.py").write_text(f"from sweeps.engine import Sweep\nSWEEP = {body}\n")
    assert main(["no_sweep"]) == main(["wrong_base"]) == 2
    error = capsys.readouterr().err
    assert "no_sweep.py: SWEEP must be Sweep(...), got None" in error
    assert "\nerror: base must" in error
