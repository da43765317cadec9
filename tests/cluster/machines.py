"""What a host is before anybody makes a cluster of it: Python with the packages, sshd, a user's key and project."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from hosts import Host

PROJECT = Path(__file__).parents[2]
PYTHON = (Path(sys.base_prefix), Path(sys.prefix))  # folders that a host needs to see
SWEEPS = Path(__file__).with_name("sweeps")  # that a user writes
TOKEN = ".ray/auth_token"  # Ray's, below a home
_SSHD = """
PermitRootLogin prohibit-password
UsePAM no
HostKey /etc/ssh/ssh_host_ed25519_key
"""


def furnish(host: Host) -> None:
    """A home as Debian makes one, with the venv that the cluster files would make."""
    for name in (".profile", ".bashrc"):
        shutil.copy(Path("/etc/skel") / name, host.home)
    _make_venv(host.home / "jepa-venv", seen_as=Path("/root/jepa-venv"))


def serve_ssh(host: Host, key: str) -> None:
    """sshd, which lets in whoever has the key (its public half)."""
    ssh = host.home / ".ssh"
    if not ssh.exists():
        ssh.mkdir(mode=0o700)
        (ssh / "authorized_keys").write_text(key)
        (host.folder / "ssh" / "sshd_config").write_text(_SSHD)
        host.run("ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key")
    host.run("/usr/sbin/sshd")


def make_user(host: Host) -> str:
    """A user's laptop: a key pair, Ray's token, this project; returns the key's public half."""
    (host.folder / "profile.d" / "venv.sh").write_text('PATH="$HOME/jepa-venv/bin:$PATH"\n')
    host.run("mkdir -m 700 ~/.ssh && ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519")
    host.run("ray get-auth-token --generate > /dev/null")
    copy_project(PROJECT, host.home / "jepa-sweeps")
    shutil.copytree(SWEEPS, host.home / "jepa-sweeps" / "sweeps", dirs_exist_ok=True)
    install = "pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable ."
    host.run(f"cd ~/jepa-sweeps && {install}")
    return (host.home / ".ssh" / "id_ed25519.pub").read_text()


def _make_venv(venv: Path, *, seen_as: Path) -> None:
    """A venv that borrows the packages of this one, but for what is installed as editable: nothing is downloaded."""
    site = venv / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"
    site.mkdir(parents=True)
    (site / "borrowed.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    shutil.copy(PROJECT / "requirements.lock", venv)  # by which cluster/install.sh knows what is installed
    (venv / "pyvenv.cfg").write_text(f"home = {sys.base_prefix}/bin\ninclude-system-site-packages = false\n")
    folder = venv / "bin"
    folder.mkdir()
    for name in ("python", "python3"):
        (folder / name).symlink_to(Path(sys.base_prefix) / "bin" / f"python{sysconfig.get_python_version()}")
    for script in filter(Path.is_file, Path(sysconfig.get_path("scripts")).iterdir()):
        first, _, rest = script.read_bytes().partition(b"\n")
        if re.match(rb"#!\S+/bin/python", first):  # this venv's, by whatever name it was called when it was made
            (folder / script.name).write_bytes(f"#!{seen_as}/bin/python\n".encode() + rest)
            (folder / script.name).chmod(0o755)


def copy_project(project: Path, target: Path) -> None:
    """A clone of a project as it lies there, with what is not committed yet, whomever it belongs to."""
    _git("clone", "--quiet", "--depth=1", f"file://{project}", str(target))
    listed = _git("-C", str(project), "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (project / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(project / name, target / name)


def _git(*words: str) -> str:
    """What git says. A clone's other side, a process of its own, hears of safe folders from a file alone."""
    with tempfile.NamedTemporaryFile("w", suffix=".gitconfig") as file:
        file.write("[safe]\n\tdirectory = *\n")
        file.flush()
        environment = os.environ | {"GIT_CONFIG_GLOBAL": file.name}
        done = subprocess.run(
            ["git", *words], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
    assert done.returncode == 0, done.stderr
    return done.stdout
