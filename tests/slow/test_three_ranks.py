"""Three ranks compute batch norm of each view as one process does; two ranks are an integration test.

Run: python -m pytest tests/slow/test_three_ranks.py
"""

import ranks
import torch


def test_three_ranks_compute_batch_norm_of_each_view_as_one_process_does() -> None:
    compute, tolerance = ranks.CASES[ranks.PER_VIEW]
    for rank in ranks.results_of_three():
        torch.testing.assert_close(rank[ranks.PER_VIEW], compute(), rtol=tolerance, atol=tolerance)
