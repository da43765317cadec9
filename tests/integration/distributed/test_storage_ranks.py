"""Two ranks before one storage: they go on from the same checkpoint, or are refused alike."""

import dataclasses
from pathlib import Path

import torch
import torch.distributed as dist

from jepa_train.base.errors import ConfigError
from jepa_train.checkpoint.checkpoints import Checkpoints
from jepa_train.config import TrainConfig
from jepa_train.storage import bucket
from jepa_train.storage.storage import StorageError, storage_path

CONFIG = TrainConfig()


def work(rank: int, out: Path, s3: str) -> None:
    """Resume from the bucket; from one that is not there; from a disk that rank 0 alone has; as another cell; and while
    rank 1 alone cannot reach the bucket."""
    dist.init_process_group("gloo", f"file://{out}/ranks", rank=rank, world_size=2)
    bucket._PAUSES_S = ()
    own = out / str(rank)
    if rank == 0:
        with Checkpoints(own, CONFIG) as saves:
            saves.save(3, {"x": torch.ones(1)}, [])
    dist.barrier()
    found = []
    other = dataclasses.replace(CONFIG, seed=1)
    cases = [(s3, CONFIG), (s3.replace("s3://", "s3://no-"), CONFIG), (str(own), CONFIG), (s3, other), (s3, CONFIG)]
    for number, (where, config) in enumerate(cases):
        if number == 4 and rank == 1:
            bucket.BucketPath.local = _away  # type: ignore[method-assign]
        try:
            with Checkpoints(storage_path(where), config) as saves:
                found.append(str(saves.resume()["step"]))
        except (ConfigError, StorageError) as error:
            found.append(f"{type(error).__name__}: {error}")
    (own / "found").parent.mkdir(exist_ok=True)
    (own / "found").write_text("\n".join(found))
    dist.destroy_process_group()


def _away(*_: object) -> None:
    raise StorageError("the network of this machine is down")


def test_ranks_resume_alike_or_are_refused_alike(s3: str, tmp_path: Path):
    with Checkpoints(storage_path(s3), CONFIG) as saves:
        saves.save(7, {"x": torch.ones(1)}, [{"epoch": 1.0}])
    torch.multiprocessing.spawn(work, args=(tmp_path, s3), nprocs=2)
    first, second = ((tmp_path / str(rank) / "found").read_text().splitlines() for rank in (0, 1))
    assert first[:2] == second[:2]
    assert first[0] == "7"
    assert first[1].startswith("StorageError: s3://no-bucket")
    told = "ConfigError: checkpoints must lie where every worker sees them, got step-000000003.pt in "
    assert [line.startswith(told) for line in (first[2], second[2])] == [True, True]
    assert first[3] == second[3]
    file = storage_path(s3) / "step-000000007.pt"
    assert first[3].startswith(f"ConfigError: checkpoint {file} is of another cell")
    assert first[4] == f"StorageError: {file} is away for another rank"
    assert second[4] == "StorageError: the network of this machine is down"
