"""Hosts made of Linux namespaces: each has a network, processes, mounts and a name of its own, on one switch.

A host is a process tree below its own init: killing the init is a power cut. /root, /tmp, /mnt, /run and /dev/shm are
its own; /mnt/shared is the same folder on all of them, like NFS. Needs root.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

_INIT = Path(__file__).with_name("init.sh")
_TIED = ("setpriv", "--pdeathsig", "KILL")  # children end with this process, however it ends
_NEW = ("unshare", "--net", "--pid", "--mount", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc")
_ENVIRONMENT = {"HOME": "/root", "USER": "root", "LOGNAME": "root", "TERM": "xterm", "LANG": "C.UTF-8"}
_SUBNET = "10.77.0"
_TOOL_S = 60.0
RUN_S = 600.0


class HostError(RuntimeError):
    """A command failed on a host; the message has its output."""


@dataclass(frozen=True)
class Running:
    """A command on a host; stdout and stderr go to one log."""

    command: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, timeout: float, *, check: bool = True) -> int:
        """Its exit code.

        Raises:
            HostError: the code is not 0 and check is on, or the command does not end in time.
        """
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise HostError(f"{self.command}\nstill runs after {timeout:.0f} s\n{self.output}") from None
        if check and code:
            raise HostError(f"{self.command}\nexit code {code}\n{self.output}")
        return code

    def stop(self) -> None:
        if self.process.poll() is None:
            os.kill(_child_of(self.process.pid), signal.SIGTERM)
            self.process.wait(_TOOL_S)


@dataclass
class Host:
    """A machine that runs."""

    name: str
    address: str
    folder: Path  # its files: root, tmp, and the output of its commands
    init: int  # id of its first process, seen from outside
    commands: list[Running] = field(default_factory=list)

    @property
    def home(self) -> Path:
        """Its /root, seen from outside."""
        return self.folder / "root"

    def run(self, command: str, *, timeout: float = RUN_S) -> str:
        """Output of a command line, run in a login shell to its end. Raises HostError if it fails."""
        running = self.start(command, timeout=timeout)
        running.wait(timeout + _TOOL_S)
        return running.output

    def start(self, command: str, *, timeout: float = 1800.0) -> Running:
        """Start a command without waiting; it is killed after the time-out."""
        log = self.folder / "output" / f"{len(self.commands):03d}-{self.init}.log"
        inside = [*_TIED, *_inside(self.init), "timeout", "-k", "5", str(timeout), "bash", "--login", "-c", command]
        with log.open("wb") as stream:
            process = subprocess.Popen(
                inside,
                env=_ENVIRONMENT | {"PATH": os.environ["PATH"]},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        self.commands.append(Running(f"{self.name}$ {command}", process, log))
        return self.commands[-1]

    def kill(self) -> None:
        """Cut the power: every process ends at once."""
        os.kill(self.init, signal.SIGKILL)
        until = time.monotonic() + _TOOL_S
        while Path(f"/proc/{self.init}").exists():
            assert time.monotonic() < until, f"{self.name} does not die"
            time.sleep(0.05)


class Hosts:
    """A network of hosts; leaving the block ends all that runs on them.

    Args:
        folder: of their files, one folder for each, and `shared`, which they see as /mnt/shared.
        visible: folders that the hosts need at the same path, such as this Python's.
    """

    def __init__(self, folder: Path, *, visible: Iterable[Path]) -> None:
        self.shared = folder / "shared"
        self._folder = folder
        # as the links and as the folders that they lead to
        self._visible = list(dict.fromkeys(str(seen) for path in visible for seen in (path, path.resolve())))
        self._inits: list[subprocess.Popen[str]] = []
        self._hosts: list[Host] = []

    def __enter__(self) -> Self:
        self.shared.mkdir(parents=True)
        self._switch = subprocess.Popen(
            [*_TIED, "unshare", "--net", "sh", "-c", "echo ready; exec sleep infinity"], stdout=subprocess.PIPE
        )
        assert self._switch.stdout is not None
        self._switch.stdout.readline()
        self._on_switch("ip link add br0 type bridge")
        self._on_switch(f"ip addr add {_SUBNET}.1/24 dev br0")
        self._on_switch("ip link set br0 up")
        return self

    def __exit__(self, *_: object) -> None:
        commands = [command.process for host in self._hosts for command in host.commands]
        for process in [*self._inits, self._switch, *commands]:
            process.kill()
            process.wait()

    def boot(self, name: str, number: int) -> Host:
        """A host at address .number, or the same one again with its files after it was killed."""
        folder, address = self._folder / name, f"{_SUBNET}.{number}"
        if not folder.exists():
            self._lay_out(folder, name)
        with (folder / "init.log").open("ab") as log:
            process = subprocess.Popen(
                [*_TIED, *_NEW, "bash", str(_INIT), name, str(folder), str(self.shared), *self._visible],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._inits.append(process)
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise HostError(f"{name} did not start\n{(folder / 'init.log').read_text()}")
        host = Host(name, address, folder, _child_of(process.pid))
        self._hosts.append(host)
        self._connect(host, port=f"port{number}-{len(self._hosts)}")
        return host

    def _lay_out(self, folder: Path, name: str) -> None:
        for part in ("root", "tmp", "mnt", "run", "output", "profile.d", "ssh"):
            (folder / part).mkdir(parents=True)
        # like Debian: a host's own name leads to its loopback
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {name}\n")
        # root may log in with a key only if its password is not locked
        (folder / "shadow").write_text(re.sub(r"^root:[^:]*", "root:*", Path("/etc/shadow").read_text(), flags=re.M))
        (folder / "shadow").chmod(0o600)

    def _connect(self, host: Host, *, port: str) -> None:
        """Connect the host to the switch, and add docker0, a network that leads to no other host."""
        self._on_switch(f"ip link add {port} type veth peer name lan0 netns {host.init}")
        self._on_switch(f"ip link set {port} master br0 up")
        for command in (
            f"ip addr add {host.address}/24 dev lan0",
            "ip link set lan0 up",
            f"ip route add default via {_SUBNET}.1",
            "ip link add docker0 type bridge",
            "ip link add inner type veth peer name outer",
            "ip link set outer master docker0 up",
            "ip link set inner up",
            "ip addr add 172.17.0.1/16 dev docker0",
            "ip link set docker0 up",
        ):
            subprocess.run([*_inside(host.init), *command.split()], check=True, timeout=_TOOL_S)

    def _on_switch(self, command: str) -> None:
        enter = ("nsenter", "--target", str(self._switch.pid), "--net")
        subprocess.run([*enter, *command.split()], check=True, timeout=_TOOL_S)


def missing() -> str:
    """Why hosts cannot be made here, "" where they can."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare", "nsenter", "setpriv", "sshd"))):
        return "hosts are made of Linux namespaces by root, with the packages of tests/cluster/needs.sh"
    probe = "ip link add br0 type bridge && ip link add one type veth peer name two && mount -t tmpfs tmpfs /mnt"
    tried = subprocess.run([*_NEW, "sh", "-c", probe], capture_output=True, text=True, check=False, timeout=_TOOL_S)
    return f"namespaces are not allowed here: {tried.stderr.strip()}" if tried.returncode else ""


def _inside(init: int) -> tuple[str, ...]:
    return ("nsenter", "--target", str(init), "--all", "--wd=/")


def _child_of(process: int) -> int:
    return int(Path(f"/proc/{process}/task/{process}/children").read_text().split()[0])
