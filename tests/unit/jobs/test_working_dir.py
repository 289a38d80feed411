"""What a job gets a copy of."""

from pathlib import Path

import pytest

import raymeta
from raymeta.errors import ResourceError
from raymeta.jobs.working_dir import stage


def put(root: Path, name: str, size: int = 1) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    for name in ("shop.yaml", "code/mine.py"):
        put(folder, name)
    return folder


def copied(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "raymeta" not in path.relative_to(folder).parts
    }


def test_code_and_settings_are_sent_and_data_is_not(root: Path, tmp_path: Path) -> None:
    for name in (
        ".git/config",
        ".venv/bin/python",
        ".env",
        "runs/model/artifact.json",
        "code/__pycache__/mine.pyc",
        "events.parquet",
        "model.safetensors",
        "events.sqlite",
    ):
        put(root, name)
    staged = stage(root, tmp_path / "into")
    assert copied(tmp_path / "into") == {"shop.yaml", "code/mine.py"}
    assert (staged.num_files, staged.num_bytes) == (2, 2)


def test_the_code_that_submits_is_the_code_that_runs(root: Path, tmp_path: Path) -> None:
    stage(root, tmp_path / "into")
    sent = (tmp_path / "into" / "raymeta" / "jobs" / "working_dir.py").read_bytes()
    assert sent == (Path(raymeta.__file__).parent / "jobs" / "working_dir.py").read_bytes()


def test_a_link_out_of_the_folder_is_not_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    (root / "gone.txt").symlink_to(tmp_path / "nowhere")
    stage(root, tmp_path / "into")
    assert copied(tmp_path / "into") == {"shop.yaml", "code/mine.py"}


def test_too_much_is_refused_by_size_and_name(root: Path, tmp_path: Path) -> None:
    put(root, "huge.csv", 3 << 20)
    with pytest.raises(ResourceError, match=r"holds 3\.0 MB in 3 files.*huge\.csv \(3\.0 MB\)"):
        stage(root, tmp_path / "into", limit_bytes=1 << 20)
    assert not (tmp_path / "into").exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="does not exist"):
        stage(tmp_path / "absent", tmp_path / "into")
