"""What hosts see of the machine that they are made of, and what they leave on it."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import HostError, Hosts
from machines import copy_project

pytestmark = pytest.mark.usefixtures("network")  # where hosts cannot be made, it says why


@pytest.fixture
def kept() -> Iterator[list[Path]]:
    """A folder with a file in each place of which a host has its own, and a link to one of them."""
    folders = [Path(tempfile.mkdtemp(dir=place)) for place in ("/root", "/mnt", "/run", "/tmp", "/var/tmp")]
    for folder in folders:
        (folder / "file").write_text(str(folder))
    folders.append(folders[-1] / "link")
    folders[-1].symlink_to(folders[1])
    yield folders
    for folder in folders[:-1]:
        shutil.rmtree(folder)


@pytest.mark.parametrize("place", ["/tmp", "/mnt", "/run", "/root", "/var/tmp"])
def test_a_host_sees_a_python_wherever_it_lies_and_wherever_its_own_files_lie(kept: list[Path], place: str) -> None:
    with tempfile.TemporaryDirectory(dir=place) as folder, Hosts(Path(folder) / "hosts", visible=kept) as network:
        host = network.boot("one", 10)
        assert host.run(f"cat {' '.join(f'{path}/file' for path in kept)}") == "".join(
            (path / "file").read_text() for path in kept
        )
        assert set(host.run("ls -A /mnt").split()) == {kept[1].name, "shared"}
        assert host.run("ls -A /root").split() == [kept[0].name]
        host.run("touch ~/mine /mnt/shared/ours")
        host.kill()
        assert not host.lives
        assert network.boot("one", 10).run("ls ~/mine") == "/root/mine\n"
        assert (network.shared / "ours").is_file()


def test_a_folder_that_a_host_cannot_see_is_named(tmp_path: Path) -> None:
    with (
        Hosts(tmp_path / "hosts", visible=[Path("/dev/shm/nowhere")]) as network,
        pytest.raises(HostError, match="/dev/shm/nowhere"),
    ):
        network.boot("one", 10)


def test_a_project_of_another_user_is_copied_with_what_is_not_committed(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "committed").write_text("before")
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (["init", "--quiet"], ["add", "."], [*who, "commit", "--quiet", "-m", "one"]):
        subprocess.run(["git", *words], cwd=project, check=True, timeout=60)
    (project / "committed").write_text("after")
    (project / "new").write_text("new")
    subprocess.run(["chown", "-R", "nobody", project], check=True, timeout=60)
    copy_project(project, tmp_path / "copy")
    assert {path.name: path.read_text() for path in (tmp_path / "copy").iterdir() if path.is_file()} == {
        "committed": "after",
        "new": "new",
    }
