"""Three machines and a user's laptop, and on the machines the cluster that cluster/local.yaml makes of them."""

from collections.abc import Iterator
from contextlib import suppress

import pytest
from hosts import HostError, Hosts, missing
from machines import PYTHON, furnish, make_user, serve_ssh
from using import FILLED, MACHINES, Cluster, fill_in, ray_logs

UP_S = 900.0


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster after `ray up`, with all machines in it."""
    if why := missing():
        pytest.skip(why)
    with Hosts(tmp_path_factory.mktemp("hosts"), visible=PYTHON) as network:
        laptop = network.boot("laptop", 2)
        machines = {number: network.boot(name, number) for number, name in enumerate(MACHINES, start=10)}
        for host in (laptop, *machines.values()):
            furnish(host)
        key = make_user(laptop)
        for machine in machines.values():
            serve_ssh(machine, key)
        fill_in(laptop, *machines.values())
        laptop.run(f"cd ~/jepa-sweeps && ray up --yes {FILLED}", timeout=UP_S)
        yield Cluster(network, laptop, machines, key)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add the logs of the machines and the output of the drivers to a failure."""
    report = yield
    cluster = getattr(item, "funcargs", {}).get("cluster")
    if report.failed and isinstance(cluster, Cluster):
        for machine in cluster.machines.values():
            for log in [log for name in ("monitor.log", "*.err", "job-driver-*") for log in ray_logs(machine, name)]:
                report.sections.append((f"{machine.name}: {log.name}", log.read_text(errors="replace")[-1000:]))
        with suppress(HostError):  # it may be what failed
            output = cluster.head.run("tmux capture-pane -p || true", timeout=60.0)
            report.sections.append(("the head's tmux", output[-3000:]))
    return report
