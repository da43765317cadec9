"""A term of a method's loss that the glossary does not know, in the summary of a single training.

tests/unit/analysis/tables/test_default.py has it in tables, tests/unit/analysis/figures/test_figures.py in the curves.

Run: python -m pytest tests/unit/methods/test_own_terms.py
"""

import re

import pytest

from jepa_train import __main__ as command_line


def test_the_summary_has_terms_that_the_glossary_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {"epoch": 3.0, "train/loss": 2.0, "train/own_term": 0.25, "transfer/dtd/linear_top1": 0.5}
    monkeypatch.setattr(command_line, "evaluate_checkpoint", lambda *_: metrics)
    assert command_line.main(["--evaluate", "final.pt"]) == 0
    rows = re.findall(r"[│|] *(\S+) +[│|] *([\d.]*) ", capsys.readouterr().out)
    assert {("loss", "2"), ("own_term", "0.25")} <= {*rows}
