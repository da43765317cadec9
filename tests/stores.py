"""Writer of MLflow stores as the engine lays them out, one store that several test files read, and a wait for one."""

import contextlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

START = 1_700_000_000_000  # ms; runs of the store start one second apart, in the order in which they are written


def until(
    condition: Callable[[], object], seconds: float = 120.0, complaint: str = "it did not happen", output: Any = str
) -> None:
    """Wait for another thread, process or machine; an entry that is not there yet raises KeyError.

    Args:
        output: a function that gives the text of a failure.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(KeyError):
            if condition():
                return
        time.sleep(seconds / 4000)
    raise AssertionError(f"{complaint} after {seconds:.0f} s\n{output()[-3000:]}")


class StoreWriter:
    """Writes sweeps and runs the way the engine lays them out."""

    def __init__(self, uri: str) -> None:
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self.client = MlflowClient(uri)
        self._clock = START

    def sweep(
        self, name: str, *, axes: Sequence[str], kind: str = "grid", present: Mapping[str, Any] | None = None
    ) -> str:
        """The id of a new experiment.

        Args:
            present: further tags sweep.* (goals, grid, searched, seeds, references, base).
        """
        tags = {"sweep.kind": kind, "sweep.axes": json.dumps(axes)}
        present = {"goals": [{"metric": "val/probe_top1"}]} | dict(present or {})
        tags |= {f"sweep.{key}": json.dumps(value) for key, value in present.items()}
        return self.client.create_experiment(name, tags=tags)

    def run(
        self,
        sweep: str,
        params: Mapping[str, Any],
        metrics: Mapping[str, float | Sequence[float]] | None = None,
        *,
        label: str = "",
        **tags: str,
    ) -> str:
        """The id of a new run; a list of values is a curve from epoch 1 on. Tags of the engine's default: finished."""
        self._clock += 1000
        common = {"method": "lejepa", "epochs": 3, "seed": 0, "data.path": "", "optim.lr": 0.001}
        tags = {"role": "cell", "status": "finished", "reason": "", "workers": "1"} | tags
        name = " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in params.items())
        run = self.client.create_run(sweep, start_time=self._clock, run_name=label or name)
        curves = {key: [value] if isinstance(value, float) else value for key, value in (metrics or {}).items()}
        self.client.log_batch(
            run.info.run_id,
            metrics=[
                Metric(key, value, self._clock, step)
                for key, values in curves.items()
                for step, value in enumerate(values, 1)
            ],
            params=[Param(key, str(value)) for key, value in (common | dict(params)).items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )
        if tags["status"] != "running":
            self.client.set_terminated(run.info.run_id, "FAILED" if tags["status"] == "failed" else "FINISHED")
        return run.info.run_id


def fill(uri: str) -> None:
    """Write the demo's sweeps, with cells in every state, into an empty store."""
    writer = StoreWriter(uri)
    _rectified(writer)
    _lejepa(writer)
    _seeds(writer)
    _fair(writer)
    _front(writer)
    writer.client.create_experiment("somebody_elses")
    writer.sweep("planned", axes=["method.lamb"])


def _rectified(writer: StoreWriter) -> None:
    listed = {"method.p": [1, 2], "method.mu": [0.5, 0, -1.0]}
    sweep = writer.sweep("demo_rectified_lpjepa", axes=[*listed], present={"grid": [listed]})

    def cell(p: float, mu: float, metrics: Mapping[str, Any], **tags: str) -> str:
        params = {"method.p": p, "method.mu": mu, "epochs": 5 if tags.get("cell_key") == "old" else 15}
        return writer.run(sweep, params, metrics, **tags)

    def measured(encoder: float, projector: float, nonzero: float, theory: float) -> dict[str, Any]:
        names = ("test/probe_top1", "test/projector_top1", "test/nonzero_fraction", "target/nonzero_fraction")
        values = dict(zip(names, (encoder, projector, nonzero, theory), strict=True))
        return values | {"val/probe_top1": [0.5, 0.75, encoder]}

    cell(1.0, 0.0, measured(0.11, 0.11, 0.11, 0.5), cell_key="old")  # from before somebody changed the epochs
    cell(1.0, 0.0, measured(0.9712, 0.9534, 0.61234, 0.5), cell_key="r10")
    restarted = cell(1.0, 0.5, measured(0.9765, 0.9611, 0.81, 0.7534), cell_key="r105")
    writer.client.log_metric(restarted, "val/probe_top1", 0.7, timestamp=2 * START, step=2)
    cell(1.0, -1.0, {"val/probe_top1": [0.4]}, cell_key="r1-1", status="diverged", reason="loss is nan at step 7")
    cell(2.0, 0.0, {"val/probe_top1": [0.6, 0.8]}, cell_key="r20", status="running")
    cell(2.0, -1.0, measured(0.9301, 0.8855, 0.2, 0.1587), cell_key="r2-1")
    cell(4.0, 0.0, measured(0.33, 0.33, 0.33, 0.33), cell_key="r40")  # before p = 4 was taken out of the grid
    deleted = cell(2.0, 0.5, measured(0.22, 0.22, 0.22, 0.22), cell_key="r205")
    writer.client.delete_run(deleted)
    writer.client.create_run(sweep, run_name="somebody's notebook")  # no cell key


def _lejepa(writer: StoreWriter) -> None:
    axes = ["method.lamb", "method.num_slices"]
    sweep = writer.sweep("demo_lejepa", axes=axes, kind="search")

    def trial(lamb: float, slices: int, metrics: Mapping[str, Any], **tags: str) -> None:
        params = {"method.lamb": lamb, "method.num_slices": slices, "optim.weight_decay": 1e-5}
        writer.run(sweep, params, metrics, **tags)

    def scores(val: float, linear: float, knn: float) -> dict[str, Any]:
        return {"val/probe_top1": val, "test/linear_top1": linear, "test/knn_top1": knn, "train/loss": 0.75}

    writer.run(sweep, {"epochs": 0}, scores(0.1, 0.861, 0.825), cell_key="init", role="reference")
    trial(0.3, 256, scores(0.95, 0.96, 0.94), cell_key="l3")
    trial(0.02, 1024, scores(0.98, 0.983, 0.972), cell_key="l1")
    trial(0.1, 512, {}, cell_key="l5", status="failed", reason="OutOfMemoryError")
    trial(0.05, 1024, scores(0.95, 0.99, 0.97), cell_key="l2")
    trial(0.2, 512, scores(0.9, 0.91, 0.92), cell_key="l4")
    trial(0.001, 256, {"val/probe_top1": [0.99]}, cell_key="l6", status="collapsed", reason="std of z is 0.0001")

    pair = writer.sweep("demo_two_workers", axes=[])
    params = {"method.lamb": 0.02, "method.num_slices": 1024, "optim.weight_decay": 1e-5}
    results = scores(0.98, 0.9802, 0.972) | {"train/loss": 0.7500001}
    writer.run(pair, params, results, cell_key="l1", workers="2")


def _seeds(writer: StoreWriter) -> None:
    sweep = writer.sweep("seeds", axes=["method.p", "method.mu"])
    for key, seed, accuracy, status in (
        ("s0", 0, 0.90, "finished"),
        ("s1", 1, 0.94, "finished"),
        ("t0", 0, 0.80, "finished"),
        ("t1", 1, 0.70, "diverged"),
    ):
        params = {"method.p": 1 if key[0] == "s" else 2, "method.mu": 0.0, "seed": seed}
        metrics = {"test/probe_top1": accuracy, "target/nonzero_fraction": 0.5}
        writer.run(sweep, params, metrics, cell_key=key, status=status)


def _fair(writer: StoreWriter) -> None:
    grids = [{"method.p": [1, 2], "method.mu": [0.0]}, {"method.p": [4], "method.mu": [1.0]}]
    goals = [{"metric": "val/probe_top1", "direction": "max", "over": "", "power": 0.0}]
    present = {"goals": goals, "grid": grids, "searched": ["optim.lr"], "seeds": [0, 1, 2]}
    sweep = writer.sweep("fair", axes=["method.p", "method.mu", "optim.lr"], kind="fair", present=present)

    def cell(key: str, p: int, mu: float, lr: float, seed: int, val: float, test: float, **tags: str) -> None:
        params = {"method.p": p, "method.mu": mu, "optim.lr": lr, "seed": seed}
        tags = {"epoch": "3"} | tags
        writer.run(sweep, params, {"val/probe_top1": val, "test/linear_top1": test}, cell_key=key, **tags)

    cell("a1", 1, 0.0, 0.1, 0, 0.80, 0.70)
    cell("a2", 1, 0.0, 0.2, 0, 0.90, 0.60)  # the best on val, not on test
    cell("a3", 1, 0.0, 0.3, 0, 0.95, 0.99, status="pruned", epoch="1")
    cell("a4", 1, 0.0, 0.4, 0, 0.97, 0.99, status="diverged", reason="loss is nan")
    cell("a5", 1, 0.0, 0.1, 1, 0.99, 0.99)  # of a former winner
    cell("a6", 1, 0.0, 0.2, 1, 0.10, 0.64)
    cell("a7", 1, 0.0, 0.2, 2, 0.99, 0.99, status="running")
    cell("a8", 1, 0.0, 0.2, 3, 0.99, 0.99)  # a seed that the file no longer lists
    cell("b2", 2, 0.0, 0.2, 0, 0.50, 0.30)
    cell("b1", 2, 0.0, 0.1, 0, 0.50, 0.40)
    cell("c1", 4, 1.0, 0.1, 0, 0.99, 0.99, status="running")
    cell("c2", 4, 1.0, 0.2, 0, 0.99, 0.99, status="failed", reason="OutOfMemoryError")
    cell("d1", 1, 1.0, 0.1, 0, 0.99, 0.99)  # p = 1 is not listed with mu = 1


def _front(writer: StoreWriter) -> None:
    goals = [{"metric": "val/probe_top1"}, {"metric": "val/nonzero_fraction", "direction": "min"}]
    sweep = writer.sweep("front", axes=["method.mu"], present={"goals": goals, "grid": [], "seeds": [0]})
    for mu, accuracy, fraction, status in (
        (1.0, 0.90, 0.80, "finished"),
        (0.5, 0.88, 0.40, "finished"),
        (0.0, 0.70, 0.30, "finished"),
        (-1.0, 0.60, 0.90, "finished"),
        (-2.0, 0.99, 0.01, "pruned"),
    ):
        metrics = {"val/probe_top1": accuracy, "val/nonzero_fraction": fraction}
        tags = {"cell_key": f"f{mu}", "status": status, "epoch": "2" if status == "pruned" else "3"}
        writer.run(sweep, {"method.mu": mu}, metrics, **tags)
    writer.client.create_run(sweep, run_name="plan", tags={"role": "plan"})  # the sweep's own
