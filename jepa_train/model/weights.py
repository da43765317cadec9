"""Initial weights of an encoder: a pretrained tag of timm, or a file of tensors, such as that of a finished run."""

import dataclasses
import functools
import hashlib
import importlib
import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import timm
import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from jepa_train.base.errors import ConfigError, check_identity, nearest
from jepa_train.checkpoint.checkpoints import tensors_of
from jepa_train.config import ModelConfig, TrainConfig
from jepa_train.config.names import is_pretrained_tag
from jepa_train.distributed import collectives
from jepa_train.model.own_encoder import is_dotted
from jepa_train.storage.storage import StoragePath, storage_path

logger = logging.getLogger(__name__)

Parts = Mapping[str, Mapping[str, Tensor]]  # tensors by name, of each dictionary of a file, by its key ("": the file)

# the averaged network where a file holds two, which timm prefers too
_AVERAGED = ("state_dict_ema", "model_ema", "teacher")
_IN_FOLDER = ("final.pt", "model.safetensors")  # of a finished run, of an export


def planned_weights(config: ModelConfig, *, whole: bool = False) -> tuple[str, Parts]:
    """Identity of model.weights in the cell key, and its tensors: on the meta device, names and shapes alone, or whole.

    The identity is the tag, or a hash of the file's content; "" for a random start. A file that has not changed is read
    once per process, and for its whole tensors again. For a tag only whole tensors are downloaded.

    Raises:
        ConfigError: an unknown tag, a file that is missing or holds no tensors, or not that of config.weights_id; as
            fetch_weights.
        StorageError: the file's storage does not answer.
    """
    found = ""
    parts: Parts = {}
    if is_pretrained_tag(config.weights):
        _check_tag(config)
        found = config.weights
        if whole:
            parts = {"": fetch_weights(config.encoder, found)}
        else:
            with torch.device("meta"):
                parts = {"": timm.create_model(f"{config.encoder}.{found}").state_dict()}
    elif config.weights:
        place, stamp = _stamped(config.weights)
        found, parts = _opened(place) if whole else _outline(place, stamp)
    check_identity(
        "model.weights_id", config.weights_id or None, found, of=f"the content of model.weights={config.weights!r}"
    )
    return found, parts


def random_start(config: TrainConfig) -> TrainConfig:
    """The config without initial weights, for a network whose weights come from a checkpoint."""
    return dataclasses.replace(config, model=dataclasses.replace(config.model, weights="", weights_id=""))


def fetch_weights(encoder: str, weights: str) -> Mapping[str, Tensor]:
    """Pretrained tensors of timm by name, from the cache of the Hugging Face hub, or downloaded.

    Raises:
        ConfigError: they are not in the cache and cannot be downloaded.
    """
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # a line for each of ten attempts
    if collectives.is_main():
        logger.info("model.weights: timm's %s.%s, downloaded if it is not in the cache", encoder, weights)
    try:
        with torch.random.fork_rng(devices=[]):
            return timm.create_model(f"{encoder}.{weights}", pretrained=True).state_dict()
    except OSError as error:  # of the hub and of URLs
        reason = " ".join(str(error).split())[:120]
        raise ConfigError(
            f"model.weights must be a tag that can be downloaded, got {weights!r} of {encoder} ({reason}); connect to "
            "the internet once, or name a file"
        ) from None


def load_weights(encoder: nn.Module, config: ModelConfig) -> None:
    """Load model.weights into a new encoder and log the report of `fit`. Every rank reads the file.

    Raises:
        ConfigError: as planned_weights and fit; a file that has changed since the launch was planned.
    """
    state, report = fit(encoder, planned_weights(config, whole=True)[1], config)
    encoder.load_state_dict(state, strict=False)
    if collectives.is_main():
        logger.info("model.weights: %s", report)


def fit(encoder: nn.Module, parts: Parts, config: ModelConfig) -> tuple[dict[str, Tensor], str]:
    """The tensors that an encoder takes, by its own names, and a report of one line of what it does not take.

    Of all dictionaries of a file and all prefixes of their names ("module.", "backbone.", ...) those count under which
    most names are the encoder's. For an encoder of timm, names, position embeddings and patch sizes are converted by
    timm's own filter, and the number of input channels by timm's adapt_input_conv.

    Raises:
        ConfigError: no parameter of the encoder can be loaded, or timm cannot convert the tensors.
    """
    wanted = encoder.state_dict()
    key, prefix = _best_part(parts, wanted)
    found = {name.removeprefix(prefix): x for name, x in parts[key].items() if name.startswith(prefix)}
    if not is_dotted(config.encoder):
        try:
            found = _converted(encoder, found)
        except Exception as error:  # noqa: BLE001 (timm does not document what its filters raise)
            reason = " ".join(str(error).split())[:120]
            has, needs = (part["reg_token"].shape[1] if "reg_token" in part else 0 for part in (found, wanted))
            remedy = "choose other weights or change the model"
            if has not in (needs, config.register_tokens):
                remedy = f"it has {has} register tokens and the encoder {needs}, so set model.register_tokens={has}"
            raise ConfigError(
                f"model.weights must fit {config.encoder}, got {config.weights}, which timm cannot convert ({reason}); "
                f"{remedy}"
            ) from None
    state = {name: x for name, x in found.items() if name in wanted and x.shape == wanted[name].shape}
    if not state.keys() & dict(encoder.named_parameters()).keys():
        raise ConfigError(
            f"model.weights must fit {config.encoder}, got {config.weights}, of which nothing can be loaded: it has "
            f"{_listed(found)}, and the encoder {_listed(wanted)}; choose other weights or another encoder"
        )
    source = f"{key or 'weights'}{f', {prefix}*' if prefix else ''}"
    left_out = {
        "missing": wanted.keys() - found.keys(),
        "of another shape": wanted.keys() & found.keys() - state.keys(),
        "unused": found.keys() - wanted.keys(),
    }
    rest = "".join(f"; {kind}: {_listed(names)}" for kind, names in left_out.items() if names)
    return state, f"{len(state)} of {len(wanted)} tensors loaded ({source}){rest}"


def _check_tag(config: ModelConfig) -> None:
    names = [] if is_dotted(config.encoder) else timm.list_pretrained(f"{config.encoder}.*")
    known = [name.partition(".")[2] for name in names]
    if config.weights not in known:
        remedy = nearest(config.weights, known) or f"; timm.list_pretrained('{config.encoder}.*') lists its tags"
        rule = f"a file, with a / in its path, or a pretrained tag of timm's {config.encoder}"
        raise ConfigError(f"model.weights must be {rule}, got {config.weights!r}{remedy if known else '; it has none'}")


def _stamped(weights: str) -> tuple[StoragePath, tuple[int, int]]:
    """The file of a path or URL, in the folder of a run or an export too, with its size and time of change."""
    place = storage_path(weights, named="model.weights")
    files = {info.base_name: info for info in place.files(recursive=False)}
    if [*files] != [place.name]:
        inside = [name for name in _IN_FOLDER if name in files]
        if not inside:
            there = f"a folder without {' or '.join(_IN_FOLDER)}" if files else "where there is no file"
            raise ConfigError(f"model.weights must be a file of weights, got {place}, {there}; correct the path")
        place = place / inside[0]
    info = files[place.name]
    return place, (info.size, info.mtime_ns)


@functools.lru_cache(maxsize=8)
def _outline(place: StoragePath, _stamp: tuple[int, int]) -> tuple[str, Parts]:
    """As _opened, with the tensors on the meta device."""
    found, parts = _opened(place)
    return found, {key: {name: x.to("meta") for name, x in part.items()} for key, part in parts.items()}


def _opened(place: StoragePath) -> tuple[str, Parts]:
    """Hash of a file's content, and its tensors; executes nothing in it."""
    content = place.read_bytes()
    named, remedy = f"model.weights {place}", "; save the network's state_dict() alone, or as safetensors"
    whole = tensors_of(content, named, safe=place.name.lower().endswith(".safetensors"), remedy=remedy)
    nested = {"": whole, **whole} if isinstance(whole, Mapping) else {}
    if {"cell_key", "network"} <= nested.keys():  # ours: its heads have names that an encoder may have too
        nested = {"network": {name: x for name, x in whole["network"].items() if name.startswith("encoder.")}}
    parts: dict[str, dict[str, Tensor]] = {}
    for key, part in nested.items():
        tensors = part.items() if isinstance(part, Mapping) else ()
        parts[str(key)] = {str(name): x for name, x in tensors if isinstance(x, Tensor)}
    parts = {key: part for key, part in parts.items() if part}
    if not parts:
        raise ConfigError(
            f"model.weights must be a file of tensors by name, got {place}, which has none; save the network's "
            "state_dict(), or name final.pt of a finished run"
        )
    return hashlib.blake2b(content, digest_size=8).hexdigest(), parts


def _best_part(parts: Parts, wanted: Iterable[str]) -> tuple[str, str]:
    """Key of a dictionary, and the prefix in it, under which most names are wanted; the averaged one of equals."""
    names = {*wanted}
    counts = Counter(
        (key, name[: start.end()])
        for key in sorted(parts, key=lambda key: key not in _AVERAGED)
        for name in parts[key]
        for start in re.finditer(r"^|\.", name)
        if name[start.end() :] in names
    )
    return counts.most_common(1)[0][0] if counts else (next(iter(parts)), "")  # the first of equals


def _converted(encoder: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in the names and sizes of an encoder of timm."""
    convert = getattr(importlib.import_module(type(encoder).__module__), "checkpoint_filter_fn", None)
    tensors = dict(convert(tensors, encoder)) if convert else tensors
    first = encoder.pretrained_cfg.get("first_conv") or ()
    shapes = {name: x.shape for name, x in encoder.state_dict().items()}
    for name in (f"{layer}.weight" for layer in ([first] if isinstance(first, str) else first)):
        if name in shapes and name in tensors and tensors[name].ndim == len(shapes[name]) == 4:
            channels = tensors[name].shape[1]
            tensors[name] = adapt_input_conv(shapes[name][1], tensors[name], base_chans=channels)
    return tensors


def _listed(names: Collection[str]) -> str:
    first, rest = sorted(names)[:3], len({*names}) - 3
    return ", ".join(first) + (f" and {rest} more" if rest > 0 else "")
