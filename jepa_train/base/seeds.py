"""Explicit randomness: every draw comes from a generator seeded by (seed, step, purpose), never by the rank."""

import hashlib

import torch


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that is a pure function of its parts: derive_seed(config.seed, step, "slices")."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def generator(*parts: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator on the device, seeded by derive_seed(*parts)."""
    return torch.Generator(device=device).manual_seed(derive_seed(*parts))
