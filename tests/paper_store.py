"""A small store of the papers' sweeps with synthetic numbers, from formulas that tests can repeat.

Runs are written by plain SQL: MLflow's own interface would take half a minute.
"""

import hashlib
import itertools
import math
import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from stores import START, StoreWriter

BEST_LAMB = {2: 0.01, 4: 0.02, 8: 0.05}
LAMBS = (0.005, 0.01, 0.02, 0.05, 0.1)
COMMON = {"method": "lejepa", "epochs": 3, "seed": 0, "optim.lr": 0.001, "data.name": "digits", "views.num_local": 0}
COMMON |= {"model.encoder": "test_resnet", "probe.protocols": "linear"}
CODE = {"mlflow.source.git.commit": "c0ffee", "git_dirty": "false", "mlflow.user": "ada", "host": "here"}
GOALS = [{"metric": "val/probe_top1", "direction": "max", "over": "", "power": 0.0}]


def accuracy_of(views: int, lamb: float, seed: int) -> float:
    """Best at BEST_LAMB, higher with more views, .004 between seeds."""
    distance = math.log10(lamb / BEST_LAMB[views])
    return 0.9 + 0.01 * math.log2(views) - 0.05 * distance**2 + 0.004 * (seed - 1)


def nonzero_of(p: float, mu: float, seed: int) -> float:
    return 1 / (1 + math.exp(-(1.5 * mu + 0.3) / p)) + 0.01 * seed


class PaperStore:
    """Writer of sweeps and cells into the store of an existing file."""

    def __init__(self, file: Path) -> None:
        self._writer = StoreWriter(f"sqlite:///{file}")
        self._file = file
        self._rows: dict[str, list[dict[str, Any]]] = defaultdict(list)  # by table

    def sweep(self, name: str, grid: Any, seeds: tuple[int, ...], **present: Any) -> str:
        grids = grid if isinstance(grid, list) else [grid]
        axes = [*dict.fromkeys(key for one in grids for key in one), *present.get("searched", [])]
        present = {"grid": grids, "seeds": seeds, "goals": GOALS, "searched": []} | present
        kind = "search" if present["searched"] else "grid"
        made = self._writer.sweep(f"{name}_mini", axes=axes, kind=kind, present=present)
        text = f"What {name} expects to find.\n\n**Its table**\n\n| a |"
        for key, value in {"sweep.name": name, "sweep.scale": "mini", "mlflow.note.content": text}.items():
            self._writer.client.set_experiment_tag(made, key, value)
        return made

    def cell(self, sweep: str, params: dict[str, Any], metrics: dict[str, Any], **tags: str) -> None:
        """Add a run; a list of values is a curve from epoch 1 on."""
        label = " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in params.items())
        key = hashlib.sha256(f"{sweep} {label}".encode()).hexdigest()[:32]
        at = START + 60_000 * len(self._rows["runs"])
        tags = {"role": "cell", "status": "finished", "reason": "", "workers": "1", "cell_key": key[:16]} | tags
        tags = {"device_seconds": "36.0", "epoch": "3", "mlflow.runName": label} | tags | CODE
        run = {"run_uuid": key, "name": label, "experiment_id": sweep, "start_time": at, "end_time": at + 36_000}
        run |= {"status": "FAILED" if tags["status"] == "failed" else "FINISHED", "artifact_uri": f"/nowhere/{key}"}
        self._rows["runs"].append(run | {"source_type": "UNKNOWN", "user_id": "ada", "lifecycle_stage": "active"})
        for table, values in (("params", COMMON | params), ("tags", tags)):
            self._rows[table] += [{"key": name, "value": str(text), "run_uuid": key} for name, text in values.items()]
        for name, value in metrics.items():
            points = [
                {"key": name, "value": float(number), "timestamp": at, "step": epoch, "run_uuid": key, "is_nan": 0}
                for epoch, number in enumerate(value if isinstance(value, list) else [value], 1)
            ]
            self._rows["metrics"] += points
            self._rows["latest_metrics"].append(points[-1])

    def write(self) -> None:
        with closing(sqlite3.connect(self._file)) as store, store:
            for table, rows in self._rows.items():
                pd.DataFrame(rows).to_sql(table, store, if_exists="append", index=False)


def fill(file: Path) -> None:
    store = PaperStore(file)
    for sweep in (lambda_views, sparsity, selection, search, targets, features, architectures, samples):
        sweep(store)
    store.write()


def lambda_views(store: PaperStore) -> None:
    grids = [
        {"views.num_global": [views], "method.lamb": [lamb for lamb in LAMBS if views > 2 or lamb < 0.1]}
        for views in BEST_LAMB
    ]
    made = store.sweep("lejepa_lambda_views", grids, (0, 1, 2))
    cells = [
        (grid["views.num_global"][0], lamb, seed) for grid in grids for lamb in grid["method.lamb"] for seed in range(3)
    ]
    for views, lamb, seed in cells:
        params = {"views.num_global": views, "method.lamb": lamb, "seed": seed}
        accuracy = accuracy_of(views, lamb, seed)
        metrics: dict[str, Any] = {"val/probe_top1": [0.5, 0.7, accuracy - 0.02]}
        if (views, lamb, seed) == (8, 0.1, 2):
            store.cell(made, params, metrics, status="diverged", reason="loss is nan at step 7", epoch="1")
            continue
        metrics["train/loss"] = [2.0, 1.5, lamb**0.4 * (2 - accuracy)]  # low where accuracy is high, once divided
        metrics |= {"train/sigreg": 1 / lamb, "train/invariance": 1 - accuracy, "test/linear_top1": accuracy}
        store.cell(made, params, metrics)


def sparsity(store: PaperStore) -> None:
    grid = {"method.p": [1.0, 2.0], "method.mu": [-2.0, -1.0, 0.0, 1.0]}
    made = store.sweep("rectified_sparsity", grid, (0, 1))
    for p, mu, seed in itertools.product(*grid.values(), (0, 1)):
        params = {"method.p": p, "method.mu": mu, "seed": seed, "method.sigma_mode": "gn", "method": "rectified_lpjepa"}
        nonzero = nonzero_of(p, mu, seed)
        metrics = {"test/nonzero_fraction": nonzero, "target/nonzero_fraction": 0.9 * nonzero}
        metrics |= {"test/linear_top1": 0.9 - 0.2 * (1 - nonzero) ** 4 + 0.01 * p}
        store.cell(made, params, metrics | {"val/probe_top1": [0.5, 0.8], "train/loss": [3.0, 2.0]})


def selection(store: PaperStore) -> None:
    grid = {"method.lamb": [0.01, 0.02, 0.05, 0.1], "optim.lr": [0.001, 0.003, 0.01]}
    made = store.sweep("lejepa_label_free", grid, (0,))
    noise = iter(np.random.default_rng(0).normal(size=12))
    for lamb, lr in itertools.product(*grid.values()):
        params = {"method.lamb": lamb, "optim.lr": lr}
        if (lamb, lr) == (0.1, 0.01):
            store.cell(made, params, {"val/probe_top1": 0.3}, status="diverged", reason="loss is nan")
        elif (lamb, lr) == (0.01, 0.01):
            metrics = {"val/probe_top1": 0.2, "train/loss": 0.9, "train/sigreg": 3.0, "train/invariance": 0.001}
            store.cell(made, params, metrics, status="collapsed", reason="embedding_std")
        else:
            quality = 0.8 - 0.05 * abs(math.log(lr / 0.003)) - 0.03 * abs(math.log(lamb / 0.03))
            loss = lamb**0.4 * (1.2 - quality + 0.01 * next(noise))
            parts = {"train/sigreg": 0.1 / lamb, "train/invariance": loss, "train/loss": loss}
            store.cell(made, params, parts | {"val/probe_top1": quality, "test/linear_top1": quality})


def search(store: PaperStore) -> None:
    made = store.sweep("searched", [], (0,), searched=["method.lamb", "method.num_slices"])
    random = np.random.default_rng(1)
    for number in range(14):
        lamb = float(10 ** random.uniform(-3, -1))
        params = {"method.lamb": round(lamb, 5), "method.num_slices": int(random.choice([256, 512, 1024]))}
        accuracy = 0.9 - 0.1 * abs(math.log10(lamb / 0.02))
        if number == 5:
            store.cell(made, params, {"val/probe_top1": 0.99}, status="pruned", epoch="1")
        elif number == 7:
            store.cell(made, params, {}, status="failed", reason="OutOfMemoryError", epoch="0")
        else:
            metrics = {"val/probe_top1": [0.3, accuracy], "train/loss": [2.0, 1.0 - accuracy]}
            store.cell(made, params, metrics | {"test/linear_top1": accuracy})


def targets(store: PaperStore) -> None:
    listed = [
        {"method": ["rectified_lpjepa"], "method.mu": [-1.0, 0.0], "method.nonneg": [""]},
        {"method": ["vicreg"], "method.nonneg": ["none", "relu"], "method.mu": [""]},
    ]
    made = store.sweep("rectified_targets", listed, (0, 1))
    settings = [("rectified_lpjepa", "method.mu", -1.0, 0.2), ("rectified_lpjepa", "method.mu", 0.0, 0.5)]
    settings += [("vicreg", "method.nonneg", "none", 1.0), ("vicreg", "method.nonneg", "relu", 0.7)]
    for (method, key, value, nonzero), seed in itertools.product(settings, (0, 1)):
        metrics = {"test/nonzero_fraction": nonzero, "test/entropy": nonzero + 0.1 * seed, "test/hsic": 0.1 / nonzero}
        metrics |= {"test/linear_top1": 0.8, "val/probe_top1": 0.7}
        store.cell(made, {"method": method, key: value, "seed": seed}, metrics)


def features(store: PaperStore) -> None:
    made = store.sweep(
        "rectified_features", {"method.target": ["rgg", "gg"], "method.rectified": [True, False]}, (0, 1)
    )
    tops = {("rgg", True): 0.9, ("rgg", False): 0.7, ("gg", True): 0.6, ("gg", False): 0.88}
    for ((target, rectified), top), seed in itertools.product(tops.items(), (0, 1)):
        params = {"method": "rectified_lpjepa", "method.target": target, "method.rectified": rectified, "seed": seed}
        metrics = {"test/linear_top1": top + 0.02 * seed, "test/linear_projector_top1": top - 0.1}
        store.cell(made, params, metrics | {"test/nonzero_fraction": 0.5 if rectified else 1.0, "val/probe_top1": top})


def architectures(store: PaperStore) -> None:
    encoders = ["resnet18", "resnet34", "vit_tiny_patch8_224", "convnextv2_nano"]
    made = store.sweep("lejepa_architectures", {"model.encoder": encoders, "optim.lr": [0.001, 0.01]}, (0,))
    scores = ((0.001, 0.9, 0.91), (0.01, 0.8, 0.95))  # the best on val is not the best on test
    for (number, encoder), (lr, val, test) in itertools.product(enumerate(encoders), scores):
        metrics = {"val/probe_top1": val, "test/linear_top1": test - 0.02 * number}
        store.cell(made, {"model.encoder": encoder, "optim.lr": lr}, metrics)


def samples(store: PaperStore) -> None:
    encoders = ["resnet18", "levit_128"]
    made = store.sweep("lejepa_samples", {"model.encoder": encoders}, (0, 1))
    for encoder, seed in itertools.product(encoders, (0, 1)):
        metrics = {
            f"test/shot{shots}_top1": 0.1 * place + 0.02 * seed + (encoder == "resnet18") / 20
            for place, shots in enumerate((1, 2, 5, 10), 2)
        }
        metrics |= {"test/finetune1_top1": 0.1, "test/finetune_top1": 0.9}
        store.cell(
            made, {"model.encoder": encoder, "seed": seed}, metrics | {"test/linear_top1": 0.8, "val/probe_top1": 0.8}
        )
