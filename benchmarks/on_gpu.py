"""Everything that only a GPU can show, in one run of at most ten minutes, the most important parts first.

    python -m benchmarks.on_gpu [--quick] [--lab IMAGES] [--only PART ...] [--output FOLDER] [--seconds S]

Kernels against their torch forms, replay of a step against eager, times of step, losses and views, share of the
evaluation, several cells on one GPU. Each part is a process of its own, which may fail or exceed its time alone; rows
are recorded as soon as they are measured. --quick: tiny shapes on any device, on a CPU with Triton's interpreter.
"""

import argparse
import contextlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.gpu_parts import Part
    from benchmarks.report import Row
    from benchmarks.timing import Setting

RESULTS = Path(__file__).parent / "results"
SECONDS = 560.0
GRACE = 10.0  # seconds for a part that must end to clean up


def main(words: Sequence[str] | None = None) -> int:
    """Run the parts, print and record their rows.

    Returns 0; 1 if a part failed or a bound is not met; 2 without a GPU, unless quick.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.on_gpu", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="tiny shapes, to see that it runs; never recorded")
    parser.add_argument("--lab", type=Path, metavar="IMAGES", help="train on this image folder too, CIFAR-10's say")
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="parts whose names begin so")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FOLDER", help="folder of the record")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"time of all parts, {SECONDS:g} by default")
    options = parser.parse_args(words)
    # A process that has initialised CUDA cannot fork; by NVML torch finds a GPU without that.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    import torch

    has_gpu = torch.cuda.is_available()
    if not has_gpu and not options.quick:
        sys.stderr.write("error: there is no GPU; --quick shows on a CPU that everything runs\n")
        return 2
    if not has_gpu:
        os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
        torch.set_num_threads(1)
    from benchmarks.gpu_parts import PARTS, lab
    from benchmarks.report import as_json, as_markdown
    from benchmarks.timing import Setting

    setting = Setting(device=torch.device("cuda" if has_gpu else "cpu"), quick=options.quick, seconds=3.0)
    parts = dict(PARTS) | ({"lab": lab(options.lab)} if options.lab else {})
    chosen = {name: part for name, part in parts.items() if name.startswith(tuple(options.only or [""]))}
    rows: dict[str, list[Row]] = {}
    failed: list[str] = []
    described, slug = _in_process(setting)
    end = time.monotonic() + options.seconds
    for name, part in chosen.items():
        sys.stderr.write(f"{name} ...\n")
        rows[name] = []
        for found in rows_of(part, setting, min(part.seconds, end - time.monotonic())):
            if isinstance(found, str):
                failed.append(name)
                sys.stderr.write(found)
                continue
            rows[name].append(found)
            sys.stderr.write(f"  {'  '.join(cell for cell in found.cells() if cell)}\n")
            if not options.quick:
                options.output.mkdir(parents=True, exist_ok=True)
                file = options.output / f"on-gpu-{slug}.md"
                file.write_text(as_markdown([row for group in rows.values() for row in group], described))
                file.with_suffix(".json").write_text(as_json(rows, described))
    sys.stdout.write(as_markdown([row for group in rows.values() for row in group], described))
    missed = [row.cells()[0] for group in rows.values() for row in group if getattr(row, "met", None) is False]
    sys.stdout.write(f"\nnot met: {', '.join(missed) or 'none'}; parts that failed: {', '.join(failed) or 'none'}\n")
    return 1 if failed or missed else 0


def _in_process(setting: "Setting") -> tuple[dict[str, str], str]:
    """Description and slug of the machine, from a process that may initialise CUDA."""
    from benchmarks import machine

    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(machine.described, [setting.device]), pool.apply(machine.slug, [setting.device])


def rows_of(part: "Part", setting: "Setting", seconds: float) -> "Iterator[Row | str]":
    """Rows of a part from its own process, as they come; last the reason if it fails or takes too long."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_rows, args=(part, setting, sender))
    process.start()
    sender.close()
    end = time.monotonic() + seconds
    try:
        while receiver.poll(max(end - time.monotonic(), 0)):
            found = receiver.recv()
            if found is None:
                break
            yield found
        else:
            yield f"not finished after {seconds:.0f} s\n"
    except EOFError:
        process.join()
        yield f"its process ended with code {process.exitcode}\n"
    finally:
        _end(process)


def _send_rows(part: "Part", setting: "Setting", sender: Connection) -> None:
    """The part's process: send its rows, then None, or the traceback in its place."""
    os.setsid()  # a group of its own, with the processes that it starts
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        for row in part.run(setting):
            sender.send(row)
        sender.send(None)
    except Exception:  # noqa: BLE001 (any failure of a part is a result of the run)
        sender.send(traceback.format_exc())
        sender.send(None)


def _end(process: multiprocessing.process.BaseProcess) -> None:
    """Let the part's process clean up and end; end what is left of its group."""
    assert process.pid is not None
    process.join(3.0)  # it may just have sent its last row
    if process.is_alive():
        process.terminate()
        process.join(GRACE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


if __name__ == "__main__":
    sys.exit(main())
