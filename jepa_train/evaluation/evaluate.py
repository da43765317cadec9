"""Evaluation on a split: cheap metrics every epoch; the protocols of config.probe on frozen embeddings at the end."""

import functools
import logging
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from jepa_train.config import DataConfig, TrainConfig
from jepa_train.config.names import protocol_names, transfer_sets
from jepa_train.data import Images, Splits
from jepa_train.data.augment import to_input
from jepa_train.data.splits import load_splits
from jepa_train.distributed import collectives
from jepa_train.evaluation.dependence import entropy, hsic
from jepa_train.evaluation.finetune import finetune
from jepa_train.evaluation.metrics import dead_fraction, effective_rank, embedding_std, l1_sparsity, nonzero_fraction
from jepa_train.evaluation.probes import Frozen, Labelled, top1
from jepa_train.evaluation.protocols import PROTOCOLS, Protocol, kshot, linear
from jepa_train.evaluation.transfer import SHOTS, transfer_data
from jepa_train.model.network import Network
from jepa_train.model.precision import autocast

_CHUNK = 512  # images per forward pass

logger = logging.getLogger(__name__)


class Embeddings(NamedTuple):
    """Network outputs on the un-augmented images of a split, in their order, equal on all ranks.

    fp32, on the network's device: 1.2 M images at E = D = 2048 take 20 GB, and final_evaluation as much again.
    """

    features: Tensor  # (N, E), of the encoder
    z: Tensor  # (N, D), of the projector
    probe_predicted: Tensor  # (N,), class by the online probe on features
    projector_predicted: Tensor  # (N,), class by the online probe on z
    labels: Tensor  # (N,)


@torch.inference_mode()
def embed(network: Network, images: Images, config: TrainConfig) -> Embeddings:
    """Embed a split in evaluation mode and the config's precision. Each rank embeds a part; all get all rows."""
    device = next(network.parameters()).device
    network.eval()
    images = images.on(device)
    mine = torch.arange(len(images))[collectives.fair_slice(len(images))]
    parts: list[list[Tensor]] = [[], [], [], []]
    for positions in mine.split(_CHUNK):
        pixels, _ = images.batch(positions)
        with autocast(device, config.precision):
            output = network.encode(to_input(pixels, config.views.global_size, fov=config.data.eval_fov))
        predicted = (logits.argmax(dim=1) for logits in (output.probe_logits, output.projector_logits))
        for part, rows in zip(parts, (output.features.float(), output.z.float(), *predicted), strict=True):
            part.append(rows)
    return Embeddings._make([*map(_whole, parts), images.labels.to(device)])


def evaluate(network: Network, images: Images, config: TrainConfig, *, prefix: str) -> dict[str, float]:
    """Cheap metrics of a split, as {"<prefix>/probe_top1": ...}."""
    return _cheap_metrics(embed(network, images, config), prefix)


def final_evaluation(network: Network, splits: Splits, config: TrainConfig) -> dict[str, float]:
    """Cheap metrics of test, entropy and hsic, and the protocols and transfer sets of config.probe; equal on all ranks.

    Needs only a network: a checkpoint can be evaluated later, with other protocols. One forward pass over each split
    serves all of them; without protocols train and val are not embedded. If an embedding is not finite the protocols
    are skipped and the split's embedding_std is reported as NaN.

    Data without a test split has no metric of that name: the cheap ones, entropy and hsic are those of val.
    """
    last = "test" if len(splits.test) else "val"
    test = embed(network, splits.test if len(splits.test) else splits.val, config)
    metrics = _cheap_metrics(test, last) | _of_z(test.z, last)
    names = protocol_names(config.probe.protocols)
    on_frozen = [PROTOCOLS[name] for name in names if name in PROTOCOLS]
    if on_frozen:
        train, val = (embed(network, images, config) for images in (splits.train, splits.val))
        for prefix, split in (("train", train), ("val", val), (last, test)):
            if not _is_finite(split):
                return metrics | {f"{prefix}/embedding_std": float("nan")}
        metrics |= _protocol_metrics(on_frozen, train, val, test, num_classes=len(splits.classes))
    if "finetune" in names:
        metrics |= finetune(network, splits, config)
    if not len(splits.test):  # the protocols have scored val twice
        metrics = {name: value for name, value in metrics.items() if not name.startswith("test/")}
    for name, folder in transfer_sets(config.probe.transfer).items():
        metrics |= _transfer_metrics(network, name, transfer_data(name, folder, config.data), config)
    return metrics


def _transfer_metrics(network: Network, name: str, data: DataConfig, config: TrainConfig) -> dict[str, float]:
    """Linear probes on another dataset, scored on its test split: {"transfer/<name>/linear_top1": ..}."""
    splits = load_splits(data)
    parts = [embed(network, images, config) for images in (splits.train, splits.val, splits.test)]
    if not all(map(_is_finite, parts)):
        return {f"transfer/{name}/linear_top1": float("nan")}
    protocols = linear, functools.partial(kshot, shots=SHOTS)
    found = _protocol_metrics(protocols, *parts, num_classes=len(splits.classes))
    return {
        f"transfer/{name}/{metric.removeprefix('test/')}": value
        for metric, value in found.items()
        if metric.startswith("test/") and metric.endswith("_top1")
    }


def _is_finite(split: Embeddings) -> bool:
    return bool(split.features.isfinite().all() and split.z.isfinite().all())


def _of_z(z: Tensor, prefix: str) -> dict[str, float]:
    """Entropy and hsic of a finite z; no hsic unless two dimensions vary."""
    if not z.isfinite().all():
        return {}
    values = {f"{prefix}/entropy": float(entropy(z)), f"{prefix}/hsic": float(hsic(z))}
    return {name: value for name, value in values.items() if not math.isnan(value)}


def _protocol_metrics(
    protocols: Sequence[Protocol], train: Embeddings, val: Embeddings, test: Embeddings, *, num_classes: int
) -> dict[str, float]:
    """Protocols on encoder features and, named "_projector_top1" in place of "_top1", on z."""
    metrics: dict[str, float] = {}
    for part, top1_of_part in (("features", "_top1"), ("z", "_projector_top1")):
        train_part, val_part, test_part = (Labelled(getattr(split, part), split.labels) for split in (train, val, test))
        frozen = Frozen(train=train_part, val=val_part, test=test_part, num_classes=num_classes)
        for protocol in protocols:
            found = protocol(frozen)
            metrics |= {metric.replace("_top1", top1_of_part): value for metric, value in found.items()}
    # Rank 0's values: from the same embeddings two GPUs may round differently, which decides ties
    values = torch.tensor([[*metrics.values()]], dtype=torch.float64, device=train.labels.device)
    return dict(zip(metrics, collectives.gather_rows(values)[0].tolist(), strict=True))


def _whole(chunks: list[Tensor]) -> Tensor:
    """Rows of all ranks."""
    mine = torch.cat(chunks)
    chunks.clear()  # frees memory: the copy is enough
    return collectives.gather_rows(mine)


def _cheap_metrics(embeddings: Embeddings, prefix: str) -> dict[str, float]:
    values = {
        "probe_top1": top1(embeddings.probe_predicted, embeddings.labels),
        "projector_top1": top1(embeddings.projector_predicted, embeddings.labels),
        "nonzero_fraction": nonzero_fraction(embeddings.z),
        "l1_sparsity": l1_sparsity(embeddings.z),
        "dead_fraction": dead_fraction(embeddings.z),
        "effective_rank": effective_rank(embeddings.features),
        "embedding_std": embedding_std(embeddings.z),
    }
    return {f"{prefix}/{name}": float(value) for name, value in values.items()}
