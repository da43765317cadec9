"""Evaluation on a split: cheap metrics every epoch; the protocols of config.probe on frozen embeddings at the end."""

import functools
import logging
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from jepa_train.config import TrainConfig
from jepa_train.config.names import protocol_names, transfer_sets
from jepa_train.data import Images, Splits
from jepa_train.data.augment import to_input
from jepa_train.data.splits import load_splits
from jepa_train.distributed import collectives
from jepa_train.evaluation.collapse import collapse_gradients
from jepa_train.evaluation.dependence import entropy, hsic
from jepa_train.evaluation.finetune import finetune
from jepa_train.evaluation.metrics import dead_fraction, effective_rank, embedding_std, l1_sparsity, nonzero_fraction
from jepa_train.evaluation.probes import Frozen, Labelled, top1
from jepa_train.evaluation.protocols import PROTOCOLS, Protocol, kshot, linear
from jepa_train.evaluation.transfer import SHOTS, transfer_data
from jepa_train.model.network import Network
from jepa_train.model.precision import autocast

_CHUNK = 512  # images per forward pass
_PARTS = {"features": "_top1", "z": "_projector_top1"}  # of the embeddings, and the end of their accuracies' names

logger = logging.getLogger(__name__)


class Embeddings(NamedTuple):
    """Network outputs on the un-augmented images of a split, in their order, equal on all ranks.

    fp32, on the network's device (of MPS, on the CPU): 1.2 M images at E = D = 2048 take 20 GB, and final_evaluation as
    much again.
    """

    features: Tensor  # (N, E), of the encoder
    z: Tensor  # (N, D), of the projector
    probe_predicted: Tensor  # (N,), class by the online probe on features, if any
    projector_predicted: Tensor  # (N,), class by the online probe on z, if any
    labels: Tensor  # (N,)
    has_probes: bool


@torch.inference_mode()
def embed(network: Network, images: Images, config: TrainConfig) -> Embeddings:
    """Embed a split in evaluation mode, in the precision and memory format of training. The host does not wait.

    Each rank embeds a part, and all get all rows, in three exchanges.
    """
    device = next(network.parameters()).device
    network.eval()
    images = images.on(device)
    mine = torch.arange(len(images))[collectives.fair_slice(len(images))]
    parts: list[list[Tensor]] = [[], [], []]
    for positions in mine.split(_CHUNK):
        source, _ = images.batch(positions)
        with autocast(device, config.precision):
            size, fov = config.views.global_size, config.data.eval_fov
            output = network.encode(to_input(source, size, fov=fov))
        predicted = torch.stack([logits.argmax(dim=1) for logits in (output.probe_logits, output.projector_logits)], 1)
        for part, rows in zip(parts, (output.features.float(), output.z.float(), predicted), strict=True):
            part.append(rows)
    place = "cpu" if device.type == "mps" else device  # the protocols compute in float64
    features, z, predicted = (_whole(part, len(images)).to(place) for part in parts)
    return Embeddings(features, z, predicted[:, 0], predicted[:, 1], images.labels.to(place), network.has_probes)


def evaluate(network: Network, images: Images, config: TrainConfig, *, prefix: str) -> dict[str, float]:
    """Cheap metrics of a split, as {"<prefix>/probe_top1": ...}.

    The host waits for the device once, to read them; on a GPU torch also waits in eigvalsh (effective_rank), for its
    check.
    """
    (metrics,) = _read(_cheap_metrics(embed(network, images, config), prefix))
    return metrics


def final_evaluation(network: Network, splits: Splits, config: TrainConfig) -> dict[str, float]:
    """Cheap metrics of test, entropy and hsic, and the protocols and transfer sets of config.probe; equal on all ranks.

    Needs only a network: a checkpoint can be evaluated later, with other protocols. One forward pass over each split
    serves all of them; without protocols train and val are not embedded. If an embedding is not finite the protocols
    are skipped and the split's embedding_std is reported as NaN.

    Data without a test split has no metric of that name: the cheap ones, entropy and hsic are those of val. Data
    without labels has no accuracies but those of transfer sets.
    """
    last = "test" if len(splits.test) else "val"
    names = protocol_names(config.probe.protocols)
    on_frozen = [PROTOCOLS[name] for name in names if name in PROTOCOLS]
    used = {"train": splits.train, "val": splits.val} if on_frozen else {}
    used[last] = splits.test if len(splits.test) else splits.val
    found = {name: embed(network, images, config) for name, images in used.items()}
    test = found[last]
    metrics, of_z, finite = _read(
        _cheap_metrics(test, last),
        {f"{last}/entropy": entropy(test.z)},
        {name: _is_finite(split) for name, split in found.items()},
    )
    if finite[last]:
        of_z[f"{last}/hsic"] = float(hsic(test.z))  # NaN unless two dimensions vary
        metrics |= {name: value for name, value in of_z.items() if not math.isnan(value)}
        if "collapse" in names:
            metrics |= {f"{last}/{name}": value for name, value in collapse_gradients(test.z, config).items()}
    if on_frozen:
        for name in found:
            if not finite[name]:
                return metrics | {f"{name}/embedding_std": float("nan")}
        train, val = found["train"], found["val"]
        metrics |= _protocol_metrics(on_frozen, train, val, test, num_classes=len(splits.classes))
    if "finetune" in names:
        metrics |= finetune(network, splits, config)
    if not len(splits.test):  # the protocols have scored val twice
        metrics = {name: value for name, value in metrics.items() if not name.startswith("test/")}
    for name, folder in transfer_sets(config.probe.transfer).items():
        others = load_splits(transfer_data(name, folder, config.data))
        metrics |= _transfer_metrics(network, name, others, config, splits.train.norm)
    return metrics


def _transfer_metrics(
    network: Network, name: str, splits: Splits, config: TrainConfig, norm: Tensor
) -> dict[str, float]:
    """Linear probes on another dataset, scored on its test split: {"transfer/<name>/linear_top1": ..}.

    Args:
        norm: Images.norm of the images that the network was trained on.
    """
    images = (part.with_norm(norm) for part in (splits.train, splits.val, splits.test))
    parts = [embed(network, each, config) for each in images]
    if not _is_finite(*parts):
        return {f"transfer/{name}/linear_top1": float("nan")}
    protocols = linear, functools.partial(kshot, shots=SHOTS)
    found = _protocol_metrics(protocols, *parts, num_classes=len(splits.classes))
    return {
        f"transfer/{name}/{metric.removeprefix('test/')}": value
        for metric, value in found.items()
        if metric.startswith("test/") and metric.endswith("_top1")
    }


def _is_finite(*splits: Embeddings) -> Tensor:
    """True if all features and z are finite. Scalar."""
    return torch.stack([part.isfinite().all() for split in splits for part in (split.features, split.z)]).all()


def _read(*groups: Mapping[str, Tensor]) -> list[dict[str, float]]:
    """Scalars on one device as numbers, group by group. The host waits for the device once."""
    values = iter(torch.stack([value.double() for group in groups for value in group.values()]).tolist())
    return [{name: next(values) for name in group} for group in groups]


def _protocol_metrics(
    protocols: Sequence[Protocol], train: Embeddings, val: Embeddings, test: Embeddings, *, num_classes: int
) -> dict[str, float]:
    """Protocols on encoder features and, named "_projector_top1" in place of "_top1", on z.

    Of several ranks the even ones take the features, the odd ones z.
    """
    parts = [*_PARTS] if collectives.world_size() == 1 else [[*_PARTS][collectives.rank() % 2]]
    found: dict[str, float] = {}  # of the last part; all have the same names
    rows = []
    for part in parts:
        train_part, val_part, test_part = (Labelled(getattr(split, part), split.labels) for split in (train, val, test))
        frozen = Frozen(train=train_part, val=val_part, test=test_part, num_classes=num_classes)
        found = {metric: value for protocol in protocols for metric, value in protocol(frozen).items()}
        rows.append([*found.values()])
    # Those of ranks 0 and 1: from the same embeddings two GPUs may round differently, which decides ties
    values = torch.tensor(rows, dtype=torch.float64, device=train.labels.device)
    return {
        metric.replace("_top1", top1_of_part): value
        for row, top1_of_part in zip(collectives.gather_rows(values)[:2].tolist(), _PARTS.values(), strict=True)
        for metric, value in zip(found, row, strict=True)
    }


def _whole(chunks: list[Tensor], count: int) -> Tensor:
    """All rows (count, ...), of which each rank has its fair slice."""
    mine = torch.cat(chunks)
    chunks.clear()  # frees memory: the copy is enough
    return collectives.gather_shares(mine, count)


def _cheap_metrics(embeddings: Embeddings, prefix: str) -> dict[str, Tensor]:
    accuracies = {
        "probe_top1": top1(embeddings.probe_predicted, embeddings.labels),
        "projector_top1": top1(embeddings.projector_predicted, embeddings.labels),
    }
    values = (accuracies if embeddings.has_probes else {}) | {
        "nonzero_fraction": nonzero_fraction(embeddings.z),
        "l1_sparsity": l1_sparsity(embeddings.z),
        "dead_fraction": dead_fraction(embeddings.z),
        "effective_rank": effective_rank(embeddings.features),
        "embedding_std": embedding_std(embeddings.z),
    }
    return {f"{prefix}/{name}": value for name, value in values.items()}
