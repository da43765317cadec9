"""Accuracy and speed of Rectified LpJEPA's minimal example, written plainly and as a preset, seed by seed.

    python -m benchmarks.guide IMAGES RESULTS [--seeds 0 1 2 ...] [--arms guide preset ...] [--quick]

IMAGES is an image folder of 32 px with train and test, such as CIFAR-10's. The guide is MINIMAL.md of
YilunKuang/rectified-lp-jepa at e31c91c, here with 2,000 images, a small encoder and 8 epochs. All arms of a seed begin
with the same weights. Each run is one thread, and appends a line to RESULTS/runs.jsonl; runs that are there are not
repeated. So several processes with other seeds share a folder, and the last one prints the table of all.
"""

import argparse
import dataclasses
import json
import math
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any, ClassVar

import torch
from PIL import Image
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torchvision import transforms

from benchmarks import machine
from benchmarks.image_folder import cache_in, write_folder
from benchmarks.report import as_markdown
from jepa_train.base.errors import ConfigError
from jepa_train.base.seeds import derive_seed
from jepa_train.config import TrainConfig
from jepa_train.config.flat import unflatten
from jepa_train.config.presets import PRESETS
from jepa_train.data import Images, Splits
from jepa_train.data.augment import make_views, to_input
from jepa_train.data.pictures import Source
from jepa_train.data.splits import load_splits
from jepa_train.model.network import build_network
from jepa_train.train.preflight import preflight
from jepa_train.train.trainer import Trainer

TEST_IMAGES = 5000
FITTED: dict[str, Any] = {  # to two cores; everything else is the guide's
    "data.name": "image_folder",
    "data.image_size": 32,
    "data.train_images": 2222,  # of which a tenth is val
    "model.encoder": "test_resnet",
    "model.projector_hidden": 128,
    "model.projector_dim": 128,
    "global_batch": 128,
    "epochs": 8,
    "precision": "fp32",  # the guide takes fp16 on a GPU alone
}
QUICK: dict[str, Any] = {"data.train_images": 0, "epochs": 1}
MEAN, STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)  # the guide's normalisation
Trained = tuple[nn.Module, Callable[[Tensor], Tensor], float, float]  # encoder, its inputs, last loss, seconds


# --- the guide, in a plain loop


class GuideNetwork(nn.Module):
    """Encoder and projector of the guide, which ends in ReLU; its linear layers have biases before batch norms too."""

    def __init__(self, config: TrainConfig, num_classes: int) -> None:
        super().__init__()
        same = build_network(config, num_classes)
        self.encoder = same.encoder
        self.projector = nn.Sequential(*map(_with_bias, same.projector.children()))

    def forward(self, x: Tensor) -> Tensor:
        """z (N, D) of one view (N, 3, h, w)."""
        z: Tensor = self.projector(self.encoder(x))
        return z


def _with_bias(layer: nn.Module) -> nn.Module:
    if not isinstance(layer, nn.Linear) or layer.bias is not None:
        return layer
    made = nn.Linear(layer.in_features, layer.out_features)
    made.load_state_dict({"weight": layer.weight, "bias": made.bias})
    return made


class Pairs(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Two views of each image, by torchvision, on Pillow images that were decoded beforehand."""

    def __init__(self, pixels: Tensor) -> None:
        self.images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(32),
                transforms.RandomHorizontalFlip(),
                transforms.ColorJitter(0.4, 0.4, 0.4, 0.1),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(self.images[index]), self.transform(self.images[index])


def guide_input(pixels: Tensor) -> Tensor:
    """Pixels (N, 3, h, w) uint8, normalised as the guide does."""
    return transforms.functional.normalize(pixels.float() / 255, MEAN, STD)


def guide_loss(z1: Tensor, z2: Tensor) -> Tensor:
    """25 * mse + 125 * RDMReg towards ReLU of Laplace noise: one target, 256 new slices for each view."""
    target = torch.distributions.Laplace(0.0, math.sqrt(0.5)).sample(z1.shape).relu()
    distances = []
    for z in (z1, z2):
        slices = functional.normalize(torch.randn(256, z.shape[1]), dim=1).T
        distances.append(functional.mse_loss((z @ slices).sort(dim=0)[0], (target @ slices).sort(dim=0)[0]))
    return 25 * functional.mse_loss(z1, z2) + 125 * sum(distances) / 2


def torchvision_batches(config: TrainConfig, pixels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The guide's loader, one epoch after the other."""
    loader = DataLoader(Pairs(pixels), batch_size=config.global_batch, shuffle=True, drop_last=True)
    for _ in range(config.epochs):
        yield from loader


def batched_views(config: TrainConfig, pixels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of the guide's size with the views of make_views."""
    batch = config.global_batch
    for epoch in range(config.epochs):
        order = torch.randperm(len(pixels))
        for index in range(len(pixels) // batch):
            step = epoch * (len(pixels) // batch) + index
            source = _source(pixels[order[index * batch :][:batch]])
            (pair,) = make_views(
                source, config.views, seed=config.seed, step=step, batch=slice(0, batch), global_batch=batch
            )
            yield pair[0], pair[1]


def train_plainly(
    config: TrainConfig, splits: Splits, batches: Callable[[TrainConfig, Tensor], Iterator[tuple[Tensor, Tensor]]]
) -> Trained:
    """The guide's main loop."""
    torch.manual_seed(derive_seed(config.seed, "guide"))
    network = GuideNetwork(config, len(splits.classes)).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-4)
    pixels, _ = squares(splits.train, torch.arange(len(splits.train)))
    steps_per_epoch, losses = len(pixels) // config.global_batch, []
    started = time.perf_counter()
    for x1, x2 in batches(config, pixels):
        loss = guide_loss(network(x1), network(x2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    seconds = time.perf_counter() - started
    inputs = guide_input if batches is torchvision_batches else _own_input
    return network.encoder, inputs, mean(losses[-steps_per_epoch:]), seconds


# --- the preset


def train_preset(config: TrainConfig, splits: Splits) -> Trained:
    """The training steps of train(), without its evaluation after every epoch."""
    trainer = Trainer(config, splits)
    started = time.perf_counter()
    for _ in range(config.epochs * trainer.steps_per_epoch):
        trainer.train_step()
    loss = trainer.means()["train/loss"]
    return trainer.evaluated.encoder, _own_input, loss, time.perf_counter() - started


def _own_input(pixels: Tensor) -> Tensor:
    return to_input(_source(pixels), pixels.shape[-1])


def _source(pixels: Tensor) -> Source:
    """All of some squares."""
    every = torch.arange(len(pixels))
    return Images(pixels=pixels, rows=every, labels=every).batch(every)[0]


ARMS: dict[str, Callable[[TrainConfig, Splits], Trained]] = {
    "guide": lambda config, splits: train_plainly(config, splits, torchvision_batches),
    "guide on our views": lambda config, splits: train_plainly(config, splits, batched_views),
    "preset": train_preset,
    # as many slices per step as the guide, which draws 256 for each view
    "preset, 512 slices": lambda config, splits: train_preset(
        unflatten({"method.num_slices": 512}, base=config), splits
    ),
    "preset, one batch norm": lambda config, splits: train_preset(
        unflatten({"model.batch_norm": "all_views"}, base=config), splits
    ),
}


# --- runs and their table


@dataclass(frozen=True, kw_only=True)
class Run:
    """One arm with one seed."""

    arm: str
    seed: int
    top1: float  # of logistic regression on test, in percent
    loss: float  # mean over the last epoch
    images_per_s: float  # in training, views included


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Runs of one arm, and their differences to the guide's with the same seed."""

    runs: tuple[Run, ...]
    differences: tuple[float, ...]  # in points

    HEADER: ClassVar[tuple[str, ...]] = ("arm", "n", "top-1, %", "minus guide, points", "95 %", "last loss", "images/s")
    NOTE: ClassVar[str] = (
        "Means ± standard deviation over seeds. The interval is Student's, of the differences by seed. Loss: the mean "
        "over the last epoch. Images/s: median, on one thread, views included."
    )

    def cells(self) -> tuple[str, ...]:
        """One text per column of HEADER."""
        top1 = [run.top1 for run in self.runs]
        spread = f" ± {stdev(top1):.1f}" if len(top1) > 1 else ""
        low, high = self.interval
        return (
            self.runs[0].arm,
            str(len(self.runs)),
            f"{mean(top1):.1f}{spread}",
            f"{mean(self.differences):+.2f}" if self.differences else "",
            f"{low:+.2f} to {high:+.2f}" if len(self.differences) > 1 else "",
            f"{mean(run.loss for run in self.runs):.3f}",
            f"{median(run.images_per_s for run in self.runs):.0f}",
        )

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean difference; NaN for fewer than two seeds."""
        count = len(self.differences)
        if count < 2:
            return math.nan, math.nan
        half = stats.t.ppf(0.975, count - 1) * stdev(self.differences) / math.sqrt(count)
        return mean(self.differences) - half, mean(self.differences) + half

    def record(self) -> dict[str, Any]:
        """The fields."""
        return dataclasses.asdict(self)


def main(words: Sequence[str] | None = None) -> int:
    """Run the seeds that are missing, and print the table of all runs in the folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guide", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("images", nargs="?", type=Path, metavar="IMAGES")
    parser.add_argument("results", nargs="?", type=Path, metavar="RESULTS")
    parser.add_argument("--seeds", nargs="+", type=int, default=range(20), metavar="N")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["guide", "preset"])
    parser.add_argument("--quick", action="store_true", help="one epoch on a few synthetic images; never recorded")
    options = parser.parse_args(words)
    if (options.results is None) != options.quick:
        parser.error("IMAGES and RESULTS are needed, unless --quick makes its own")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder, changes = options.results, {"data.path": str(options.images)}
        if options.quick:
            folder, options.seeds = Path(place), [0]
            write_folder(folder / "images", num=400, side=32)
            changes = {"data.path": str(folder / "images")} | QUICK
        with cache_in(folder):
            try:
                rows = compare(folder / "runs.jsonl", changes, options.seeds, options.arms)
            except ConfigError as error:
                sys.stderr.write(f"error: {error}\n")
                return 2
    sys.stdout.write(as_markdown(rows, machine.described(torch.device("cpu"))))
    return 0


def compare(file: Path, changes: Mapping[str, Any], seeds: Sequence[int], arms: Sequence[str]) -> list[Arm]:
    """Append the runs that the file lacks. Returns one row per arm in the file."""
    config = preflight(unflatten(FITTED | dict(changes), base=PRESETS["rectified_lpjepa_guide"]), read=True)
    splits = load_splits(config.data)
    file.parent.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        for arm in arms:
            if any((run.arm, run.seed) == (arm, seed) for run in read_runs(file)):
                continue
            encoder, inputs, loss, seconds = ARMS[arm](dataclasses.replace(config, seed=seed), splits)
            trained = config.epochs * (len(splits.train) // config.global_batch) * config.global_batch
            run = Run(arm=arm, seed=seed, top1=top1(encoder, inputs, splits), loss=loss, images_per_s=trained / seconds)
            with file.open("a") as lines:
                lines.write(json.dumps(dataclasses.asdict(run)) + "\n")
            sys.stderr.write(f"  {run}\n")
    return table(read_runs(file))


def read_runs(file: Path) -> list[Run]:
    """The runs that the file holds, none if there is none."""
    return [Run(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


def table(runs: Sequence[Run]) -> list[Arm]:
    """Rows in the order of ARMS."""
    by_arm: dict[str, dict[int, Run]] = defaultdict(dict)
    for run in runs:
        by_arm[run.arm][run.seed] = run
    guide = by_arm["guide"]
    rows = []
    for arm in (arm for arm in ARMS if by_arm[arm]):
        paired = [run.top1 - guide[seed].top1 for seed, run in by_arm[arm].items() if seed in guide and arm != "guide"]
        rows.append(Arm(runs=tuple(by_arm[arm].values()), differences=tuple(paired)))
    return rows


def top1(encoder: nn.Module, inputs: Callable[[Tensor], Tensor], splits: Splits) -> float:
    """Accuracy in percent of logistic regression on standardised features."""
    train, labels = features(encoder, inputs, splits.train)
    count = min(TEST_IMAGES, len(splits.test))
    evenly = torch.arange(count) * len(splits.test) // count  # the images are sorted by class
    test, expected = features(encoder, inputs, splits.test.take(evenly))
    scaler = StandardScaler().fit(train)
    probe = LogisticRegression(C=0.01, max_iter=1000).fit(scaler.transform(train), labels)
    return float(100 * probe.score(scaler.transform(test), expected))


def features(encoder: nn.Module, inputs: Callable[[Tensor], Tensor], images: Images) -> tuple[Any, Any]:
    """Features (N, E) and labels (N,) of images without augmentation, as arrays."""
    encoder.eval()
    parts = []
    with torch.no_grad():
        for positions in torch.arange(len(images)).split(500):
            pixels, labels = squares(images, positions)
            parts.append((encoder(inputs(pixels)), labels))
    found, expected = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
    return found, expected


def squares(images: Images, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (n, 3, 32, 32) uint8 and labels (n,) at these positions."""
    source, labels = images.batch(positions)
    return source.pixels.index_select(0, source.first), labels


if __name__ == "__main__":
    sys.exit(main())
