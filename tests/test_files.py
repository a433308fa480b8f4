import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from echo_torch.files import whole_file, write_text


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")
    with whole_file(path) as file:
        file.write(b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["result.json"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")

    def write_half():
        with whole_file(path) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["result.json"]


def test_the_content_is_on_disk_before_the_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, call=call: (calls.append(name), call(*args)))
    write_text(tmp_path / "file", "x")
    assert calls == ["fsync", "replace", "fsync"]  # of the file, and of the directory


def test_others_may_read_it_as_any_file(tmp_path):
    write_text(tmp_path / "ours", "x")
    (tmp_path / "theirs").write_text("x")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "theirs")}
    assert len(modes) == 1


def test_threads_that_write_leave_the_umask_alone(tmp_path):
    before = os.umask(0o027)
    try:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda number: write_text(tmp_path / str(number), "x"), range(200)))
        found = os.umask(0o027)
    finally:
        os.umask(before)
    assert found == 0o027
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}
