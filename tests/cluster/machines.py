"""What a host is before anybody makes a cluster of it: Python with the packages, sshd, a user's key and project."""

import shutil
import subprocess
import sys
import sysconfig
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
    _copy_project(host.home / "jepa-sweeps")
    host.run("cd ~/jepa-sweeps && pip install --quiet --no-deps --no-build-isolation --editable .")
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
        if first.startswith(b"#!" + sys.prefix.encode()):
            (folder / script.name).write_bytes(f"#!{seen_as}/bin/python\n".encode() + rest)
            (folder / script.name).chmod(0o755)


def _copy_project(target: Path) -> None:
    """As it lies here, with what is not committed yet, and the user's own sweeps."""
    git = ("git", "-C", str(PROJECT))
    subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{PROJECT}", str(target)], check=True)
    listed = subprocess.run(
        [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], check=True, capture_output=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (PROJECT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, target / name)
    shutil.copytree(SWEEPS, target / "sweeps", dirs_exist_ok=True)
