"""Names of datasets, evaluation protocols and pretrained weights that a config may hold, and parsers of lists of them.

The registries data.DATASETS and evaluation.protocols.PROTOCOLS import the config; a test compares the names.
"""

import re

from jepa_train.base.errors import nearest, require

DATASET_NAMES = ("digits", "digits_0_4", "digits_5_9", "cifar10", "cifar100", "image_folder", "unlabelled_folder")
PROTOCOL_NAMES = ("linear", "sgd", "plain_sgd", "knn", "kshot", "finetune", "collapse")


def protocol_names(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of protocols; "" is the empty list.

    Raises:
        ValueError: an unknown name, or one given twice.
    """
    names = tuple(name.strip() for name in text.split(",")) if text.strip() else ()
    for name in names:
        known = f"protocols must list known protocols, got {name!r}{nearest(name, PROTOCOL_NAMES)}"
        require(name in PROTOCOL_NAMES, known)
    require(len(set(names)) == len(names), f"protocols must name each protocol once, got {text!r}; drop the others")
    return names


def transfer_sets(text: str) -> dict[str, str]:
    """Parse a comma-separated list of transfer sets, "cifar100,dtd=FOLDER", to {name: folder}; "" is the empty list.

    A name alone is one of DATASET_NAMES, and its folder "". With a folder it is one of them or any name for a folder of
    images (train/<class>/*, test/<class>/*), as DTD, Flowers-102, Food-101 and Pets come.

    Raises:
        ValueError: an unknown name without a folder, a name without letters or given twice.
    """
    found: dict[str, str] = {}
    for word in text.split(",") if text.strip() else ():
        name, equals, folder = (part.strip() for part in word.partition("="))
        alone = sorted(name for name in DATASET_NAMES if not name.endswith("_folder"))
        known = f"transfer must list known data sets, or NAME=FOLDER of images, got {word.strip()!r}"
        require(bool(folder) if equals else name in alone, f"{known}{nearest(name, alone)}")
        require(name.replace("_", "").replace("-", "").isalnum(), f"{known}; a name has letters, digits, - and _")
        require(name not in found, f"transfer must name each data set once, got {name!r} twice; drop one")
        found[name] = folder
    return found


def is_pretrained_tag(weights: str) -> bool:
    """True if model.weights is a tag of timm ("a1_in1k"); False for a path, a URL, or "" (a random start)."""
    return weights != "" and re.search(r"[/\\]|\.(safetensors|pt|pth|bin)$", weights) is None
