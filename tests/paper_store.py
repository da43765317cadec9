"""Exports of the papers' sweeps at the scale mini with synthetic numbers, from formulas that tests can repeat."""

import hashlib
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from made_runs import made_runs

BEST_LAMB = {2: 0.01, 4: 0.02, 8: 0.05}
LAMBS = (0.005, 0.01, 0.02, 0.05, 0.1)


def accuracy_of(views: int, lamb: float, seed: int) -> float:
    """Best at BEST_LAMB, higher with more views, .004 between seeds."""
    distance = math.log10(lamb / BEST_LAMB[views])
    return 0.9 + 0.01 * math.log2(views) - 0.05 * distance**2 + 0.004 * (seed - 1)


def nonzero_of(p: float, mu: float, seed: float) -> float:
    return 1 / (1 + math.exp(-(1.5 * mu + 0.3) / p)) + 0.01 * seed


def fill(folder: Path) -> None:
    for sweep in (lambda_views, sparsity, selection, search, targets, features, architectures, samples):
        sweep(folder)


def write(
    folder: Path,
    name: str,
    grid: Any,
    measure: Callable[[dict[str, Any]], dict[str, Any]],
    *,
    seeds: tuple[int, ...] = (0, 1),
    searched: tuple[str, ...] = (),
) -> None:
    """Write the export of a sweep; `measure` as in made_runs, where a list of values is a curve from epoch 1 on."""
    runs = made_runs(grid, measure, name=f"{name}_mini", seeds=seeds)
    text = f"What {name} expects to find.\n\n**Its table**\n\n| a |"
    runs = runs.assign(**{"sweep.name": name, "sweep.scale": "mini", "mlflow.note.content": text, "device_seconds": 36})
    runs["start_time"] = pd.to_datetime(1_700_000_000 + 60 * runs["start_time"], unit="s", utc=True)
    runs["end_time"] = runs["start_time"] + pd.Timedelta(36, unit="s")
    axes = json.loads(runs["sweep.axes"].iloc[0])
    runs["run_name"] = [
        " ".join(f"{key.rpartition('.')[2]}={run[key]}" for key in [*axes, "seed"]) for run in runs.iloc
    ]
    if searched:
        runs = runs.assign(**{"sweep.kind": "search", "sweep.searched": json.dumps(searched), "sweep.grid": "[]"})
    metrics = [key for key in runs if key.startswith(("train/", "val/", "test/", "target/"))]
    points = []
    for run, metric in itertools.product(runs.iloc, metrics):
        curve = run[metric] if isinstance(run[metric], list) else [run[metric]]
        points += [(run["run_id"], metric, epoch, value) for epoch, value in enumerate(curve, 1)]
    history = pd.DataFrame(points, columns=["run_id", "metric", "epoch", "value"]).dropna()
    runs[metrics] = runs[metrics].map(lambda value: value[-1] if isinstance(value, list) else value)
    about = {"sweep": f"{name}_mini", "experiment_id": name, "runs": len(runs), "digests": {}}
    about["tags"] = {key: runs[key].iloc[0] for key in runs if key.startswith(("sweep.", "mlflow."))}
    place = folder / about["sweep"]
    place.mkdir(parents=True)
    for file, frame in (("runs.parquet", runs), ("history.parquet", history)):
        content = frame.to_parquet(index=False)
        (place / file).write_bytes(content)
        about["digests"][file] = hashlib.sha256(content).hexdigest()
    (place / "sweep.json").write_text(json.dumps(about))


def lambda_views(folder: Path) -> None:
    grid = [
        {"views.num_global": [views], "method.lamb": [lamb for lamb in LAMBS if views > 2 or lamb < 0.1]}
        for views in BEST_LAMB
    ]

    def measure(config: dict[str, Any]) -> dict[str, Any]:
        views, lamb, seed = config["views.num_global"], config["method.lamb"], config["seed"]
        accuracy = accuracy_of(views, lamb, seed)
        metrics = {"val/probe_top1": [0.5, 0.7, accuracy - 0.02]}
        if (views, lamb, seed) == (8, 0.1, 2):
            return metrics | {"status": "diverged", "reason": "loss is nan at step 7", "epoch": 1}
        metrics["train/loss"] = [2.0, 1.5, lamb**0.4 * (2 - accuracy)]  # low where accuracy is high, once divided
        return metrics | {"train/sigreg": 1 / lamb, "train/invariance": 1 - accuracy, "test/probe_top1": accuracy}

    write(folder, "lejepa_lambda_views", grid, measure, seeds=(0, 1, 2))


def sparsity(folder: Path) -> None:
    def measure(config: dict[str, Any]) -> dict[str, Any]:
        p, mu, seed = config["method.p"], config["method.mu"], config["seed"]
        nonzero = nonzero_of(p, mu, seed)
        metrics = {"test/nonzero_fraction": nonzero, "target/nonzero_fraction": 0.9 * nonzero}
        metrics |= {"test/probe_top1": 0.9 - 0.2 * (1 - nonzero) ** 4 + 0.01 * p, "method.sigma_mode": "gn"}
        return metrics | {"val/probe_top1": [0.5, 0.8], "train/loss": [3.0, 2.0]}

    write(folder, "rectified_sparsity", {"method.p": [1.0, 2.0], "method.mu": [-2.0, -1.0, 0.0, 1.0]}, measure)


def selection(folder: Path) -> None:
    noise = iter(np.random.default_rng(0).normal(size=12))

    def measure(config: dict[str, Any]) -> dict[str, Any]:
        lamb, lr = config["method.lamb"], config["optim.lr"]
        if (lamb, lr) == (0.1, 0.01):
            return {"val/probe_top1": 0.3, "status": "diverged", "reason": "loss is nan"}
        if (lamb, lr) == (0.01, 0.01):
            metrics = {"val/probe_top1": 0.2, "train/loss": 0.9, "train/sigreg": 3.0, "train/invariance": 0.001}
            return metrics | {"status": "collapsed", "reason": "embedding_std"}
        quality = 0.8 - 0.05 * abs(math.log(lr / 0.003)) - 0.03 * abs(math.log(lamb / 0.03))
        loss = lamb**0.4 * (1.2 - quality + 0.01 * next(noise))
        parts = {"train/sigreg": 0.1 / lamb, "train/invariance": loss, "train/loss": loss}
        return parts | {"val/probe_top1": quality, "test/probe_top1": quality}

    grid = {"method.lamb": [0.01, 0.02, 0.05, 0.1], "optim.lr": [0.001, 0.003, 0.01]}
    write(folder, "lejepa_label_free", grid, measure, seeds=(0,))


def search(folder: Path) -> None:
    random = np.random.default_rng(1)
    lambs = [round(float(10 ** random.uniform(-3, -1)), 5) for _ in range(14)]
    grid = [{"method.lamb": [lamb], "method.num_slices": [256 * 2 ** int(random.integers(3))]} for lamb in lambs]

    def measure(config: dict[str, Any]) -> dict[str, Any]:
        lamb = config["method.lamb"]
        if lamb == lambs[5]:
            return {"val/probe_top1": 0.99, "status": "pruned", "epoch": 1}
        if lamb == lambs[7]:
            return {"status": "failed", "reason": "OutOfMemoryError"}
        accuracy = 0.9 - 0.1 * abs(math.log10(lamb / 0.02))
        metrics = {"val/probe_top1": [0.3, accuracy], "train/loss": [2.0, 1.0 - accuracy]}
        return metrics | {"test/probe_top1": accuracy}

    write(folder, "searched", grid, measure, seeds=(0,), searched=("method.lamb", "method.num_slices"))


def targets(folder: Path) -> None:
    grid = [
        {"method": ["rectified_lpjepa"], "method.mu": [-1.0, 0.0]},
        {"method": ["vicreg"], "method.nonneg": ["none", "relu"]},
    ]
    fractions = {-1.0: 0.2, 0.0: 0.5, "none": 1.0, "relu": 0.7}

    def measure(config: dict[str, Any]) -> dict[str, Any]:
        nonzero = fractions[config.get("method.mu", config.get("method.nonneg"))]
        metrics = {"test/entropy": nonzero + 0.1 * config["seed"], "test/hsic": 0.1 / nonzero}
        return metrics | {"test/nonzero_fraction": nonzero, "test/probe_top1": 0.8, "val/probe_top1": 0.7}

    write(folder, "rectified_targets", grid, measure)


def features(folder: Path) -> None:
    tops = {("rgg", True): 0.9, ("rgg", False): 0.7, ("gg", True): 0.6, ("gg", False): 0.88}

    def measure(config: dict[str, Any]) -> dict[str, Any]:
        rectified = config["method.rectified"]
        top = tops[config["method.target"], rectified]
        metrics = {"test/probe_top1": top + 0.02 * config["seed"], "test/projector_top1": top - 0.1}
        return metrics | {"test/nonzero_fraction": 0.5 if rectified else 1.0, "val/probe_top1": top}

    write(folder, "rectified_features", {"method.target": ["rgg", "gg"], "method.rectified": [True, False]}, measure)


def architectures(folder: Path) -> None:
    encoders = ["resnet18", "resnet34", "vit_tiny_patch8_224", "convnextv2_nano"]
    scores = {0.001: (0.9, 0.91), 0.01: (0.8, 0.95)}  # the best on val is not the best on test

    def measure(config: dict[str, Any]) -> dict[str, Any]:
        val, test = scores[config["optim.lr"]]
        return {"val/probe_top1": val, "test/probe_top1": test - 0.02 * encoders.index(config["model.encoder"])}

    write(folder, "lejepa_architectures", {"model.encoder": encoders, "optim.lr": [*scores]}, measure, seeds=(0,))


def samples(folder: Path) -> None:
    def measure(config: dict[str, Any]) -> dict[str, Any]:
        better = 0.02 * config["seed"] + (config["model.encoder"] == "resnet18") / 20
        shots = {f"test/shot{shots}_top1": 0.1 * place + better for place, shots in enumerate((1, 2, 5, 10), 2)}
        ends = {"test/finetune1_top1": 0.1, "test/finetune_top1": 0.9, "test/linear_top1": 0.8, "val/probe_top1": 0.8}
        return shots | ends

    write(folder, "lejepa_samples", {"model.encoder": ["resnet18", "levit_128"]}, measure)
