"""Evaluation on a split: online probes and sparsity every epoch; kNN and the full linear probe at the end."""

from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_train import distributed
from jepa_train.config import TrainConfig
from jepa_train.data import Images, Splits
from jepa_train.metrics import effective_rank, embedding_std, l1_sparsity, nonzero_fraction
from jepa_train.models import Network
from jepa_train.probes import knn_top1, linear_probe, top1
from jepa_train.views import to_input

_CHUNK = 512  # images per forward pass


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """What the network makes of the un-augmented images of a split, in their order, equal on all ranks."""

    features: Tensor  # (N, E), the encoder's
    z: Tensor  # (N, D), the projector's
    probe_logits: Tensor  # (N, C)
    projector_logits: Tensor  # (N, C)
    labels: Tensor  # (N,)


@torch.inference_mode()
def embed(network: Network, images: Images, config: TrainConfig) -> Embeddings:
    """Embed a split in evaluation mode: every rank takes a contiguous part, and all get the whole."""
    device = next(network.parameters()).device
    network.eval()
    ranks, rank = distributed.world_size(), distributed.rank()
    count = len(images)
    images = images.on(device)
    mine = torch.arange(rank * count // ranks, (rank + 1) * count // ranks)
    chunks = []
    for positions in mine.split(_CHUNK):
        pixels, _ = images.batch(positions)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            chunks.append(network.encode(to_input(pixels, config.views.global_size)))
    features, z, probe_logits, projector_logits = (
        distributed.gather_rows(torch.cat(parts).float()) for parts in zip(*chunks, strict=True)
    )
    return Embeddings(
        features=features,
        z=z,
        probe_logits=probe_logits,
        projector_logits=projector_logits,
        labels=images.labels,
    )


def evaluate(network: Network, images: Images, config: TrainConfig, *, prefix: str) -> dict[str, float]:
    """The cheap metrics of a split, as {"<prefix>/probe_top1": ...}."""
    return _cheap_metrics(embed(network, images, config), prefix)


def final_evaluation(network: Network, splits: Splits, config: TrainConfig) -> dict[str, float]:
    """Everything on test, once; the linear probe's regularisation is chosen on val. Equal on all ranks."""
    train, val, test = (embed(network, images, config) for images in (splits.train, splits.val, splits.test))
    metrics = _cheap_metrics(test, "test")
    for suffix, part in (("", "features"), ("_projector", "z")):
        x_train, x_val, x_test = (getattr(split, part) for split in (train, val, test))
        scores = linear_probe(
            x_train, train.labels, x_val, val.labels, x_test, test.labels, num_classes=len(splits.classes)
        )
        for prefix, x, labels in (("val", x_val, val.labels), ("test", x_test, test.labels)):
            metrics[f"{prefix}/linear{suffix}_top1"] = scores[prefix]
            metrics[f"{prefix}/knn{suffix}_top1"] = knn_top1(
                x_train, train.labels, x, labels, k=20, num_classes=len(splits.classes)
            )
    return metrics


def _cheap_metrics(embeddings: Embeddings, prefix: str) -> dict[str, float]:
    values = {
        "probe_top1": top1(embeddings.probe_logits, embeddings.labels),
        "projector_top1": top1(embeddings.projector_logits, embeddings.labels),
        "nonzero_fraction": nonzero_fraction(embeddings.z),
        "l1_sparsity": l1_sparsity(embeddings.z),
        "effective_rank": effective_rank(embeddings.features),
        "embedding_std": embedding_std(embeddings.z),
    }
    return {f"{prefix}/{name}": float(value) for name, value in values.items()}
