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
        names=("a", "b"), overrides=("data.path=/d",), retry=frozenset({"failed"}), max_gpu_hours=2.5, json=True
    )
    assert read_words(["--take-over", "--scale", "mini"]) == Options(take_over=True, scale="mini")
    for label in (["lamb=0.1 seed=0"], ["lamb=0.1", "seed=0"]):  # the second as `ray submit` passes it on
        options = read_words(["data.path=/d", "--explain", *label, "--json"])
        assert (options.explain, options.overrides) == ("lamb=0.1 seed=0", ("data.path=/d",))


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", (3,)), ("0-4", (0, 1, 2, 3, 4)), ("0,2,5", (0, 2, 5)), ("7, 0 - 1", (7, 0, 1))]
)
def test_seeds_are_a_number_a_range_or_a_list(text: str, seeds: tuple[int, ...]) -> None:
    assert read_words(["--seeds", text]).seeds == seeds


def test_only_and_overrides_stand_in_any_order_and_watch_is_a_status() -> None:
    options = read_words(["--only", "lamb=0.1", "epochs=5", "--only", "seed=0", "--limit", "2"])
    assert (options.only, options.overrides, options.limit) == (("lamb=0.1", "seed=0"), ("epochs=5",), 2)
    assert read_words(["--watch"]).status
    assert read_words(["--watch", "--status"]).watch


@pytest.mark.parametrize(
    ("words", "error"),
    [
        *(
            (["--seeds", text], f"--seeds must be like 0-4, 0,2,5 or 3, at most 1000 of them, got {text!r}")
            for text in ("", "4-0", "a", "0-", "-1", "0,,1", "0.5", "0-1000")
        ),
        (["--seeds"], "--seeds needs a value"),
        (["--limit", "0"], "--limit must be a number of cells above 0, got 0"),
        (["--limit", "two"], "--limit: invalid int value: 'two'"),
        (["--only"], "--only needs a value"),
        (["--only", "lamb=1", "--status"], "--only chooses the cells that a launch runs, got it with --status"),
        (["--only", "lamb=1", "--watch"], "--only chooses the cells that a launch runs, got it with --status"),
        (["--only", "a=1", "--explain", "a=1"], "--only chooses the cells that a launch runs, got it with --explain"),
        (["--limit", "1", "--evaluate"], "--limit is the number of cells that a launch runs, got it with --evaluate"),
        (["--watch", "--dry-run"], "--watch refreshes --status, got it with --dry-run; leave one out"),
        (
            ["--watch", "--json"],
            "--watch is for reading, got it with --json; leave one out",
        ),
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
