"""A small store of the papers' sweeps with made-up numbers, from formulas that tests can repeat."""

import math
from typing import Any

import numpy as np
from conftest import StoreWriter

BEST_LAMB = {2: 0.01, 4: 0.02, 8: 0.05}
LAMBS = (0.005, 0.01, 0.02, 0.05, 0.1)
COMMON = {"data.name": "digits", "model.encoder": "test_resnet", "views.num_local": 0, "probe.protocols": "linear"}
CODE = {"mlflow.source.git.commit": "c0ffee", "git_dirty": "false", "mlflow.user": "ada", "host": "here"}
GOALS = [{"metric": "val/probe_top1", "direction": "max", "over": "", "power": 0.0}]


def accuracy_of(views: int, lamb: float, seed: int) -> float:
    """Best at BEST_LAMB, higher with more views, .004 between seeds."""
    distance = math.log10(lamb / BEST_LAMB[views])
    return 0.9 + 0.01 * math.log2(views) - 0.05 * distance**2 + 0.004 * (seed - 1)


def nonzero_of(p: float, mu: float, seed: int) -> float:
    return 1 / (1 + math.exp(-1.5 * mu / p)) + 0.01 * seed


def fill(writer: StoreWriter) -> None:
    lambda_views(writer)
    sparsity(writer)
    selection(writer)
    search(writer)
    targets(writer)
    features(writer)
    architectures(writer)
    samples(writer)


def sweep(writer: StoreWriter, name: str, grid: Any, seeds: tuple[int, ...], **present: Any) -> str:
    grids = grid if isinstance(grid, list) else [grid]
    axes = [*dict.fromkeys(key for one in grids for key in one), *present.get("searched", [])]
    present = {"grid": grids, "seeds": seeds, "goals": GOALS, "searched": []} | present
    made = writer.sweep(f"{name}_mini", axes=axes, kind="search" if present["searched"] else "grid", present=present)
    text = f"What {name} expects to find.\n\n**Its table**\n\n| a |"
    tags = {"sweep.name": name, "sweep.scale": "mini", "mlflow.note.content": text}
    for key, value in tags.items():
        writer.client.set_experiment_tag(made, key, value)
    return made


def cell(writer: StoreWriter, made: str, params: dict[str, Any], metrics: dict[str, Any], **tags: str) -> str:
    tags = {"cell_key": " ".join(map(str, params.values())), "device_seconds": "36.0", "epoch": "3"} | tags
    return writer.run(made, COMMON | params, metrics, **tags, **CODE)


def lambda_views(writer: StoreWriter) -> None:
    grids = [
        {"views.num_global": [views], "method.lamb": [lamb for lamb in LAMBS if views > 2 or lamb < 0.1]}
        for views in BEST_LAMB
    ]
    made = sweep(writer, "lejepa_lambda_views", grids, (0, 1, 2))
    for grid in grids:
        for views in grid["views.num_global"]:
            for lamb in grid["method.lamb"]:
                for seed in (0, 1, 2):
                    params = {"views.num_global": views, "method.lamb": lamb, "seed": seed}
                    accuracy = accuracy_of(views, lamb, seed)
                    curve = {"val/probe_top1": [0.5, 0.7, accuracy - 0.02]}
                    if (views, lamb, seed) == (8, 0.1, 2):
                        reason = "loss is nan at step 7"
                        cell(writer, made, params, curve, status="diverged", reason=reason, epoch="1")
                        continue
                    # The lower the loss, the higher the accuracy, once it is divided by lamb^.4
                    loss = [2.0, 1.5, lamb**0.4 * (2 - accuracy)]
                    parts = {"train/sigreg": 1 / lamb, "train/invariance": 1 - accuracy}
                    cell(writer, made, params, curve | parts | {"train/loss": loss, "test/linear_top1": accuracy})


def sparsity(writer: StoreWriter) -> None:
    grid = {"method.p": [1.0, 2.0], "method.mu": [-2.0, -1.0, 0.0, 1.0]}
    made = sweep(writer, "rectified_sparsity", grid, (0, 1))
    for p in grid["method.p"]:
        for mu in grid["method.mu"]:
            for seed in (0, 1):
                params = {"method.p": p, "method.mu": mu, "seed": seed, "method.sigma_mode": "gn"}
                nonzero = nonzero_of(p, mu, seed)
                metrics = {"test/nonzero_fraction": nonzero, "target/nonzero_fraction": 0.9 * nonzero}
                metrics |= {"test/linear_top1": 0.9 - 0.2 * (1 - nonzero) ** 4 + 0.01 * p}
                metrics |= {"val/probe_top1": [0.5, 0.8], "train/loss": [3.0, 2.0]}
                cell(writer, made, params | {"method": "rectified_lpjepa"}, metrics)


def selection(writer: StoreWriter) -> None:
    grid = {"method.lamb": [0.01, 0.02, 0.05, 0.1], "optim.lr": [0.001, 0.003, 0.01]}
    made = sweep(writer, "lejepa_label_free", grid, (0,))
    noise = iter(np.random.default_rng(0).normal(size=12))
    for lamb in grid["method.lamb"]:
        for lr in grid["optim.lr"]:
            params = {"method.lamb": lamb, "optim.lr": lr}
            if (lamb, lr) == (0.1, 0.01):
                cell(writer, made, params, {"val/probe_top1": 0.3}, status="diverged", reason="loss is nan")
            elif (lamb, lr) == (0.01, 0.01):
                metrics = {"val/probe_top1": 0.2, "train/loss": 0.9, "train/sigreg": 3.0, "train/invariance": 0.001}
                cell(writer, made, params, metrics, status="collapsed", reason="embedding_std")
            else:
                quality = 0.8 - 0.05 * abs(math.log(lr / 0.003)) - 0.03 * abs(math.log(lamb / 0.03))
                loss = lamb**0.4 * (1.2 - quality + 0.01 * next(noise))
                parts = {"train/sigreg": 0.1 / lamb, "train/invariance": loss, "val/probe_top1": quality}
                cell(writer, made, params, parts | {"train/loss": loss, "test/linear_top1": quality})


def search(writer: StoreWriter) -> None:
    searched = ["method.lamb", "method.num_slices"]
    made = sweep(writer, "searched", [], (0,), searched=searched)
    random = np.random.default_rng(1)
    for number in range(14):
        lamb = float(10 ** random.uniform(-3, -1))
        params = {"method.lamb": round(lamb, 5), "method.num_slices": int(random.choice([256, 512, 1024]))}
        accuracy = 0.9 - 0.1 * abs(math.log10(lamb / 0.02))
        if number == 5:
            cell(writer, made, params, {"val/probe_top1": 0.99}, status="pruned", epoch="1")
        elif number == 7:
            cell(writer, made, params, {}, status="failed", reason="OutOfMemoryError", epoch="0")
        else:
            metrics = {"val/probe_top1": [0.3, accuracy], "train/loss": [2.0, 1.0 - accuracy]}
            cell(writer, made, params, metrics | {"test/linear_top1": accuracy})


def targets(writer: StoreWriter) -> None:
    grids = [
        {"method": ["rectified_lpjepa"], "method.mu": [-1.0, 0.0]},
        {"method": ["vicreg"], "method.nonneg": ["none", "relu"]},
    ]
    listed = [grid | {key: [""] for key in ("method.mu", "method.nonneg") if key not in grid} for grid in grids]
    made = sweep(writer, "rectified_targets", listed, (0, 1))
    settings = [("rectified_lpjepa", "method.mu", -1.0, 0.2), ("rectified_lpjepa", "method.mu", 0.0, 0.5)]
    settings += [("vicreg", "method.nonneg", "none", 1.0), ("vicreg", "method.nonneg", "relu", 0.7)]
    for method, key, value, nonzero in settings:
        for seed in (0, 1):
            metrics = {"test/nonzero_fraction": nonzero, "test/entropy": nonzero + 0.1 * seed, "test/hsic": 0.1 / nonzero}
            metrics |= {"test/linear_top1": 0.8, "val/probe_top1": 0.7}
            cell(writer, made, {"method": method, key: value, "seed": seed}, metrics)


def features(writer: StoreWriter) -> None:
    grid = {"method.target": ["rgg", "gg"], "method.rectified": [True, False]}
    made = sweep(writer, "rectified_features", grid, (0, 1))
    tops = {("rgg", True): 0.9, ("rgg", False): 0.7, ("gg", True): 0.6, ("gg", False): 0.88}
    for (target, rectified), top in tops.items():
        for seed in (0, 1):
            params = {"method.target": target, "method.rectified": rectified, "seed": seed}
            metrics = {"test/linear_top1": top + 0.02 * seed, "test/linear_projector_top1": top - 0.1}
            metrics |= {"test/nonzero_fraction": 0.5 if rectified else 1.0, "val/probe_top1": top}
            cell(writer, made, params | {"method": "rectified_lpjepa"}, metrics)


def architectures(writer: StoreWriter) -> None:
    encoders = ["resnet18", "resnet34", "vit_tiny_patch8_224", "convnextv2_nano"]
    made = sweep(writer, "lejepa_architectures", {"model.encoder": encoders, "optim.lr": [0.001, 0.01]}, (0,))
    for number, encoder in enumerate(encoders):
        for lr, val, test in ((0.001, 0.9, 0.91), (0.01, 0.8, 0.95)):  # the best on val is not the best on test
            metrics = {"val/probe_top1": val, "test/linear_top1": test - 0.02 * number}
            cell(writer, made, {"model.encoder": encoder, "optim.lr": lr}, metrics)


def samples(writer: StoreWriter) -> None:
    encoders = ["resnet18", "levit_128"]
    made = sweep(writer, "lejepa_samples", {"model.encoder": encoders}, (0, 1))
    for encoder in encoders:
        for seed in (0, 1):
            metrics = {f"test/shot{shots}_top1": 0.1 * place + 0.02 * seed for place, shots in enumerate((1, 2, 5, 10), 2)}
            metrics |= {"test/finetune1_top1": 0.1, "test/finetune_top1": 0.9}
            metrics |= {"test/linear_top1": 0.8, "val/probe_top1": 0.8}
            cell(writer, made, {"model.encoder": encoder, "seed": seed}, metrics)
