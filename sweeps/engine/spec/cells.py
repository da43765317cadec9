"""Cells: the complete configs of a sweep, each named by its key."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from jepa_train.base.errors import ConfigError
from jepa_train.config import DataConfig, ModelConfig, TrainConfig
from jepa_train.config.flat import Flat, cell_fields, cell_key, flatten, group_key, setting_fields, unflatten
from jepa_train.config.names import transfer_sets
from jepa_train.data import Inventory
from jepa_train.data.facts import DataFacts, facts_of
from jepa_train.data.splits import identified, identify, read_images
from jepa_train.evaluation.transfer import transfer_data
from jepa_train.train.preflight import CheckedData, check_batch, check_data
from sweeps.engine.spec.objective import check_counts
from sweeps.engine.spec.sweep import BestOf, Sweep

Role = Literal["cell", "reference"]
_IDENTITIES = dict.fromkeys(("data.name", "data.path"), ("data.fingerprint", "data.content")) | {
    "model.encoder": ("model.encoder_hash",),
    "model.weights": ("model.weights_id",),
}

CheckData = Callable[[TrainConfig], CheckedData]
_CHECK: ContextVar[CheckData] = ContextVar("check", default=check_data)
_CHECKED: dict[Any, CheckedData] = {}  # kind of check, model, views, data, probe -> the data, identified
_INVENTORIES: dict[tuple[str, str], Inventory] = {}  # name and path of data that read_data has read -> its files


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One complete config; role "reference" marks a row to compare with, outside the grid or the search."""

    config: TrainConfig
    label: str  # the run's name: the values that vary in the sweep
    role: Role = "cell"

    @cached_property
    def key(self) -> str:
        """The hash that names the cell in the ledger."""
        return cell_key(self.config)

    @property
    def trial_config(self) -> Flat:
        """Config of the Tune trial and of the workers: the flat config, complete, and the key."""
        return {"cell_key": self.key, **flatten(self.config)}

    @property
    def setting(self) -> str:
        """The label without the seed."""
        return setting_of(self.label, self.config.seed)

    @property
    def group(self) -> str:
        """A name that is equal for the cells to average, and for no others: two settings may have one label."""
        return f"{self.setting} ({group_key(self.config)})"


def fixed_cells(sweep: Sweep, base: TrainConfig) -> list[Cell]:
    """The cells known beforehand: the references, and the grid times the seeds (the base itself without a grid).

    Args:
        base: the sweep's base after preflight.

    Raises:
        ConfigError: an encoder or a dataset that is not there, or two equal cells.
    """
    cells = [make_cell(sweep, base, point, role="reference") for point in sweep.references]
    if not sweep.space:
        points = itertools.product(grid_points(sweep), sweep.seeds)
        cells += [make_cell(sweep, base, point, seed=seed) for point, seed in points]
    seen: dict[str, Cell] = {}
    for cell in cells:
        if cell.key in seen:
            both = f"{seen[cell.key].role} {seen[cell.key].label!r} and {cell.role} {cell.label!r}"
            raise ConfigError(f"{sweep.name} has the same cell twice, {both}; take one out")
        seen[cell.key] = cell
    return cells


def grid_points(sweep: Sweep) -> list[dict[str, Any]]:
    """Every combination of each of the sweep's grids, in order; the one empty point without a grid."""
    grids = sweep.grids or [{}]
    return [dict(zip(grid, values, strict=True)) for grid in grids for values in itertools.product(*grid.values())]


def make_cell(
    sweep: Sweep, base: TrainConfig, point: Mapping[str, Any], *, seed: int | None = None, role: Role = "cell"
) -> Cell:
    """The base changed at a point of the grid, the space or the references; by default with the sweep's first seed."""
    config = changed(base, {"seed": sweep.seeds[0] if seed is None else seed, **point})
    several = {"seed": config.seed} if len(sweep.seeds) > 1 else {}
    unchanged = f"best of {sweep.base.sweep}" if isinstance(sweep.base, BestOf) else "base"
    return Cell(config=config, label=label_of({**point, **several}) or unchanged, role=role)


def changed(base: TrainConfig, point: Mapping[str, Any]) -> TrainConfig:
    """The base changed at a point, after preflight; other images, encoders or weights than the base's get their own
    identity."""
    return preflighted(unflatten({**dict.fromkeys(identities_of(point), ""), **point}, base=base))


def identities_of(keys: Iterable[str]) -> set[str]:
    """The fields that identify the content behind these fields."""
    return {field for key in keys for field in _IDENTITIES.get(key, ())}


def preflighted(config: TrainConfig) -> TrainConfig:
    """The config after preflight, which runs once for all configs with the same encoder, views, images and probes."""
    check = _CHECK.get()
    key = (check, config.model, config.views, config.data, config.probe)
    if key not in _CHECKED:
        _CHECKED[key] = check(config)
    return _CHECKED[key].fill_in(config)


def check_sizes(sweep: Sweep, configs: Iterable[TrainConfig]) -> None:
    """Check that the training images are enough for the batch, the objective and the constraints of each cell.

    Args:
        configs: of cells, after preflight.

    Raises:
        ConfigError: they are too few.
    """
    check = _CHECK.get()
    known = {checked.config: checked.class_sizes for (by, *_), checked in _CHECKED.items() if by is check}
    for config in {(config.data, config.global_batch): config for config in configs}.values():
        sizes = known[config.data]
        check_batch(config, sum(sizes))
        if sizes:
            check_counts(sweep.measured, num_images=sum(sizes), largest_class=max(sizes))


def read_data(configs: Iterable[TrainConfig], *, keep: bool) -> bool:
    """Read the images of these cells and of their transfer sets, as far as this machine does not know them.

    Args:
        keep: see splits.read_images.

    Returns:
        True if that gives the data of a cell another identity, so that it has to be planned again.

    Raises:
        ConfigError, StorageError: as splits.read_images.
    """
    changed, read = False, dict[tuple[str, str], Inventory]()
    for data, unidentified in _unidentified(configs).items():
        place = data.name, data.path
        if place not in read:
            read[place] = read_images(unidentified, keep=keep)[1]
        changed |= data.fingerprint != "" and identified(unidentified, read[place]) != data
    _INVENTORIES.update(read)
    _facts_of_data.cache_clear()
    if changed:
        _CHECKED.clear()
    return changed


def list_data(configs: Iterable[TrainConfig]) -> None:
    """List the files of these cells and of their transfer sets for data_facts; reads no image.

    Raises:
        ConfigError, StorageError: as splits.identify.
    """
    places = {(data.name, data.path): unidentified for data, unidentified in _unidentified(configs).items()}
    _INVENTORIES.update({place: identify(unidentified)[1] for place, unidentified in places.items()})
    _facts_of_data.cache_clear()


def num_unread(data: DataConfig) -> int:
    """Number of images that a launch has to read before it knows the cells for certain, by list_data or read_data."""
    return _INVENTORIES.get((data.name, data.path), Inventory()).unread


def data_facts(config: TrainConfig) -> list[DataFacts]:
    """The facts about the images of a cell and of its transfer sets, by read_data or list_data."""
    return [facts for data in _data_of(config) if (facts := _facts_of_data(data)) is not None]


def weights_facts(config: TrainConfig) -> str:
    """A line on what a cell's encoder takes from model.weights; "" for a random start."""
    return _facts_of_weights(config.model, config.views.global_size, config.data.channels)


@functools.cache
def _facts_of_weights(model: ModelConfig, image_size: int, channels: int) -> str:
    from jepa_train.model.network import weights_report  # timm takes 1.5 s to import

    report = weights_report(model, image_size, channels)
    return f"model.weights of {model.encoder} {model.weights}: {report}" if report else ""


@functools.cache
def _facts_of_data(data: DataConfig) -> DataFacts | None:
    inventory = _INVENTORIES.get((data.name, data.path))
    return facts_of(data, inventory) if inventory else None


def _unidentified(configs: Iterable[TrainConfig]) -> dict[DataConfig, DataConfig]:
    """The data of these cells and of their transfer sets, each without its identity."""
    found = dict.fromkeys(data for config in configs for data in _data_of(config))
    return {data: replace(data, fingerprint="", content="") for data in found}


def _data_of(config: TrainConfig) -> list[DataConfig]:
    """The data of a config, then its transfer sets."""
    sets = transfer_sets(config.probe.transfer).items()
    return [config.data, *(transfer_data(name, folder, config.data) for name, folder in sets)]


@contextmanager
def data_checked_by(check: CheckData) -> Iterator[None]:
    """Within the block, cells have the data of this function, in place of check_data, which needs the images."""
    token = _CHECK.set(check)
    try:
        yield
    finally:
        _CHECK.reset(token)


def shared_fields(config: TrainConfig, axes: Sequence[str]) -> dict[str, str]:
    """The fields that all cells of a sweep share, as MLflow stores them: the cell fields but the axes and the seed."""
    flat = cell_fields(config)
    following = {other for key, other in setting_fields(config).items() if key in axes or flat[key]}
    others = {*axes, *following, *identities_of(axes), "seed"}
    if "method" in axes:  # each method brings its own hyper-parameters
        others |= {key for key in flat if key.startswith("method.")}
    return {key: str(value) for key, value in flat.items() if key not in others}


def setting_of(label: str, seed: int | str) -> str:
    """A cell's label without its seed; "base" if nothing else varies."""
    return label.removesuffix(f"seed={seed}").rstrip() or "base"


def label_of(point: Mapping[str, Any]) -> str:
    """A readable run name: "p=1 mu=-0.5 seed=0"; keys that end alike are written out."""
    ends = [key.rpartition(".")[2] for key in point]
    names = [end if ends.count(end) == 1 else key for key, end in zip(point, ends, strict=True)]
    texts = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in point.values()]
    return " ".join(f"{name}={text}" for name, text in zip(names, texts, strict=True))
