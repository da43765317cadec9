"""Inputs of a step: pixels from a memory map, and the packed buffer, with a stand-in for CUDA's streams.

Run: python -m pytest tests/unit/train/test_inputs.py
"""

from typing import Any

import pytest
import torch
from phantom import phantom_gpu
from torch import Tensor
from torch.overrides import TorchFunctionMode

from jepa_train.base.seeds import generator
from jepa_train.data.base import Images
from jepa_train.data.pictures import LineRanges
from jepa_train.train.inputs import PixelStream, StepInputs


class Unpinned(TorchFunctionMode):
    """Without a GPU no memory can be pinned."""

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **{name: value for name, value in (kwargs or {}).items() if name != "pin_memory"})


def draw(*shape: int) -> Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator("pixels"))


def squares() -> Images:
    return Images(pixels=draw(6, 3, 4, 4), rows=torch.tensor([5, 0, 3, 1]), labels=torch.arange(4))


def pictures() -> Images:
    ranges = LineRanges(torch.tensor([5, -7, 4, 6, -4, 8]))
    return Images(pixels=draw(34, 3, 4), rows=torch.tensor([5, 0, 3, 1]), labels=torch.arange(4), ranges=ranges)


@pytest.mark.parametrize("images", [squares(), pictures()], ids=["squares", "pictures"])
def test_streamed_pixels_are_those_of_the_memory_map(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Stream", "Event", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda: _Nothing([]))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    stream = PixelStream(images, 2)
    for positions in (torch.tensor([2, 0]), torch.tensor([3, 1])):
        with Unpinned():
            stream.first = stream.send(positions)
        found, expected = stream.source(), images.source(positions)
        assert found.lines == expected.lines
        for mine, first, position in zip(found.first, expected.first, positions, strict=True):
            length = 1 if images.ranges is None else int(images.ranges.lengths[images.rows[position]].abs())
            assert torch.equal(found.pixels[mine : mine + length], expected.pixels[first : first + length])


def test_a_copy_waits_for_the_step_that_reads_the_buffer_and_the_step_for_the_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    for name in ("Stream", "Event", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, lambda: _Nothing(calls))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    stream = PixelStream(squares(), 2)
    assert calls == ["record"], "of the zeros"
    for _ in range(2):
        calls.clear()
        with Unpinned():
            stream.send(torch.tensor([2, 0]))
        assert calls == ["wait_event", "wait_stream", "record"]


class _Nothing:
    """Stream or event of a device that does all at once, and notes what it is told."""

    def __init__(self, calls: list[str]) -> None:
        self._calls = calls

    def __enter__(self) -> None: ...
    def __exit__(self, *_error: object) -> None: ...
    def __getattr__(self, name: str) -> Any:
        return lambda *_args: self._calls.append(name)


def test_inputs_on_a_gpu_keep_their_addresses_and_arrive_by_one_copy() -> None:
    positions, fields = torch.arange(3), [torch.rand(5, 6), torch.rand(5, 3)]
    with phantom_gpu():
        images = squares().on(torch.device("cuda", 0))
        inputs, found = StepInputs(images, 3), []
        for number in range(2):
            inputs.send(number, positions, fields)
            assert inputs.count is not None
            found.append([inputs.count, inputs.positions, *inputs.fields])
    first, second = found
    assert [x.dtype for x in first] == [torch.int64, torch.int64, torch.float32, torch.float32]
    assert [x.shape for x in first] == [(), (3,), (5, 6), (5, 3)]
    assert len({x.untyped_storage()._cdata for x in (*first, *second)}) == 1
    assert [x.storage_offset() for x in first] == [x.storage_offset() for x in second]


def test_inputs_of_another_shape_are_a_mistake() -> None:
    with phantom_gpu():
        inputs = StepInputs(squares().on(torch.device("cuda", 0)), 3)
        inputs.send(0, torch.arange(3), [torch.rand(5, 6)])
        with pytest.raises(AssertionError, match="other shapes"):
            inputs.send(1, torch.arange(3), [torch.rand(5, 60)])
