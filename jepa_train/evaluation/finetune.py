"""Fine-tuning at the end: encoder and a fresh linear head trained on few or all labels (LeJEPA, Table 3, Fig. 12)."""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from jepa_train.base.seeds import derive_seed, generator
from jepa_train.config import TrainConfig
from jepa_train.data import Images, Splits
from jepa_train.data.augment import make_views, to_input
from jepa_train.distributed import collectives
from jepa_train.evaluation.glossary import SHOTS
from jepa_train.evaluation.probes import top1
from jepa_train.evaluation.protocols import DRAWS, possible_shots, shots_of
from jepa_train.model.device import to_training_device
from jepa_train.model.heads import build_probe
from jepa_train.model.network import Network, build_encoder, feature_widths
from jepa_train.model.optim import adamw, lr_at
from jepa_train.model.precision import GradientScaler, autocast

RATES = (3e-4, 1e-3, 3e-3)
WEIGHT_DECAY = 1e-2
BATCH = 128
EPOCHS = 10
STEPS = (100, 1000)  # lower and upper bound
WARMUP = 0.1  # of the steps

_CHUNK = 512  # images per forward pass of the evaluation


class _Job(NamedTuple):
    shots: int  # per class; 0: all images
    rate: float


def finetune(network: Network, splits: Splits, config: TrainConfig) -> dict[str, float]:
    """Top-1 after fine-tuning on 1 ... 1000 images per class, and on all: {"test/finetune1_top1": .., "val/..": ..}.

    LeJEPA prints no recipe. This one: a copy of the encoder, LayerNorm and a linear layer on its pooled features;
    cross-entropy, AdamW with weight decay .01; batches of 128, or of all images if fewer; 10 epochs, but at least 100
    and at most 1,000 steps, a tenth of them warm-up, then cosine to 0. Each batch is one global view by the run's own
    augmentation. The learning rate, one for encoder and head, is the one of 3e-4, 1e-3 and 3e-3 that is best on all of
    val, the smallest of equals. The images are kshot's draw number config.seed modulo 5, so that the spread over seeds
    in a table includes that of the draws. A class with fewer images gives all of them; numbers that no class has are
    left out.

    Each fit runs in one process: the ranks divide the fits, and their number changes no result. At most 21 fits.
    """
    counts = [*possible_shots(splits.train.labels, SHOTS), 0]  # images per class; 0 is all
    jobs = [_Job(shots, rate) for shots in counts for rate in RATES]
    ranks = collectives.world_size()
    device = next(network.parameters()).device
    mine = [_fit(network, splits, config, job) for job in jobs[collectives.rank() :: ranks]]
    scores = collectives.gather_rows(torch.cat([torch.empty(0, 2, device=device), *mine])).tolist()
    done = dict(zip([job for rank in range(ranks) for job in jobs[rank::ranks]], scores, strict=True))
    metrics: dict[str, float] = {}
    for shots in counts:
        best = max(RATES, key=lambda rate: done[_Job(shots, rate)][0])
        for split, value in zip(("val", "test"), done[_Job(shots, best)], strict=True):
            metrics[f"{split}/finetune{shots or ''}_top1"] = value
    return metrics


def _fit(network: Network, splits: Splits, config: TrainConfig, job: _Job) -> Tensor:
    """Fit once and return top-1 on val and on test, (1, 2) on the device."""
    device = next(network.parameters()).device
    train = splits.train
    if job.shots:
        train = train.take(shots_of(train.labels, job.shots, draw=config.seed % DRAWS))
    train = train.on(device)
    seed = derive_seed(config.seed, "finetune", job.shots)  # the same batches and initial head for all rates
    views = replace(config.views, num_global=1, num_local=0)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = _copied(network, config, len(splits.classes))
        batch = min(BATCH, len(train))
        steps = min(max(EPOCHS * len(train) // batch, STEPS[0]), STEPS[1])
        optimizer = adamw([{"params": list(model.parameters()), "weight_decay": WEIGHT_DECAY, "lr": job.rate}])
        scaler = GradientScaler(config.precision, device)
        model.train()
        order = torch.empty(0, dtype=torch.int64)
        for step in range(steps):
            if len(order) < batch:
                order = torch.randperm(len(train), generator=generator(seed, step, "order"))
            positions, order = order[:batch], order[batch:]
            source, target = train.batch(positions)
            (view,) = make_views(source, views, seed=seed, step=step, batch=slice(0, batch), global_batch=batch)
            loss = functional.cross_entropy(_logits(model, view.squeeze(0), config), target)
            factor = lr_at(step, total_steps=steps, warmup_steps=math.ceil(WARMUP * steps), final_lr_frac=0.0)
            optimizer.param_groups[0]["lr"] = factor * job.rate
            optimizer.zero_grad(set_to_none=True)
            scaler.backward(loss)
            scaler.step(optimizer)
            scaler.update()
    val = _top1(model, splits.val, config, device)
    return torch.stack([val, _top1(model, splits.test, config, device) if len(splits.test) else val])[None]


def _copied(network: Network, config: TrainConfig, num_classes: int) -> nn.Sequential:
    """A new encoder with the network's weights, and a head. Not a copy, whose batch norm may be global."""
    encoder = build_encoder(config.model, config.views.global_size, config.data.channels)
    encoder.load_state_dict(network.encoder.state_dict())
    head = build_probe(feature_widths(config).pooled, num_classes, norm="layer")
    return to_training_device(nn.Sequential(encoder, head), config)


def _logits(model: nn.Module, x: Tensor, config: TrainConfig) -> Tensor:
    with autocast(x.device, config.precision):
        return model(x).float()


@torch.no_grad()
def _top1(model: nn.Module, images: Images, config: TrainConfig, device: torch.device) -> Tensor:
    model.eval()
    images, size, fov = images.on(device), config.views.global_size, config.data.eval_fov
    predicted = [
        _logits(model, to_input(images.batch(some)[0], size, fov=fov), config).argmax(dim=1)
        for some in torch.arange(len(images)).split(_CHUNK)
    ]
    return top1(torch.cat(predicted), images.labels)
