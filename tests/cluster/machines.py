"""Set-up of a host before it joins a cluster: Python with the packages, sshd, a user's key and project."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from hosts import Host

PROJECT = Path(__file__).parents[2]
PYTHON = (Path(sys.base_prefix), Path(sys.prefix))  # folders that a host needs to see
SWEEPS = Path(__file__).with_name("sweeps")  # that the user writes
TOKEN = ".ray/auth_token"  # Ray's, below a home
_SSHD = """
PermitRootLogin prohibit-password
UsePAM no
HostKey /etc/ssh/ssh_host_ed25519_key
"""


def furnish(host: Host) -> None:
    """A home like Debian's, with the venv that the cluster files would make.

    It borrows the packages of this Python, except those installed as editable: nothing is downloaded.
    """
    for name in (".profile", ".bashrc"):
        shutil.copy(Path("/etc/skel") / name, host.home)
    python, venv = f"python{sysconfig.get_python_version()}", host.home / "jepa-venv"
    site = venv / "lib" / python / "site-packages"
    site.mkdir(parents=True)
    (site / "borrowed.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    shutil.copy(PROJECT / "requirements.lock", venv)  # by which cluster/install.sh knows what is installed
    (venv / "pyvenv.cfg").write_text(f"home = {sys.base_prefix}/bin\ninclude-system-site-packages = false\n")
    (venv / "bin").mkdir()
    for name in ("python", "python3"):
        (venv / "bin" / name).symlink_to(Path(sys.base_prefix) / "bin" / python)
    for script in filter(Path.is_file, Path(sysconfig.get_path("scripts")).iterdir()):
        first, _, rest = script.read_bytes().partition(b"\n")
        if re.match(rb"#!\S+/bin/python", first):
            (venv / "bin" / script.name).write_bytes(b"#!/root/jepa-venv/bin/python\n" + rest)
            (venv / "bin" / script.name).chmod(0o755)


def serve_ssh(host: Host, key: str) -> None:
    """Start sshd, which lets in the owner of the key (its public half)."""
    ssh = host.home / ".ssh"
    if not ssh.exists():
        ssh.mkdir(mode=0o700)
        (ssh / "authorized_keys").write_text(key)
        (host.folder / "ssh" / "sshd_config").write_text(_SSHD)
        host.run("ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key")
    host.run("/usr/sbin/sshd")


def make_user(host: Host) -> str:
    """A user's laptop: a key pair, Ray's token, a clone with what is not committed. Returns the key's public half."""
    (host.folder / "profile.d" / "venv.sh").write_text('PATH="$HOME/jepa-venv/bin:$PATH"\n')
    host.run("mkdir -m 700 ~/.ssh && ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519")
    host.run("ray get-auth-token --generate > /dev/null")
    target = host.home / "jepa-sweeps"
    safe = os.environ | {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    clone = ["git", "clone", "--quiet", "--no-hardlinks", str(PROJECT), str(target)]
    subprocess.run(clone, env=safe, check=True, timeout=120)
    listing = ["git", "-C", str(PROJECT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listing, env=safe, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (PROJECT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / name, target / name)
    shutil.copytree(SWEEPS, target / "sweeps", dirs_exist_ok=True)
    install = "pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable ."
    host.run(f"cd ~/jepa-sweeps && {install}")
    return (host.home / ".ssh" / "id_ed25519.pub").read_text()
