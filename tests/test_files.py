import os
import stat

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


def test_the_umask_is_obeyed_and_never_set(tmp_path, monkeypatch):
    """To set it, even for an instant, changes what other threads make meanwhile."""
    set_umask, before = os.umask, os.umask(0o027)
    try:
        monkeypatch.delattr(os, "umask")
        write_text(tmp_path / "file", "x")
    finally:
        set_umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
