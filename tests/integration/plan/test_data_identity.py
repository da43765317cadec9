"""Cells on folders of images: their keys follow the content, a dry run reads nothing, and runs record the facts.

Run: python -m pytest tests/integration/plan/test_data_identity.py
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from folders_of_images import write_folder
from odd_images import IMAGES

from jepa_train.base.errors import ConfigError
from jepa_train.config import DataConfig
from jepa_train.config.flat import cell_key
from jepa_train.config.presets import DIGITS
from jepa_train.data.files import content
from jepa_train.data.splits import load_splits
from sweeps.engine.cli.modes import _show_data
from sweeps.engine.plan.plan import Plan, make_plan
from sweeps.engine.run.ledger import Ledger
from sweeps.engine.run.price import seconds_per_epoch
from sweeps.engine.spec import cells
from sweeps.engine.spec.cells import list_data, num_unread, read_data
from sweeps.engine.spec.sweep import Sweep
from sweeps.engine.store.mlflow_client import open_client
from sweeps.engine.store.reader import store_uri

FILE = Path("study.py")


@pytest.fixture
def folder(results: Path, tmp_path: Path) -> Path:  # noqa: ARG001 (the store)
    load_splits.cache_clear()
    return write_folder(tmp_path / "photos")


@pytest.fixture
def plan(folder: Path) -> Callable[[], Plan]:
    """Plan a sweep on the folder, as a new process does."""
    data = DataConfig(name="image_folder", path=str(folder), image_size=8, val_frac=0.34)
    base = dataclasses.replace(DIGITS, data=data, global_batch=2)
    sweep = Sweep(name="study", purpose="", base=base, grid={"method.lamb": [0.1, 0.2]})

    def planned() -> Plan:
        cells._CHECKED.clear()
        return make_plan(sweep, FILE)

    return planned


def read(plan: Plan) -> bool:
    return read_data([cell.config for cell in plan.known], keep=False)


def run(plan: Plan) -> list[str]:
    """Record a result for every cell that is due. Returns their keys."""
    ledger = Ledger(plan, note=print, publish=lambda: "")
    for cell in plan.missing:
        ledger.start(cell, devices=1.0)
        ledger.log(cell.key, {"epoch": 1.0, "val/probe_top1": 0.9})
        ledger.end(cell.key, "finished", "")
    assert ledger.close() == ""
    return [cell.key for cell in plan.missing]


def exchange(folder: Path) -> None:
    """Other content under the same names and sizes."""
    one, other = folder / "train" / "ant" / "1.bmp", folder / "train" / "bee" / "1.bmp"
    before = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(before)


def test_exchanged_images_are_other_cells_and_restored_ones_the_old_cells(
    folder: Path, plan: Callable[[], Plan]
) -> None:
    first = plan()
    assert not read(first), "the first content adds no field to the key"
    keys = run(plan())
    config = first.known[0].config
    assert keys[0] == cell_key(dataclasses.replace(config, data=dataclasses.replace(config.data, content="")))
    exchange(folder)
    assert plan().todo == 0, "not read yet"
    assert read(plan())
    others = plan()
    assert others.todo == 2
    assert not {*keys} & {cell.key for cell in others.known}
    exchange(folder)
    assert not read(plan()), "a plan takes the content for the first one until it has been read"
    assert (plan().todo, [cell.key for cell in plan().known]) == (0, keys)


def test_the_facts_are_printed_once_per_launch(folder: Path, plan: Callable[[], Plan]) -> None:
    lines: list[str] = []
    first = plan().known[0].config
    list_data([first])
    assert num_unread(first.data) == 18
    read(plan())
    assert num_unread(first.data) == 0
    shown: set[str] = set()
    for _ in range(2):
        _show_data(plan(), shown, lines.append)
    assert lines == [f"data {folder}: 18 images of 2 classes (train 8, val 4, test 6)"]


def test_planning_and_pricing_read_no_image(
    plan: Callable[[], Plan], monkeypatch: pytest.MonkeyPatch, results: Path
) -> None:
    monkeypatch.setattr(content, "decode_file", lambda *_: pytest.fail("an image is read"))
    cell = plan().known[0]
    with pytest.raises(
        ConfigError, match=r"^data\.path holds images that have not been decoded on this machine; a launch"
    ):
        seconds_per_epoch(cell.config)
    assert not (results / "data").exists()


def test_a_run_records_the_facts_about_its_images(folder: Path, plan: Callable[[], Plan]) -> None:
    (folder / "train" / "ant" / "notes.txt").write_text("x")
    IMAGES["turned.jpg"](folder / "test" / "ant" / "turned.jpg")
    assert read(plan())
    run(plan())
    client = open_client(store_uri())
    experiment = client.get_experiment_by_name("study")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.role = 'cell'")
    tags = [{name: text for name, text in run.data.tags.items() if name.startswith("data.")} for run in runs]
    assert tags[0] == tags[1]
    assert len(tags[0].pop("data.content_hash")) == 16
    assert tags[0] == {
        "data.classes": "2",
        "data.images": "19",
        "data.train_images": "8",
        "data.val_images": "4",
        "data.test_images": "7",
        "data.not_used": '{"*.txt": 1}',
        "data.converted": '{"turned by EXIF orientation": 1}',
    }
