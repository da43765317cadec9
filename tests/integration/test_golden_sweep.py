"""Names that a launch writes to the store, and a launch on an old store, against the golden files.

See tests/golden_files.py for these files and how to renew them. The launch is that of tests/integration/conftest.py, in
the session of `shared_ray`.

Run: python -m pytest tests/integration/test_golden_sweep.py
"""

import json
import re
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from golden_files import DEMO, hold, write_old_store
from mlflow import MlflowClient

from jepa_train.methods import METHODS
from sweeps.__main__ import main as sweeps


def form(text: str) -> str:
    """Format of a value in the store."""
    if re.fullmatch(r"[\[{].*[\]}]", text, flags=re.DOTALL):
        value = json.loads(text)
        fields = sorted({key for item in value if isinstance(item, dict) for key in item})
        return f"JSON {type(value).__name__}" + (f" of {', '.join(fields)}" if fields else "")
    for pattern, name in (
        (r"-?\d+", "integer"),
        (r"-?\d+(\.\d+)?(e[-+]\d+)?", "number"),
        ("True|False", "True, False"),
        ("true|false", "true, false"),
    ):
        if re.fullmatch(pattern, text):
            return name
    return "text"


def stored_names(client: MlflowClient, sweep: str) -> dict[str, str]:
    """Names in the store of a sweep -> formats of their values, or the few values; and the methods that have them."""
    found: dict[str, set[str]] = defaultdict(set)
    experiment = client.get_experiment_by_name(sweep)
    for tag, text in experiment.tags.items():
        found[f"experiment tag {tag}"].add(text if tag in ("sweep.kind", "sweep.scale") else form(text))
    methods: dict[str, set[str]] = defaultdict(set)
    for run in client.search_runs([experiment.experiment_id]):
        kind = "plan" if run.data.tags["role"] == "plan" else "cell"
        for tag, text in run.data.tags.items():
            literal = tag in ("role", "status", "mlflow.source.type")
            free = re.search(r"key|version|commit|host|user", tag)  # which may look like a number
            found[f"{kind} tag {tag}"].add(text if literal else "text" if free else form(text))
        for file in client.list_artifacts(run.info.run_id):
            found[f"{kind} artifact {file.path}"].add("file")
        for dataset in run.inputs.dataset_inputs:
            found[f"{kind} data set"] |= {f"{tag.key}={tag.value}" for tag in dataset.tags}
        for name, text in run.data.params.items():
            found[f"{kind} parameter {name}"].add(form(text))
            methods[f"{kind} parameter {name}"].add(run.data.params["method"])
        for name in run.data.metrics:
            found[f"{kind} metric {name}"].add("number")
            methods[f"{kind} metric {name}"].add(run.data.params["method"])
    rare = re.compile("lost_device_seconds|git_patch|uncommitted-")  # of a loss of workers, and of a dirty checkout
    formats = {name: ", ".join(sorted(forms)) for name, forms in found.items() if not rare.search(name)}
    some = {name: f" ({', '.join(sorted(of))})" for name, of in methods.items() if of != {*METHODS}}
    return {name: text + some.get(name, "") for name, text in formats.items()}


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has metrics of its own")
def test_names_and_formats_that_a_sweep_writes_to_the_store(first: SimpleNamespace) -> None:
    """Not covered: the tag sweep.holder, which exists only during a launch, and evaluated_by, which --evaluate adds."""
    hold("stored_names.json", stored_names(first.client, "golden_mini"))


def test_the_old_store_counts_as_done(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_old_store(results)

    def facts_of(*words: str) -> dict[str, Any]:
        assert sweeps([*words, "--json"]) == 0
        return {sweep["sweep"]: sweep for sweep in json.loads(capsys.readouterr().out)["sweeps"]}

    assert {name: facts["states"] for name, facts in facts_of(*DEMO, "--status").items()} == {
        name: {"finished": count} for name, count in DEMO.items()
    }
    for name, count in DEMO.items():  # one by one: the base of the last is the first's best cell
        facts = facts_of(name, "--dry-run")[name]
        assert (facts["total"], facts["done"], facts["to_run"]) == (count, count, 0)
    launched = {name: (facts["total"], facts["ran"]) for name, facts in facts_of(*DEMO).items()}
    assert launched == {name: (count, 0) for name, count in DEMO.items()}
