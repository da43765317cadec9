"""A sweep on a cluster, from `ray up` to `ray down`: its machines and its drivers are killed, and nothing is lost.

The tests are one story, in this order: each goes on where the one before has left the cluster. Needs root.
Run: tests/cluster/needs.sh && python -m pytest tests/cluster/test_story.py
"""

import re
import subprocess
from pathlib import Path

import pandas as pd
from hosts import Host
from machines import TOKEN
from stores import until
from using import FILLED, Cluster, ray_logs

FILE = "sweeps/cluster_story.py"
CELLS = 3
# Bounds, not expectations: a machine may be a tenth as fast as the one that these tests were written on.
CLI_S = 600.0  # for a command that trains nothing
LAUNCH_S = 900.0  # from a command until its sweep trains; a launch may wait 300 s for the cluster's machines
TRAIN_S = 600.0  # for a cell to go on, or to end
LOST_S = 900.0  # for Ray to miss a machine, and for its trial to go on elsewhere
DOWN_S = 300.0  # for processes to end
LOST = re.compile(r"worker lost \((.*)\); goes on after epoch (\d+)")


def test_a_job_whose_machine_dies_in_mid_trial_goes_on_without_it(cluster: Cluster) -> None:
    with cluster.tunnel(8265) as address:
        job = f"export RAY_AUTH_MODE=token RAY_API_SERVER_ADDRESS={address} && ray job"
        options = f"--no-wait --submission-id story --working-dir . -- python {FILE}"
        cluster.laptop.run(f"cd ~/jepa-sweeps && {job} submit {options}")
    (log,) = ray_logs(cluster.head, "job-driver-story.log")
    until(cluster.steps, LAUNCH_S, "no cell has been begun", log.read_text)
    with cluster.paused():
        assert len(cluster.training()) == 2  # a trial spans two hosts
        assert cluster.steps(), "no cell is in mid-trial"
        lost = next(machine for machine in cluster.training() if machine is not cluster.head)
        lost.kill()
    until(lambda: LOST.search(log.read_text()), LOST_S, f"the cell stays lost with {lost.name}", log.read_text)
    assert int(LOST.search(log.read_text())[2]) > 0
    cluster.boot_again(lost)
    until(cluster.finished, TRAIN_S, "the cell does not end")


def test_the_next_launch_goes_on_where_a_killed_driver_stopped_with_the_heads_code(cluster: Cluster) -> None:
    """Ray ships the driver's code: a worker's own copy, broken here, is not used."""
    with cluster.paused():
        assert len(cluster.finished()) < CELLS
        cluster.head.run(f"kill -9 {cluster.driver()}")
        before, step = cluster.finished(), cluster.steps()
    for machine in [*cluster.machines.values()][1:]:
        (machine.home / "jepa-sweeps" / "jepa_train" / "losses" / "rgg.py").write_text("raise SystemExit('old code')")
    cluster.submit(FILE, options="--tmux").wait(CLI_S)
    goes_on = lambda: len(cluster.finished()) > len(before) or cluster.steps() > step  # noqa: E731
    until(goes_on, LAUNCH_S, "the sweep does not go on")
    assert before.items() <= cluster.finished().items()


def test_a_second_launch_is_refused_and_the_status_is_seen_through_a_tunnel(cluster: Cluster) -> None:
    with cluster.paused():
        second = cluster.submit(FILE)
        with cluster.tunnel(5000) as address:
            status = cluster.laptop.run(f"cd ~/jepa-sweeps && MLFLOW_TRACKING_URI={address} python {FILE} --status")
        assert f"of {CELLS} cells; run by root@head" in status
        assert second.wait(CLI_S, check=False) != 0
        assert f"sweep cluster_story is being run by root@head (process {cluster.driver()})" in second.output


def test_ray_asks_for_the_token_and_other_servers_listen_on_loopback(cluster: Cluster) -> None:
    with cluster.paused():
        sockets = {socket for machine in cluster.machines.values() for socket in reachable(machine)}
    assert "6379" in sockets
    assert not sockets & {"8265", "5000"}, "dashboard, MLflow"
    head = cluster.head.address
    for command in (f"job list --address http://{head}:52365", f"status --address {head}:6379"):
        stranger = cluster.laptop.start(f"RAY_AUTH_MODE=disabled ray {command}")
        assert stranger.wait(CLI_S, check=False) != 0
        assert "Active" not in stranger.output


def test_the_token_is_in_no_log_no_store_and_no_command(cluster: Cluster) -> None:
    token = (cluster.laptop.home / TOKEN).read_text().strip()
    hosts = (cluster.laptop, *cluster.machines.values())
    assert [line for host in hosts for line in processes(host) if token in line] == []
    search = ["grep", "-rlF", token, *(host.folder for host in hosts), cluster.network.shared]
    found = subprocess.run(search, capture_output=True, text=True, check=False, timeout=CLI_S)
    assert sorted(found.stdout.split()) == sorted(str(host.home / TOKEN) for host in hosts)


def test_every_cell_is_finished_once_with_the_results_of_a_local_run(cluster: Cluster) -> None:
    """Cell for cell and epoch for epoch, to the last digit: wherever the cells ran and however often they were cut."""
    before, laptop = cluster.finished(), cluster.laptop
    until(lambda: len(cluster.finished()) == CELLS, CELLS * TRAIN_S, "the sweep does not finish")
    assert before.items() <= cluster.finished().items()
    until(lambda: not cluster.driver(), LAUNCH_S, "the launch does not end")
    laptop.run(f"cd ~/jepa-sweeps && python -m sweeps fetch {FILLED} cluster_story")
    local = "cd ~/jepa-sweeps && export JEPA_RESULTS=$HOME/local RAY_ADDRESS=local"
    command = f"{local} && python {FILE} && python -m analysis export cluster_story"
    laptop.run(command, timeout=LAUNCH_S + CELLS * TRAIN_S)
    fetched, made = (laptop.home / folder / "exports/cluster_story" for folder in ("jepa-sweeps/results", "local"))
    assert len(results(made)) == CELLS
    pd.testing.assert_frame_equal(results(fetched), results(made), check_exact=True)
    pd.testing.assert_frame_equal(curves(fetched), curves(made), check_exact=True)


def test_down_leaves_nothing_of_ray_behind(cluster: Cluster) -> None:
    cluster.laptop.run(f"cd ~/jepa-sweeps && ray exec {FILLED} 'bash ~/jepa-sweeps/cluster/stop.sh'")
    cluster.laptop.run(f"cd ~/jepa-sweeps && ray down --yes {FILLED}")
    pattern = re.compile(r"raylet|gcs_server|ray::|/ray/(_private|autoscaler|dashboard|util)/")
    left = lambda: [line for host in cluster.machines.values() for line in processes(host) if pattern.search(line)]  # noqa: E731
    until(lambda: not left(), DOWN_S, "processes of Ray are left", lambda: "\n".join(left()))


def reachable(host: Host) -> list[str]:
    """Ports on which a host listens beyond loopback."""
    found = re.findall(r"^LISTEN\s+\d+\s+\d+\s+(\S+):(\d+)\s", host.run("ss -Htln"), flags=re.MULTILINE)
    return [port for address, port in found if not re.match(r"\[?(::ffff:)?127\.|\[::1\]", address)]


def processes(host: Host) -> list[str]:
    """The command line of every process."""
    return host.run("ps -ww -e -o args").splitlines()


def results(export: Path) -> pd.DataFrame:
    """Final status and metrics of every cell, without times and memory."""
    runs = pd.read_csv(export / "runs.csv", index_col="cell_key").sort_index()
    return runs.filter(regex=r"^(status|epoch|(train|val|test|target)/(?!images_per_s|peak_memory).*)$")


def curves(export: Path) -> pd.DataFrame:
    """Value of each metric by cell and epoch, without times and memory."""
    cells = pd.read_csv(export / "runs.csv").set_index("run_id")["cell_key"]
    history = pd.read_csv(export / "history.csv")
    history = history[history["metric"].str.match(r"(train|val|test|target)/(?!images_per_s|peak_memory)")]
    table = history.assign(cell=history["run_id"].map(cells))[["cell", "metric", "epoch", "value"]]
    return table.sort_values(["cell", "metric", "epoch"]).reset_index(drop=True)
