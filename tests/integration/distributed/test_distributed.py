import pytest
import ranks
import torch
from torch import nn

from jepa_train.distributed import collectives
from jepa_train.distributed.batch_norm import GlobalBatchNorm, convert_batch_norm


@pytest.fixture(scope="module")
def both() -> list[dict]:
    return ranks.results(2)


def test_ranks_know_themselves(both):
    assert [rank["identity"] for rank in both] == [[0, 2, True], [1, 2, False]]


def test_mean_over_ranks_and_its_transpose(both):
    x, weight = ranks.draw("mean", 2, 3), ranks.draw("mean weight", 2, 3)
    for rank in both:
        torch.testing.assert_close(rank["collectives"]["mean"], x.sum(0) / 2)
        # Both ranks' losses, sum(weight[r] * mean), have this gradient with respect to each x[r].
        torch.testing.assert_close(rank["collectives"]["mean_gradient"], weight.sum(0) / 2)


def test_gather_over_ranks_and_its_transpose(both):
    rows, weight = ranks.draw("gather", 2, 2, 3), ranks.draw("gather weight", 2, 4, 3)
    for index, rank in enumerate(both):
        torch.testing.assert_close(rank["collectives"]["gather"], torch.cat([rows[0], rows[1]]))
        expected = weight[0] + weight[1]
        torch.testing.assert_close(rank["collectives"]["gather_gradient"], expected[2 * index : 2 * index + 2])


def test_gather_rows_takes_unequal_counts(both):
    for rank in both:
        assert rank["collectives"]["rows"].tolist() == [0, 10, 11, 12, 13]
        assert rank["collectives"]["some_empty"].tolist() == [[True] * 3] * 2
        assert rank["collectives"]["all_empty"].tolist() == []


def test_flags_and_numbers(both):
    for rank in both:
        assert rank["collectives"]["broadcast"] == [True, False]
        assert rank["collectives"]["broadcast_int"] == 10**9


def test_rank_0s_tensor_and_text_reach_all(both):
    for rank in both:
        tensor = rank["collectives"]["broadcast_tensor"]
        assert tensor.tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]  # of a transpose
        assert tensor.is_contiguous()
        assert rank["collectives"]["broadcast_text"] == "checkpoint of rank 0 \N{SNOWMAN}"


@pytest.mark.parametrize("world", [2, 3])
def test_fair_slices_share_out_everything_almost_equally(world):
    parts = [rank["fair"] for rank in ranks.results(world)]
    for n in (0, 1, 7):
        assert [piece for part in parts for piece in part[n]] == list(range(n))
        assert max(len(part[n]) for part in parts) - min(len(part[n]) for part in parts) <= 1


@pytest.mark.parametrize("world", [2, 3])
def test_unequal_batches_are_refused_on_every_rank(world):
    sizes = ", ".join(str(4 + rank) for rank in range(world))
    for rank in ranks.results(world):
        for refusal in rank["uneven"].values():
            assert refusal == (
                f"every rank must hold equally many images of the global batch, got {sizes}; "
                "leave out the last, incomplete batch"
            )
        assert rank["even"] == ""


def test_rank_slice_is_the_contiguous_share(both):
    assert both[0]["collectives"]["share"] + both[1]["collectives"]["share"] == list(range(10))
    assert both[1]["collectives"]["refusal"] == (
        "global_batch must be divisible by the number of workers, got 7 for 2; try 6"
    )


@pytest.mark.parametrize("kind", list(ranks.batch_norms()))
def test_batch_norm_of_two_ranks_is_that_of_the_whole_batch(both, kind):
    whole = ranks.batch_norm_steps(ranks.batch_norms()[kind])
    shares = [rank["norms"][kind] for rank in both]
    for step in range(2):
        together = torch.cat([share["outputs"][step] for share in shares])
        torch.testing.assert_close(together, whole["outputs"][step], rtol=1e-10, atol=1e-10)
        # The loss is half the whole's (a mean over ranks) and each rank's gradient is of both ranks' losses.
        gradient = torch.cat([share["gradients"][step] for share in shares])
        torch.testing.assert_close(gradient, whole["gradients"][step], rtol=1e-9, atol=1e-9)
    for name, gradient in whole["parameters"].items():
        averaged = sum(share["parameters"][name] for share in shares) / 2  # what DDP does
        torch.testing.assert_close(averaged, gradient / 2, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", list(ranks.batch_norms()))
def test_running_statistics_of_two_ranks_are_those_of_the_whole_batch(both, kind):
    whole = ranks.batch_norm_steps(ranks.batch_norms()[kind])
    for index, rank in enumerate(both):
        state = rank["norms"][kind]["state"]
        assert list(state) == list(whole["state"])
        for name, value in whole["state"].items():
            torch.testing.assert_close(state[name], value, rtol=1e-10, atol=1e-10)
        if "running_mean" in state:
            half = slice(index * 6, index * 6 + 6)
            torch.testing.assert_close(rank["norms"][kind]["eval"], whole["eval"][half], rtol=1e-10, atol=1e-10)


def test_batch_norm_of_two_ranks_keeps_channels_last(both):
    whole = ranks.batch_norm_steps(ranks.batch_norms()["plain"])
    for name in ("outputs", "gradients"):
        for step in range(2):
            shares = [rank["channels_last_norm"][name][step] for rank in both]
            assert all(share.is_contiguous(memory_format=torch.channels_last) for share in shares), name
            torch.testing.assert_close(torch.cat(shares), whole[name][step], rtol=1e-9, atol=1e-9, check_stride=False)


def test_batch_norm_of_bf16_keeps_fp32_statistics(both):
    x = (5 + 2 * ranks.draw("x1", 12, 4, 3, 3)).bfloat16().double()
    mean, deviation = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True, correction=0)
    output = torch.cat([rank["bf16_norm"]["outputs"][1] for rank in both])
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.double(), (x - mean) / deviation, rtol=2**-8, atol=1e-4)  # one final rounding
    x0 = (5 + 2 * ranks.draw("x0", 12, 4, 3, 3)).bfloat16().double().mean((0, 2, 3))
    running = both[0]["bf16_norm"]["state"]["running_mean"].double()
    torch.testing.assert_close(running, 0.09 * x0 + 0.1 * mean.flatten(), rtol=1e-6, atol=0)


def test_gradient_of_batch_norm_of_bf16_is_that_of_float64_up_to_rounding(both):
    x = (5 + 2 * ranks.draw("x1", 12, 4, 3, 3)).bfloat16().double().requires_grad_()
    normalized = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True, correction=0)
    (normalized * ranks.draw("w1", 12, 4, 3, 3)).sum().backward()
    gradient = torch.cat([rank["bf16_norm"]["gradients"][1] for rank in both])
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(gradient.double(), x.grad, rtol=2**-7, atol=2**-7)  # it comes and goes in bf16


def test_without_a_process_group_everything_is_the_identity():
    x = torch.arange(6.0).view(3, 2)
    for same in (collectives.mean_over_ranks, collectives.gather_over_ranks, collectives.gather_rows):
        assert same(x) is x
    assert collectives.broadcast(x) is x
    assert collectives.broadcast_flag(True)
    assert collectives.broadcast_text("a") == "a"
    assert collectives.fair_slice(5) == slice(0, 5)
    collectives.require_equal_batches(3)
    assert collectives.rank_slice(5) == slice(0, 5)
    module = nn.Linear(2, 2)
    assert collectives.data_parallel(module) is module


def test_conversion_keeps_parameters_and_names_and_on_one_rank_the_values():
    for kind, norm in ranks.batch_norms().items():
        plain = ranks.batch_norm_steps(ranks.batch_norms()[kind])
        model = nn.ModuleDict({"inner": nn.Sequential(norm)})
        before, parameters = list(model.state_dict()), list(model.parameters())
        converted = convert_batch_norm(model)
        assert list(converted.state_dict()) == before
        assert [id(p) for p in converted.parameters()] == [id(p) for p in parameters]
        assert isinstance(converted["inner"][0], GlobalBatchNorm)
        alone = ranks.batch_norm_steps(converted["inner"])
        torch.testing.assert_close(alone["outputs"], plain["outputs"], rtol=0, atol=0)
