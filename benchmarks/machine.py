"""Description of the machine: versions, hardware, threads."""

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

import torch

_PACKAGES = ("torch", "numpy", "timm", "torchvision", "pillow")


def chosen_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def described(device: torch.device) -> dict[str, str]:
    """Versions and hardware, by name."""
    versions = {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES}
    hardware = {
        "CPU": _cpu(),
        "cores": str(_cores()),
        "threads": str(torch.get_num_threads()),
        "GPU": torch.cuda.get_device_name(device) if device.type == "cuda" else "none",
    }
    if device.type == "cuda":
        versions["CUDA"] = str(torch.version.cuda)
    return versions | hardware


def slug(device: torch.device) -> str:
    """A file name for this hardware: the GPU, or the CPU and how many cores of it."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{_cpu()} {_cores()} cores"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), flags=re.MULTILINE) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def _cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
