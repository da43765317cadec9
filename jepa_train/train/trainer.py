"""Trainer: network, optimiser and data of one run, advanced step by step; the state of a checkpoint."""

import dataclasses
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from jepa_train.base.device import has_own_streams, training_device, wide_dtype
from jepa_train.base.errors import ConfigError
from jepa_train.base.seeds import derive_seed, generator
from jepa_train.base.system_metrics import peak_memory_gb, reset_peak_memory
from jepa_train.config import TrainConfig
from jepa_train.data import Splits
from jepa_train.data.augment import make_views, view_fields
from jepa_train.distributed import collectives
from jepa_train.evaluation.metrics import embedding_std, nonzero_fraction
from jepa_train.model.batch_norm import convert_batch_norm
from jepa_train.model.device import to_training_device
from jepa_train.model.ema import Average, EpochAverage
from jepa_train.model.network import Network, build_network
from jepa_train.model.optim import build_optimizer
from jepa_train.model.own_encoder import is_dotted
from jepa_train.train.cuda_graph import captured
from jepa_train.train.device_step import DeviceStep
from jepa_train.train.inputs import StepInputs
from jepa_train.train.preflight import check_batch

_SPREAD = "train/embedding_std"


class Trainer:
    """State of a run between two steps. Every rank has a trainer, and all ranks take the same steps.

    All randomness of a step (order, views, slices, targets, stochastic depth) is a function of (seed, step), so the
    number of steps taken is its whole state.

    Raises:
        ConfigError: the global batch does not fit the training split or the number of ranks.
    """

    def __init__(self, config: TrainConfig, splits: Splits) -> None:
        self.config = config
        self.device = training_device()
        if self.device.type == "mps" and config.data.local_image_size:
            raise ConfigError(
                f"data.local_image_size must be 0 on an Apple GPU, got {config.data.local_image_size}; drop it, or set "
                "JEPA_MPS=0 for the CPU"
            )
        self._share, self.steps_per_epoch = _share_of_batch(config, len(splits.train))
        collectives.require_equal_batches(self._share.stop - self._share.start)  # once: the shares stay
        self.network = to_training_device(build_network(config, len(splits.classes)), config)
        collectives.same_start(self.network)
        per_view = config.model.batch_norm == "per_view"
        if per_view or collectives.world_size() > 1:
            convert_batch_norm(self.network, per_view=per_view)
        self._average = Average(self.network, config.model.swa_decay) if config.model.swa_decay else None
        self._epoch_average = EpochAverage(self.network) if config.model.swa_start else None
        if config.model.compile:
            torch.compiler.reset()  # dynamo keeps 8 graphs per function, and a worker runs many cells
            for network in {self.network, self.evaluated}:
                network.compile_embedding()
        self._optimizer = build_optimizer(self.network, config, self.steps_per_epoch)
        self._images = splits.train.on(self.device)
        self._inputs = StepInputs(self._images, self._share.stop - self._share.start)
        self._device_step = DeviceStep(
            config=config,
            network=self.network,
            average=self._average,
            optimizer=self._optimizer,
            labels=self._images.labels if splits.classes else None,
            inputs=self._inputs,
        )
        self._run_step = captured(self._device_step, self.device)
        self._skipped = splits.skipped
        self._order = torch.empty(0, dtype=torch.int64)  # of the epoch, on the CPU
        self._seconds = 0.0  # spent on the epoch's steps
        # A step that draws nothing from the global generators needs no seed. A user's code may draw in some steps only.
        self._draws = True
        self._is_own = is_dotted(config.model.encoder) or is_dotted(config.method.name)
        self._measured = 0  # step of the last z that means() has read
        self._spreads = (math.inf, math.inf)  # embedding_std at the last two calls of means()
        self._sparsity: dict[str, float] = {}  # of a rectified z, at the last call of means()

    @property
    def evaluated(self) -> Network:
        """Network to evaluate: the averaged one if there is one. That of epochs begins after epoch model.swa_start."""
        if self._average is not None:
            return self._average.network
        averages = self._epoch_average
        return self.network if averages is None or averages.updates == 0 else averages.network

    @property
    def step(self) -> int:
        """Number of steps taken."""
        return self._optimizer.steps_taken

    @property
    def steps_into_epoch(self) -> int:
        """Number of steps taken since the last whole epoch."""
        return self.step % self.steps_per_epoch

    def train_step(self) -> None:
        """Train on one global batch. Does not synchronise with the device, except for singular slices."""
        started = time.perf_counter()
        config, step, positions = self.config, self.step, self._positions()
        whole, shapes = config.global_batch, self._images.shapes(positions)
        fields = view_fields(shapes, config.views, seed=config.seed, step=step, batch=self._share, global_batch=whole)
        self._inputs.send(step, positions, fields)
        self._optimizer.begin_step()
        if self._average is not None:
            self._average.begin_step()
        if self._draws:
            # stochastic depth and dropout draw from the global generators, for other images on each rank
            torch.manual_seed(derive_seed(config.seed, step, collectives.rank(), "forward"))
            before = self._generator_state()
            self._run_step()
            self._draws = self._is_own or not torch.equal(before, self._generator_state())
        else:
            self._run_step()
        self._seconds += time.perf_counter() - started

    def _generator_state(self) -> Tensor:
        """State of the device's global generator, on the host."""
        if self.device.type == "mps":
            return torch.mps.get_rng_state()
        return torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else torch.get_rng_state()

    def end_epoch(self) -> None:
        """Add the weights to the mean of epochs if the epoch belongs to it. Call once after an epoch's last step."""
        if self._epoch_average is not None and self.step >= self.config.model.swa_start * self.steps_per_epoch:
            self._epoch_average.update(self.network, self._single_views(), self.config.precision)

    def _single_views(self) -> Iterator[Tensor]:
        """This rank's share (N, 3, h, w) of one global view of each training image, in global batches."""
        config, whole = self.config, self.config.global_batch
        seed, views = derive_seed(config.seed, "swa"), dataclasses.replace(config.views, num_global=1, num_local=0)
        order = torch.randperm(len(self._images), generator=generator(seed, self.step, "order"))
        for index, positions in enumerate(order.split(whole)[: self.steps_per_epoch]):
            source, _ = self._images.batch(positions[self._share])
            step = self.step + index
            (view,) = make_views(source, views, seed=seed, step=step, batch=self._share, global_batch=whole)
            yield view.squeeze(0)

    def means(self) -> dict[str, float]:
        """Means of every term over the epoch's steps so far, and statistics of the last z; equal on all ranks.

        The only point at which a training epoch synchronises with the device.
        """
        steps = self.steps_into_epoch or self.steps_per_epoch
        started = time.perf_counter()
        sums = {f"train/{name}": value / steps for name, value in self._device_step.sums.items()}
        of_z = self._z_statistics() if self._measured < self.step else {}  # else no step since the last call
        means = dict(zip((*sums, *of_z), _read(*sums.values(), *of_z.values()), strict=True))
        if of_z:
            self._measured = self.step
            self._spreads = (self._spreads[1], means.pop(_SPREAD))
            self._sparsity = {name: means.pop(name) for name in of_z if name != _SPREAD}
        means |= {_SPREAD: self._spreads[1], **self._sparsity}
        self._seconds += time.perf_counter() - started
        means["train/lr"] = self._optimizer.lr
        means["train/images_per_s"] = steps * self.config.global_batch / self._seconds
        means["train/peak_memory_gb"] = peak_memory_gb(self.device)
        if self._optimizer.scaler.enabled:
            means["train/skipped_steps"] = float(self._optimizer.scaler.skipped)
        return means | ({"train/skipped_images": float(self._skipped)} if self._skipped else {})

    def _z_statistics(self) -> dict[str, Tensor]:
        """Scalars of the last step's z on all ranks."""
        z = self._device_step.z.flatten(0, 1)
        if collectives.world_size() > 1:
            z = collectives.all_gather(z)
        found = {_SPREAD: embedding_std(z)}
        if self.config.method.output_activation != "none":
            found["train/nonzero_fraction"] = nonzero_fraction(z)
        return found

    @property
    def spread(self) -> float:
        """The larger of the last two values of embedding_std, as a healthy run may be narrow for a short time."""
        return max(self._spreads)

    def state_dict(self) -> dict[str, Any]:
        """State that the following steps depend on, besides the config."""
        average = self._average or self._epoch_average
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": {} if average is None else average.state_dict(),
            "totals": {name: value.clone() for name, value in self._device_step.sums.items()},
            "seconds": self._seconds,
            "spreads": self._spreads,
            "sparsity": self._sparsity,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state_dict of the same config; on a CPU the run continues bit for bit."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        average = self._average or self._epoch_average
        if average is not None:
            average.load_state_dict(state["average"])
        self._device_step.load_sums(state["totals"])
        self._run_step = captured(self._device_step, self.device)  # a graph would write to tensors that were replaced
        self._measured = self.step
        self._seconds, self._spreads = state["seconds"], state["spreads"]
        self._sparsity = state.get("sparsity", {})

    def _positions(self) -> Tensor:
        """Indices of this rank's images in the next step. Resets the sums at the start of an epoch."""
        epoch, index = divmod(self.step, self.steps_per_epoch)
        if index == 0:
            self._device_step.clear_sums()
            self._seconds = 0.0
            if not has_own_streams(self.device):  # a GPU's peak is that of the run: a replayed step allocates nothing
                reset_peak_memory(self.device)
        if index == 0 or not len(self._order):
            self._order = torch.randperm(len(self._images), generator=generator(self.config.seed, epoch + 1, "order"))
        return self._order[index * self.config.global_batch :][: self.config.global_batch][self._share]


def _read(*values: Tensor) -> list[float]:
    """The scalars' values on the host, by one read of the device."""
    return torch.stack([value.to(wide_dtype(value.device)) for value in values]).tolist() if values else []


def _share_of_batch(config: TrainConfig, num_images: int) -> tuple[slice, int]:
    """This rank's slice of every global batch, and the steps per epoch; the last, incomplete batch is left out."""
    check_batch(config, num_images)
    return collectives.rank_slice(config.global_batch), num_images // config.global_batch
