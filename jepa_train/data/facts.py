"""Facts about a run's images, for the launch, doctor and the run's tags: used, not used, converted, and content."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from jepa_train.base.errors import config_errors
from jepa_train.config import DataConfig
from jepa_train.data.base import Inventory
from jepa_train.data.files.listing import PixelFormat, printable
from jepa_train.data.splits import partition


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """Every file of a folder of images is counted once: in a split, or as left out, corrupt or unused.

    Args:
        sizes: images by split; without "test" where the data has none.
        left_out: readable images beyond data.train_images.
    """

    config: DataConfig
    files: Inventory
    sizes: Mapping[str, int]
    left_out: int

    def __str__(self) -> str:
        files, sizes = self.files, ", ".join(f"{split} {size:,}" for split, size in self.sizes.items())
        none = "" if "test" in self.sizes else ", no test split"
        total = sum(self.sizes.values())
        labels = f"of {len(files.classes)} classes" if files.classes else "without labels"
        parts = [f"{self.config.path}: {total:,} images {labels} ({sizes}{none})"]
        parts += [] if self.config.is_rgb else [str(PixelFormat(self.config.channels, self.config.bits))]
        parts += [f"{self.left_out:,} beyond data.train_images"] if self.left_out else []
        parts += [f"{files.skipped:,} corrupt"] if files.skipped else []
        unused = [f"{count:,} {reason} ({first})" for reason, (count, first) in _most(files.unused)]
        parts += [f"not used: {', '.join(unused)}"] if unused else []
        converted = [f"{count:,} {words}" for words, count in files.converted.items()]
        keep = "data.channels and data.bits, as in the files, keep the values; .npy those of three pages of 8 bits"
        remedy = "" if files.classes else f" ({keep})"
        parts += [f"converted: {', '.join(converted)}{remedy}"] if converted else []
        parts += [f"{files.unread:,} to be read by the next launch"] if files.unread else []
        return printable("; ".join(parts))

    @property
    def tags(self) -> dict[str, str]:
        """The facts as tags of a run."""
        skipped = {"corrupt": self.files.skipped} if self.files.skipped else {}
        skipped |= {reason: count for reason, (count, _) in _most(self.files.unused)}
        tags = {
            "data.classes": str(len(self.files.classes) or ""),
            "data.images": str(sum(self.sizes.values())),
            **{f"data.{split}_images": str(size) for split, size in self.sizes.items()},
            "data.not_used": json.dumps(skipped) if skipped else "",
            "data.converted": json.dumps(dict(self.files.converted)) if self.files.converted else "",
            "data.content_hash": self.files.content,
        }
        return {name: text for name, text in tags.items() if text}


@config_errors()
def facts_of(config: DataConfig, inventory: Inventory) -> DataFacts | None:
    """The facts about a config's images, None for data that is no folder.

    Raises:
        ConfigError: too few images for the splits.
    """
    if not inventory.fingerprint:
        return None
    labels, held_out = inventory.labels
    train, val, test = map(len, partition(config, labels))
    sizes = {"train": train, "val": val}
    if inventory.has_test or test:
        sizes["test"] = test or len(held_out)
    return DataFacts(config=config, files=inventory, sizes=sizes, left_out=len(labels) - train - val - test)


def _most(unused: Mapping[str, tuple[int, str]], limit: int = 8) -> list[tuple[str, tuple[int, str]]]:
    """The most frequent reasons; those beyond the limit, such as rare suffixes, together as "others"."""
    ranked = sorted(unused.items(), key=lambda item: (-item[1][0], item[0]))
    rest = ranked[limit:]
    return [*ranked[:limit], *([("others", (sum(count for _, (count, _) in rest), rest[0][1][1]))] if rest else [])]
