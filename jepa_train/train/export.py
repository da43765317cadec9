"""Export of a finished run's encoder: safetensors that timm loads, and a card with its origin and its loading lines."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor, nn

from jepa_train.base.errors import ConfigError
from jepa_train.base.security import hidden
from jepa_train.checkpoint.checkpoints import read_finished, restore
from jepa_train.config import TrainConfig
from jepa_train.config.flat import flatten, unflatten
from jepa_train.data.pictures import RGB_NORM
from jepa_train.model.network import build_network, timm_options
from jepa_train.model.own_encoder import is_dotted
from jepa_train.model.weights import random_start
from jepa_train.storage.paths import has_url_scheme
from jepa_train.storage.storage import StoragePath

WEIGHTS, CARD, TIMM_CONFIG, PROJECTOR = "model.safetensors", "README.md", "config.json", "projector.safetensors"


def export(where: StoragePath, where_to: str, *, projector: bool = False, facts: Mapping[str, str] = {}) -> list[Path]:
    """Write the encoder of a finished run to a new folder.

    The weights are those that the run evaluated: the averaged ones, if there are any. An encoder that timm can build
    comes with timm's config.json, for timm.create_model("local-dir:OUT", pretrained=True); for the others (a small
    stem, torchvision's models, the user's own) the card has the lines that build and load it.

    Args:
        where: final.pt, a snapshot, or the folder of final.pt.
        where_to: a path.
        projector: also write the projector, whose input is the encoder's pooled output.
        facts: rows for the card, on the run's origin.

    Returns:
        The files.

    Raises:
        ConfigError: no checkpoint of a finished run; the folder exists or cannot be written.
        StorageError: the storage does not answer.
    """
    out = Path(where_to).expanduser().absolute()
    if has_url_scheme(where_to) or out.exists():
        reason = ", which exists" if out.exists() else ""
        raise ConfigError(f"OUT must be a new folder on a disk, got {where_to!r}{reason}; choose another name")
    file, content = read_finished(where)
    recorded = unflatten(content["config"])
    config = random_start(recorded)
    network, tensors = build_network(config, num_classes=2), {WEIGHTS: _part(content, "encoder")}
    restore(network.encoder.load_state_dict, tensors[WEIGHTS])
    replaced = [*_replaced(network.encoder, config)]
    lines = _loading_lines(out, config, replaced)
    mean, std = _mean_and_std(content)
    by_timm = not is_dotted(config.model.encoder) and not replaced
    texts = {TIMM_CONFIG: json.dumps(_timm_config(config, network.encoder, mean, std), indent=1)} if by_timm else {}
    about = {"checkpoint": hidden(str(file)), "cell": content["cell_key"], **facts}
    if weights := recorded.model.weights:
        names = dict.fromkeys((hidden(PurePath(weights).name), recorded.model.weights_id))  # equal for a tag
        about["initial weights"] = ", content ".join(filter(None, names))
    about["commit"] = content.get("commit") or facts.get("commit", "")  # a node without git knows none
    takes = f"images (N, {len(mean)}, {config.views.global_size}, {config.views.global_size})"
    lines.append(f"features = encoder(images)  # {takes} -> (N, E)")
    bits = config.data.bits
    scaled = f"uint{bits} / {2**bits - 1}"
    inputs = (
        f"It takes {takes} of values in [0, 1] ({scaled}), normalised with mean {mean} and std {std} of the channels."
    )
    texts[CARD] = _card(config, [*lines, "```", "", inputs], about, content["reports"][-1])
    if projector:
        tensors[PROJECTOR] = _part(content, "projector")
        texts[CARD] += f"\n## Projector\n\n`{PROJECTOR}` has the weights of\n\n```\n{network.projector}\n```\n"
    part = out.with_name(f".{out.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name, state in tensors.items():
            (part / name).write_bytes(safetensors.torch.save(state, metadata={"format": "pt"}))
        for name, text in texts.items():
            (part / name).write_text(text, encoding="utf-8")
        part.rename(out)
    except OSError as error:
        raise ConfigError(f"OUT must be a folder that can be written, got {str(out)!r} ({error.strerror})") from None
    return [out / name for name in sorted([*tensors, *texts])]


def _part(content: Mapping[str, Any], name: str) -> dict[str, Tensor]:
    """The tensors of one part of a checkpoint's network, by the part's own names."""
    named = ((key.partition("."), x) for key, x in content["network"].items())
    return {rest: x.clone(memory_format=torch.contiguous_format) for (first, _, rest), x in named if first == name}


def _options(config: TrainConfig) -> dict[str, Any]:
    """timm's options of the encoder; that of stochastic depth takes effect in training alone."""
    return timm_options(config.model, config.views.global_size, config.data.channels)


def _replaced(encoder: nn.Module, config: TrainConfig) -> Iterator[tuple[str, nn.Module]]:
    """Layers in which an encoder differs from the one that timm or torchvision builds, by their paths."""
    name = config.model.encoder
    with torch.device("meta"):
        if not is_dotted(name):
            plain = timm.create_model(name, num_classes=0, **_options(config))
        elif name.startswith("torchvision."):
            plain = torchvision.models.get_model(name.rpartition(".")[2])
        else:
            return
    for path, layer in encoder.named_modules():
        if not [*layer.children()] and repr(layer) != repr(plain.get_submodule(path)):
            yield path, layer


def _mean_and_std(content: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel, by which a run normalised values in [0, 1]."""
    factors, offsets = content.get("norm", RGB_NORM.tolist())
    mean = [float(f"{-offset / factor:.9g}") for factor, offset in zip(factors, offsets, strict=True)]
    return mean, [float(f"{1 / factor:.9g}") for factor in factors]


def _timm_config(config: TrainConfig, encoder: Any, mean: list[float], std: list[float]) -> dict[str, Any]:
    """The config.json of an encoder, in the form that timm reads from a folder or the Hugging Face hub."""
    side, options = config.views.global_size, _options(config)
    return {
        "architecture": config.model.encoder,
        "num_classes": 0,
        "model_args": options,
        "pretrained_cfg": {
            "num_classes": 0,
            "input_size": [len(mean), side, side],
            "fixed_input_size": "img_size" in options,
            "interpolation": "bilinear",
            "crop_pct": config.data.eval_fov,
            "mean": mean,
            "std": std,
            # names by which timm adapts the weights to other channels, and leaves out a classifier
            **{name: encoder.pretrained_cfg.get(name) for name in ("first_conv", "classifier")},
        },
    }


def _loading_lines(out: Path, config: TrainConfig, replaced: list[tuple[str, nn.Module]]) -> list[str]:
    """Lines that build the encoder and load its weights."""
    name = config.model.encoder
    if is_dotted(name):
        module, _, function = name.rpartition(".")
        first, build = f"from {module} import {function}", f"{function}()"
    elif not replaced:
        return ["import timm", "", f'encoder = timm.create_model("local-dir:{out}", pretrained=True).eval()']
    else:
        words = ", ".join(["num_classes=0", *(f"{key}={value!r}" for key, value in _options(config).items())])
        first, build = "import timm", f'timm.create_model("{name}", {words})'
    return [
        *(first, "import torch", "from safetensors.torch import load_file", ""),
        f"encoder = {build}.eval()",
        *(f'encoder.set_submodule("{path}", torch.nn.{layer!r})' for path, layer in replaced),
        f'encoder.load_state_dict(load_file("{out / WEIGHTS}"))',
    ]


def _card(config: TrainConfig, lines: list[str], about: dict[str, str], metrics: Mapping[str, float]) -> str:
    data = config.data
    about |= {"data": data.name, "data.fingerprint": data.fingerprint, "data.content": data.content}
    numbers = {name: f"{value:.6g}" for name, value in metrics.items() if not name.startswith(("train/", "system/"))}
    fields = {name: value for name, value in flatten(config).items() if name not in ("data.path", "model.weights")}
    text = [f"# {config.model.encoder}, pretrained by {config.method.name}", "", "```python", *lines]
    for title, rows in (("Origin", about), ("Metrics", numbers), ("Config", fields)):
        text += ["", f"## {title}", "", "| | |", "|---|---|"]
        text += [f"| {name} | {value} |" for name, value in rows.items() if value != ""]
    return "\n".join([*text, ""])
