"""A whole training step, against the bare encoder's forward + backward on views that already lie on the device.

ResNet-18 with the small stem, 32 px, batch 256, 2 views; in bf16 on a GPU, fp32 on a CPU. The
excess of the ratio over 1 is the cost of fetching, views, projector, loss, probes and optimizer.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.comparison import Comparison
from benchmarks.memory import peaks
from benchmarks.timing import Call, Setting, interleaved
from jepa_train.base.seeds import generator
from jepa_train.config import ModelConfig, TrainConfig
from jepa_train.config.presets import PRESETS
from jepa_train.data import Images, Splits
from jepa_train.data.augment import make_views
from jepa_train.model.batch_norm import convert_batch_norm, set_num_views
from jepa_train.model.network import build_network
from jepa_train.train.cuda_graph import EAGER_STEPS
from jepa_train.train.trainer import Trainer

CONFIGS: dict[str, TrainConfig] = {
    "LeJEPA": PRESETS["cifar10"],
    "Rectified LpJEPA": PRESETS["rectified_lpjepa_cifar100_resnet18"],
}
NUM_CLASSES = 10
NUM_BATCHES = 8  # of random images
TARGETS = {"cpu": 1.15, "cuda": 1.10}


def run(setting: Setting) -> Iterator[Comparison]:
    """One row per method."""
    for name, full in CONFIGS.items():
        config = fitted(full, setting)
        splits = noise(config)
        trainer = Trainer(config, splits)
        calls = bare_step(config, splits.train, setting.device), trainer.train_step
        for call in calls:
            call()
        memory = peaks(calls, setting.device)  # of an eager step: a replayed one allocates nothing
        if setting.device.type == "cuda":
            for _ in range(EAGER_STEPS + 1):  # all others are replays
                trainer.train_step()
        times = interleaved(calls, setting.effort, setting.device)
        yield Comparison(
            what=f"step, {name}",
            against="bare encoder forward + backward",
            shape=f"{config.model.encoder}, {config.views.global_size} px, batch {config.global_batch}, "
            f"{config.views.num_global} views, {config.precision}",
            reference=times[0],
            ours=times[1],
            is_cost=True,
            target=setting.target(TARGETS),
            memory=memory,
        )


def bare_step(config: TrainConfig, images: Images, device: torch.device) -> Call:
    """Forward and backward of the encoder alone, on the views of one batch, made beforehand."""
    batch = config.global_batch
    encoder = build_network(config, NUM_CLASSES).encoder.to(device).to(memory_format=torch.channels_last).train()
    if config.model.batch_norm == "per_view":  # the same batch norm as in the step
        convert_batch_norm(encoder, per_view=True)
        set_num_views(encoder, config.views.num_global)
    source, _ = images.on(device).batch(torch.arange(batch))
    (views,) = make_views(source, config.views, seed=0, step=0, batch=slice(0, batch), global_batch=batch)
    x = views.flatten(0, 1).contiguous(memory_format=torch.channels_last)  # (V * N, 3, s, s)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            features: Tensor = encoder(x)
        features.backward(torch.ones_like(features))
        encoder.zero_grad(set_to_none=True)

    return step


def fitted(config: TrainConfig, setting: Setting) -> TrainConfig:
    """Set the precision for the device; if quick, shrink the config to a toy."""
    config = replace(config, precision="bf16" if setting.device.type == "cuda" else "fp32")
    if not setting.quick:
        return config
    views = replace(config.views, global_size=12)
    model = ModelConfig(encoder="test_resnet", projector_hidden=16, projector_dim=8)
    return replace(config, views=views, model=model, global_batch=8)


def noise(config: TrainConfig) -> Splits:
    """Random images and labels for NUM_BATCHES steps."""
    size, num = config.data.image_size, NUM_BATCHES * config.global_batch
    draws = generator(0, "images")
    images = Images(
        pixels=torch.randint(0, 256, (num, 3, size, size), generator=draws, dtype=torch.uint8),
        rows=torch.arange(num),
        labels=torch.randint(0, NUM_CLASSES, (num,), generator=draws),
    )
    return Splits(train=images, val=images, test=images, classes=tuple(map(str, range(NUM_CLASSES))), skipped=0)
