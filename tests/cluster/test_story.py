"""A sweep on a cluster, from `ray up` to `ray down`: its machines and its drivers are killed, and nothing is lost.

The tests are one story, in this order: each goes on where the one before has left the cluster.
"""

import json
import re
import subprocess
from functools import partial
from pathlib import Path

import pytest
from filled import FILLED
from hosts import Host
from machines import TOKEN
from sockets import arguments, reachable
from tables import curves_of, results_of
from using import Cluster, until
from watching import Watched, ray_logs, trains

FILE = "sweeps/cluster_story.py"
CELLS = 4
KNOCK = Path(__file__).with_name("knock.py")
# Bounds, not expectations: a machine may be a tenth as fast as the one that these tests were written on.
CLI_S = 600.0  # for a command that trains nothing
LAUNCH_S = 900.0  # from a command until its sweep trains; a launch may wait 300 s for the cluster's machines
TRAIN_S = 600.0  # for a cell to go on, or to end
LOST_S = 900.0  # for Ray to miss a machine, and for its trial to go on elsewhere
KNOCK_S = 1200.0  # at some fifty sockets, with hundreds of methods
DOWN_S = 300.0  # for processes that were told to end
LOST = re.compile(r"worker lost \((.*)\); goes on after epoch (\d+)")


@pytest.fixture(scope="module")
def sweep(cluster: Cluster) -> Watched:
    checkpoints = cluster.network.shared / "checkpoints" / "cluster_story"
    return Watched(checkpoints, cluster.head.home / "jepa-results" / "locks" / "cluster_story.lock")


def test_a_job_whose_machine_dies_in_mid_trial_goes_on_without_it(cluster: Cluster, sweep: Watched) -> None:
    with cluster.tunnel(8265) as address:
        job = f"export RAY_AUTH_MODE=token RAY_API_SERVER_ADDRESS={address} && ray job"
        words = f"--no-wait --submission-id story --working-dir . -- python {FILE}"
        cluster.laptop.run(f"cd ~/jepa-sweeps && {job} submit {words}")
        logs = partial(cluster.laptop.run, f"{job} logs story")
        until(sweep.steps, LAUNCH_S, "no cell has been begun", logs)
        with cluster.held():
            at_work = [machine for machine in cluster.machines.values() if trains(machine)]
            assert len(at_work) == 2  # a trial spans two hosts
            assert sweep.steps(), "no cell is in mid-trial"
            lost = next(machine for machine in at_work if machine is not cluster.head)
            lost.kill()
        told = lambda: any(LOST.search(log.read_text()) for log in ray_logs(cluster.head, "job-driver-story.log"))  # noqa: E731
        until(told, LOST_S, f"the cell does not go on after {lost.name} was killed", logs)
        with cluster.held():
            note = LOST.search(said := logs())
            cluster.boot_again(lost)
    assert note is not None, said
    assert int(note[2]) > 0, said
    until(sweep.finished, TRAIN_S, "the cell does not end")


def test_a_node_with_other_code_stops_a_launch_and_is_named(cluster: Cluster, sweep: Watched) -> None:
    """The launch after a driver that was killed in mid-sweep."""
    with cluster.held():
        assert len(sweep.finished()) < CELLS
        # not the machine that has just come back: that may not be in the cluster yet
        machine = next(
            machine for machine in cluster.machines.values() if machine is not cluster.head and trains(machine)
        )
        cluster.on_head(f"kill -9 {sweep.driver}")
    file = machine.home / "jepa-sweeps" / "jepa_train" / "losses" / "rgg.py"
    before = file.read_text()
    file.write_text(before + "# changed\n")
    try:
        launch = cluster.submit(FILE)
        assert launch.wait(LAUNCH_S, check=False) != 0
    finally:
        file.write_text(before)
    assert re.search(
        rf"{machine.address}: {machine.name} runs other code: jepa_train/losses/rgg.py differs", launch.said
    )


def test_the_next_launch_goes_on_where_a_killed_driver_stopped(cluster: Cluster, sweep: Watched) -> None:
    before, step = sweep.finished(), sweep.steps()
    assert len(before) < CELLS
    cluster.submit(FILE, options="--tmux").wait(CLI_S)
    until(lambda: len(sweep.finished()) > len(before) or sweep.steps() > step, LAUNCH_S, "the sweep does not go on")
    assert before.items() <= sweep.finished().items()


def test_the_laptop_sees_how_the_sweep_stands_through_a_tunnel(cluster: Cluster) -> None:
    with cluster.held(), cluster.tunnel(5000) as address:
        said = cluster.laptop.run(f"cd ~/jepa-sweeps && MLFLOW_TRACKING_URI={address} python {FILE} --status")
    assert re.search(r"of 4 cells; run by root@head", said), said


def test_a_second_launch_is_told_who_runs_the_sweep(cluster: Cluster, sweep: Watched) -> None:
    with cluster.held():
        second = cluster.submit(FILE)
        assert second.wait(CLI_S, check=False) != 0
        assert re.search(rf"sweep cluster_story is being run by root@head \(process {sweep.driver}\)", second.said)
        assert "code 2" in cluster.on_head("python cluster_story.py 2>&1; echo code $?")


def test_a_stranger_on_the_network_gets_nothing(cluster: Cluster) -> None:
    """While a trial runs: whatever listens beyond loopback is knocked at, with HTTP and with all of Ray's methods."""
    listening: dict[str, str] = {}
    with cluster.held():
        for machine in cluster.machines.values():
            listening |= reachable(machine)
    assert "ray::RayTrainWo" in listening.values()  # a rank's
    (cluster.stranger.home / KNOCK.name).write_text(KNOCK.read_text())
    said = cluster.stranger.run(f"~/jepa-venv/bin/python ~/{KNOCK.name} {' '.join(listening)}", timeout=KNOCK_S)
    found = {address: (listening[address], *answer) for address, answer in json.loads(said).items()}
    assert {address: told for address, told in found.items() if told[2]} == {}
    kinds = {kind for _, kind, _ in found.values()}
    assert kinds >= {"ssh", "http", "grpc"}, found
    # torch's own, by which the ranks of a trial find each other
    assert {name for name, kind, _ in found.values() if kind == "silent"} <= {"ray::RayTrainWo"}, found
    assert not {address.rpartition(":")[2] for address in found} & {"8265", "5000"}  # dashboard, MLflow


def test_rays_own_client_is_refused_without_the_token(cluster: Cluster) -> None:
    ray = "RAY_AUTH_MODE=disabled ~/jepa-venv/bin/ray"
    head = cluster.head.address
    asked = cluster.stranger.start(f"{ray} job list --address http://{head}:52365")
    assert asked.wait(CLI_S, check=False) != 0
    assert "AuthenticationError" in asked.said
    asked = cluster.stranger.start(f"{ray} status --address {head}:6379")
    assert asked.wait(CLI_S, check=False) != 0
    assert "Active" not in asked.said


def test_the_token_stands_in_no_log_no_store_and_no_command(cluster: Cluster) -> None:
    token = (cluster.laptop.home / TOKEN).read_text().strip()
    hosts = (cluster.laptop, *cluster.machines.values())
    told = [line for host in hosts for line in arguments(host) if token in line]
    assert told == []
    everything = [host.folder for host in hosts] + [cluster.network.shared]
    look = ["grep", "-rlF", token, *everything]
    found = subprocess.run(look, capture_output=True, text=True, check=False, timeout=CLI_S)
    assert sorted(found.stdout.split()) == sorted(str(host.home / TOKEN) for host in hosts)


def test_every_cell_is_finished_once(cluster: Cluster, sweep: Watched) -> None:
    before = sweep.finished()
    until(lambda: len(sweep.finished()) == CELLS, CELLS * TRAIN_S, "the sweep does not finish")
    assert before.items() <= sweep.finished().items()
    until(lambda: not sweep.is_run(), LAUNCH_S, "the launch does not end")
    again = cluster.submit(FILE)
    again.wait(CLI_S)
    assert "4 finished of 4 cells; 0 ended in this launch" in again.said


def test_a_label_with_blanks_survives_the_launcher(cluster: Cluster) -> None:
    asked = cluster.submit(FILE, '--explain "p=0.5 mu=-1"')
    asked.wait(CLI_S)
    assert "finished" in asked.said


def test_the_results_come_home_and_are_those_of_a_local_run(cluster: Cluster) -> None:
    """Cell for cell and epoch for epoch, to the last digit: wherever the cells ran and however often they were cut."""
    laptop = cluster.laptop
    laptop.run(f"cd ~/jepa-sweeps && python -m sweeps fetch {FILLED} cluster_story")
    local = "cd ~/jepa-sweeps && export JEPA_RESULTS=$HOME/local RAY_ADDRESS=local"
    laptop.run(
        f"{local} && python {FILE} && python -m analysis export cluster_story", timeout=LAUNCH_S + CELLS * TRAIN_S
    )
    fetched = laptop.home / "jepa-sweeps" / "results" / "exports" / "cluster_story"
    made = laptop.home / "local" / "exports" / "cluster_story"
    assert len(results_of(made)) == CELLS
    assert results_of(fetched) == results_of(made)
    assert curves_of(fetched) == curves_of(made)


def test_down_leaves_nothing_of_ray_behind(cluster: Cluster) -> None:
    cluster.laptop.run(f"cd ~/jepa-sweeps && ray exec {FILLED} 'bash ~/jepa-sweeps/cluster/stop.sh'")
    cluster.laptop.run(f"cd ~/jepa-sweeps && ray down --yes {FILLED}")
    left = lambda: [line for machine in cluster.machines.values() for line in of_ray(machine)]  # noqa: E731
    until(lambda: not left(), DOWN_S, "processes of Ray are left", lambda: "\n".join(left()))


def of_ray(host: Host) -> list[str]:
    """Its processes of Ray."""
    return [
        line
        for line in arguments(host)
        if re.search(r"raylet|gcs_server|ray::|/ray/(_private|autoscaler|dashboard|util)/", line)
    ]
