"""The one real launch of `make test`: a grid with a cell that diverges, and a fair ablation with one that fails."""

import contextlib
import importlib
import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
from mlflow import MlflowClient

from jepa_train.config.flat import cell_key
from sweeps.engine.cli import modes
from sweeps.engine.cli.args import read_words
from sweeps.engine.cli.modes import launch_sweeps
from sweeps.engine.plan import plan
from sweeps.engine.spec import cells
from sweeps.engine.spec.sweep import Sweep

FILE = '''"""Every method, a reference, a candidate that fails, early stopping, and the seeds of the winners."""
import dataclasses
from optuna.distributions import CategoricalDistribution, FloatDistribution
from jepa_train.methods import METHODS
from jepa_train.presets import DIGITS
from sweeps.engine import Asha, Sweep
data = dataclasses.replace(DIGITS.data, name="digits_0_4")
probe = dataclasses.replace(DIGITS.probe, protocols="linear,knn", transfer="digits_5_9")
BASE = dataclasses.replace(DIGITS, data=data, probe=probe, epochs=2, global_batch=256)
GRID = Sweep(name="tiny_grid", purpose="Cells that end badly.", base=dataclasses.replace(DIGITS, epochs=1),
    grid={"optim.lr": [1e-3, 1e20]})
FAIR = Sweep(name="tiny_fair", purpose="Early stopping.", base=dataclasses.replace(DIGITS, epochs=2, global_batch=256),
    cpus_per_worker=2, space={"probe.lr": CategoricalDistribution([1e-7, 1e-6, DIGITS.probe.lr])}, trials=3,
    seeds=(0, 1), early_stopping=Asha(first=1))
def sweep(scale):
    return Sweep(name=f"golden_{scale}", scale=scale, purpose=__doc__, base=BASE, trials=1, seeds=(0, 1),
        grid=[{"method": [*METHODS]}, {"method": ["lejepa"], "global_batch": [2048]}],
        space={"optim.lr": FloatDistribution(1e-4, 1e-3)}, references=({"epochs": 0},), early_stopping=Asha(first=1))
'''


def launched(folder: Path, sweeps: Sequence[Sweep], *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command on sweeps whose files are in the folder."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setenv("JEPA_RESULTS", str(folder / "results"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(plan, "check_sizes", lambda *_: None)  # refuses the candidate that fails
        code = launch_sweeps([(sweep, folder / f"{sweep.study}.py") for sweep in sweeps], read_words(words))
    return code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="session")
def first(shared_ray: Path, template: bytes, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:  # noqa: ARG001
    """The launch, with its store, the plans that it made and the keys that it computed."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "results").mkdir()
    (folder / "results" / "mlflow.db").write_bytes(template)
    (folder / "golden.py").write_text(FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        module = importlib.import_module("golden")
        sweeps = [module.GRID, module.sweep("mini")]
        with (
            mock.patch.object(modes, "make_plan", wraps=plan.make_plan) as planned,
            mock.patch.object(cells, "cell_key", wraps=cell_key) as keyed,
        ):
            code, out, err = launched(folder, sweeps)
    return SimpleNamespace(
        folder=folder,
        sweeps=sweeps,
        fair=module.FAIR,
        launched=partial(launched, folder),
        code=code,
        out=out,
        err=err,
        plans=[call.args[0].name for call in planned.call_args_list],
        keys=[cell_key(call.args[0]) for call in keyed.call_args_list],
        client=MlflowClient(f"sqlite:///{folder / 'results' / 'mlflow.db'}"),
    )
