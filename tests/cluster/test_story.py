"""A sweep on a cluster, from `ray up` to `ray down`: its machines and its drivers are killed, and nothing is lost.

The tests are one story, in this order: each goes on where the one before has left the cluster.
"""

import re

import pytest
from conftest import Cluster, until
from filled import FILLED
from watching import Watched, trains

FILE = "tests/cluster/sweeps/cluster_story.py"
CELLS = 4
LAUNCH_S = 240.0  # from a command until its sweep trains, on two busy cores
TRAIN_S = 180.0  # for a cell to go on, or to end
LOST_S = 240.0  # for Ray to miss a machine, and for its trial to go on elsewhere


@pytest.fixture(scope="module")
def sweep(cluster: Cluster) -> Watched:
    checkpoints = cluster.network.shared / "checkpoints" / "cluster_story"
    return Watched(checkpoints, cluster.head.home / "jepa-results" / "locks" / "cluster_story.lock")


def test_a_job_whose_machine_dies_in_mid_trial_goes_on_without_it(cluster: Cluster, sweep: Watched) -> None:
    with cluster.tunnel(8265) as address:
        job = f"export RAY_AUTH_MODE=token RAY_API_SERVER_ADDRESS={address} && ray job"
        folder, _, name = FILE.rpartition("/")
        words = f"--no-wait --submission-id story --working-dir {folder} -- python {name}"
        cluster.laptop.run(f"cd ~/jepa-sweeps && {job} submit {words}")
        until(sweep.steps, LAUNCH_S, "no cell has been begun", cluster.laptop.start(f"{job} logs story"))
        at_work = [machine for machine in cluster.machines.values() if trains(machine)]
        assert len(at_work) == 2  # a trial spans two hosts
        step, lost = sweep.steps(), next(machine for machine in at_work if machine is not cluster.head)
        lost.kill()
        until(
            lambda: sweep.finished() or sweep.steps() > step,
            LOST_S,
            f"the cell does not go on after {lost.name} was killed",
            cluster.laptop.start(f"{job} logs story"),
        )
        said = cluster.laptop.run(f"{job} logs story")
    note = re.search(r"worker lost \((.*)\); goes on after epoch (\d+)", said)
    assert note is not None, said
    assert int(note[2]) > 0, said
    cluster.boot_again(lost)
    until(sweep.finished, TRAIN_S, "the cell does not end")


def test_a_driver_that_is_killed_is_followed_by_the_next_launch(cluster: Cluster, sweep: Watched) -> None:
    before = sweep.finished()
    cluster.on_head(f"kill -9 {sweep.driver}")
    launch = cluster.submit(FILE, options="--tmux")
    launch.wait(60)
    step = sweep.steps()
    until(lambda: len(sweep.finished()) > len(before) or sweep.steps() > step, LAUNCH_S, "the sweep does not go on")
    assert before.items() <= sweep.finished().items()


def test_a_second_launch_is_told_who_runs_the_sweep(cluster: Cluster, sweep: Watched) -> None:
    second = cluster.submit(FILE)
    assert second.wait(60, check=False) != 0
    assert re.search(rf"sweep cluster_story is being run by root@head \(process {sweep.driver}\)", second.said)
    assert "code 2" in cluster.on_head("python cluster_story.py 2>&1; echo code $?")


def test_the_laptop_sees_how_the_sweep_stands_through_a_tunnel(cluster: Cluster) -> None:
    with cluster.tunnel(5000) as address:
        said = cluster.laptop.run(f"cd ~/jepa-sweeps && MLFLOW_TRACKING_URI={address} python {FILE} --status")
    assert re.search(r"of 4 cells; run by root@head", said), said


def test_a_driver_killed_again_and_the_same_command_finishes(cluster: Cluster, sweep: Watched) -> None:
    before = sweep.finished()
    cluster.on_head(f"kill -9 {sweep.driver}")
    launch = cluster.submit(FILE)
    launch.wait(LAUNCH_S + CELLS * TRAIN_S)
    assert len(sweep.finished()) == CELLS
    assert before.items() <= sweep.finished().items()
    assert "4 finished of 4 cells" in launch.said


def test_a_label_with_blanks_survives_the_launcher(cluster: Cluster) -> None:
    asked = cluster.submit(FILE, '--explain "p=0.5 mu=-1"')
    asked.wait(60)
    assert "finished" in asked.said


def test_down_leaves_nothing_of_ray_behind(cluster: Cluster) -> None:
    cluster.laptop.run(f"cd ~/jepa-sweeps && ray down --yes {FILLED}")
