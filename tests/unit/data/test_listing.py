"""Lists of image folders: every file of a random tree is used, rejected or counted; layouts; refused folders.

Run: python -m pytest tests/unit/data/test_listing.py
"""

import json
import os
import random
import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import pytest
import torch
from folders_of_images import folder_config, pixels_of, write_folder
from odd_images import CORRUPT, IMAGES
from PIL import Image

from jepa_train.base.errors import ConfigError
from jepa_train.data.facts import facts_of
from jepa_train.data.files.decode import CONVERSIONS, decode_file
from jepa_train.data.files.listing import BROKEN, CLOSED, HIDDEN, LOOP, OUTSIDE, SPECIAL, SUFFIXES, list_folder
from jepa_train.data.splits import identify, load_splits, read_images


@pytest.fixture(autouse=True)
def _own_results(tmp_path, monkeypatch):
    monkeypatch.setenv("JEPA_RESULTS", str(tmp_path / "results"))
    load_splits.cache_clear()


@dataclass
class Tree:
    """A folder that grows at random, with the numbers of files that are used, rejected and counted by reason."""

    root: Path
    draws: random.Random
    images: dict[str, list[Path]] = field(default_factory=dict)  # by split
    rejected: int = 0
    unused: Counter[str] = field(default_factory=Counter)

    def new(self, folder: Path, name: str) -> Path:
        """A path that is not taken, in a folder that is made if it does not exist."""
        folder.mkdir(parents=True, exist_ok=True)
        stem, dot, suffix = name.rpartition(".")
        number = len(list(folder.iterdir()))
        return folder / f"{stem}{number}{dot}{suffix}"

    def image(self, split: str, folder: Path) -> None:
        name = self.draws.choice([*IMAGES])
        path = self.new(folder, name)
        IMAGES[name](path)
        self.images.setdefault(split, []).append(path)

    def linked_image(self, split: str, folder: Path) -> None:
        path = self.new(folder, "link.png")
        path.symlink_to(self.new(self.root.parent / "elsewhere", "target.png"))
        Image.new("RGB", (9, 9)).save(path.resolve())
        self.images.setdefault(split, []).append(path)

    def corrupt(self, _split: str, folder: Path) -> None:
        name = self.draws.choice([*CORRUPT])
        CORRUPT[name](self.new(folder, name))
        self.rejected += 1

    def other(self, _split: str, folder: Path) -> None:
        name, reason = self.draws.choice([("a.txt", "*.txt"), ("b.HEIC", "*.heic"), ("README", "no suffix")])
        self.new(folder, name).write_text("x")
        self.unused[reason] += 1

    def hidden(self, _split: str, folder: Path) -> None:
        inside = self.draws.choice([folder, folder / ".cache" / "deep", folder / "@eaDir", folder / "__MACOSX"])
        name = ".x.png" if inside == folder else "y.png"
        IMAGES["plain.png"](self.new(inside, name))
        self.unused[HIDDEN] += 1

    def special(self, _split: str, folder: Path) -> None:
        kind = self.draws.choice([BROKEN, BROKEN, LOOP, SPECIAL])
        path = self.new(folder, "s.png")
        if kind == SPECIAL:
            os.mkfifo(path)
        else:
            targets = {BROKEN: ["nowhere", path.name], LOOP: [".", "..", str(self.root)]}  # also a link to itself
            path.symlink_to(self.draws.choice(targets[kind]))
        self.unused[kind] += 1

    def outside(self, _split: str, folder: Path) -> None:
        place = self.draws.choice([self.root, folder] if folder == self.root else [self.root])
        IMAGES["plain.jpg"](self.new(place, "o.jpg"))
        self.unused[OUTSIDE] += 1

    @property
    def count(self) -> int:
        return sum(map(len, self.images.values())) + self.rejected + self.unused.total()


def random_tree(root: Path, seed: int) -> Tree:
    tree = Tree(root, random.Random(seed))
    splits = tree.draws.choice([("train", "test"), ("train",), ("",)])
    for split in splits:
        for name in ("ant", "bee \u00fc"):
            for _ in range(4):  # enough for train, val and, held out, test
                tree.image(split, root / split / name)
    steps = (tree.image, tree.linked_image, tree.corrupt, tree.other, tree.hidden, tree.special, tree.outside)
    for _ in range(25):
        split = tree.draws.choice(splits)
        folder = root / split / tree.draws.choice(["ant", "bee \u00fc"]) / tree.draws.choice(["", "", "below/deeper"])
        tree.draws.choice(steps)(split, folder)
    if splits != ("",):
        IMAGES["plain.png"](tree.new(root / "extra" / "ant", "e.png"))
        tree.unused[OUTSIDE] += 1
    return tree


@pytest.mark.parametrize("seed", range(12))
def test_every_file_is_used_rejected_or_counted(seed: int, tmp_path: Path) -> None:
    tree = random_tree(tmp_path / "photos", seed)
    fields = {} if "test" in tree.images or seed % 2 else {"test_frac": 0.25, "split_seed": seed}
    config = folder_config(tree.root, on_corrupt="skip", **fields)
    listing = list_folder(tree.root)
    assert {reason: number for reason, (number, _) in listing.unused.items()} == dict(tree.unused)
    assert len(listing.files) + tree.unused.total() == tree.count
    splits = load_splits(config)
    used = [*splits.train.rows.tolist(), *splits.val.rows.tolist(), *splits.test.rows.tolist()]
    assert sorted(Path(listing.root, listing.files[row]) for row in used) == sorted(chain(*tree.images.values()))
    assert len(used) + splits.skipped + tree.unused.total() == tree.count
    for row in used:
        expected = decode_file(f"{tree.root}/{listing.files[row]}", 8).pixels
        assert torch.equal(splits.train.pixels[row], torch.from_numpy(expected.copy()))
    facts = facts_of(*read_images(config, keep=False))
    assert facts is not None
    assert facts.sizes["train"] == len(splits.train)
    assert facts.sizes.get("test", 0) == len(splits.test)
    counted = sum(count for count, _ in facts.files.unused.values())
    assert sum(facts.sizes.values()) + facts.files.skipped + counted == tree.count
    assert (facts.files.unread, facts.files.skipped) == (0, tree.rejected)


def test_the_suffixes_are_those_that_pillow_decodes_by_itself() -> None:
    Image.init()
    found = {suffix: format for suffix, format in Image.registered_extensions().items() if format in Image.OPEN}
    others = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}  # decoded by another program, or only recognized
    assert {suffix for suffix, format in found.items() if format not in others} == SUFFIXES


def test_the_page_says_what_becomes_of_each_kind_of_file() -> None:
    page = (Path(__file__).parents[3] / "docs" / "sweeps.md").read_text()
    listed = page.partition("<!-- suffixes -->")[2].partition("<!-- end -->")[0]
    assert {*re.findall(r"`(\.\w+)`", listed)} == SUFFIXES
    reasons = {f"counted as `{reason}`" for reason in (HIDDEN, OUTSIDE, BROKEN, LOOP, SPECIAL, CLOSED)}
    assert {reason for reason in reasons if reason not in page} == set()
    assert {words for words in CONVERSIONS.values() if f"| {words} |" not in page} == set()


def test_facts_name_the_first_file_of_each_kind(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos")
    (folder / "notes.md").write_text("x")
    (folder / "train" / "ant" / "0.heic").write_text("x")
    IMAGES["turned.jpg"](folder / "train" / "ant" / "turned.jpg")
    config = folder_config(folder, train_images=8)
    before = facts_of(*identify(config))
    assert str(before) == (
        f"{folder}: 14 images of 2 classes (train 6, val 2, test 6); 5 beyond data.train_images; "
        "not used: 1 *.heic (train/ant/0.heic), 1 outside the class folders (notes.md); "
        "19 to be read by the next launch"
    )
    facts = facts_of(*read_images(config, keep=False))
    assert facts is not None
    assert str(facts).endswith("(notes.md); converted: 1 turned by EXIF orientation")
    assert facts.tags["data.not_used"] == '{"*.heic": 1, "outside the class folders": 1}'
    assert facts.tags["data.converted"] == '{"turned by EXIF orientation": 1}'
    assert {name: facts.tags[f"data.{name}_images"] for name in ("train", "val", "test")} == {
        "train": "6",
        "val": "2",
        "test": "6",
    }


def test_names_that_are_no_text_are_used_and_printed_on_one_line(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos")
    for name in (b"\xff\n.png", b"\xfe\n.\xfd"):
        IMAGES["plain.png"](folder / "plain.png")
        (folder / "plain.png").rename(folder / "train" / "ant" / os.fsdecode(name))
    config = folder_config(folder)
    facts = facts_of(*read_images(config, keep=True))
    assert facts is not None
    assert facts.sizes == {"train": 9, "val": 4, "test": 6}
    assert "1 *.\\udcfd (train/ant/\\udcfe\\n.\\udcfd)" in str(facts)
    assert str(facts).encode().count(b"\n") == 0
    assert json.loads(facts.tags["data.not_used"]) == {"*.\udcfd": 1}
    assert len(load_splits(config).train) == 9


def test_a_folder_without_splits_is_split_by_a_seed(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos") / "train"
    whole, some, other = (
        load_splits(folder_config(folder, **fields))
        for fields in ({}, {"test_frac": 0.34}, {"test_frac": 0.34, "split_seed": 1})
    )
    assert [len(part) for part in (whole.train, whole.val, whole.test)] == [8, 4, 0]
    assert [len(part) for part in (some.train, some.val, some.test)] == [6, 2, 4]
    assert some.test.labels.tolist() == [0, 0, 1, 1]
    rows = torch.cat([some.train.rows, some.val.rows, some.test.rows])
    assert sorted(rows.tolist()) == list(range(12))
    assert some.test.rows.tolist() != other.test.rows.tolist()
    assert pixels_of(some.test)[:, 0, 0, 0].tolist() == [0, 0, 100, 100]
    with pytest.raises(ConfigError, match=r"^data\.test_frac must be 0 for data with a test split, got 0\.2; drop it$"):
        identify(folder_config(folder.parent, test_frac=0.2))


@pytest.mark.parametrize("name", ["Training", "val", "ant/train"])
def test_splits_under_other_names_are_no_classes(name: str, tmp_path: Path) -> None:
    for folder in (name, "ant", "bee"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    with pytest.raises(ValueError, match=rf"^data\.path must hold train/ if it has splits: there is {name}/, got"):
        list_folder(tmp_path)


def test_a_class_without_images_says_what_it_has_instead(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos")
    for file in (folder / "train" / "bee").iterdir():
        file.rename(file.with_suffix(".heic"))
    (folder / "train" / "ant" / "other.heic").touch()
    with pytest.raises(ValueError, match=r"at least 2 images in train/bee/: it has 0 \(not used: 6 \*\.heic\), got"):
        list_folder(folder)


def test_a_closed_folder_outside_the_classes_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "photos")
    (folder / "lost+found").mkdir()

    def refuse(path: str) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", refuse)
    assert {reason: number for reason, (number, _) in list_folder(folder).unused.items()} == {CLOSED: 1}
