"""Locks of directories, where the file system has none."""

import errno

import pytest

from echo_torch.lab import locks


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_no_other_process(tmp_path, monkeypatch, number):
    def flock(handle, kind):
        raise OSError(number, "it has none")

    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with locks.locked(tmp_path) as is_locked:
        assert is_locked
    assert not locks.is_locked(tmp_path)
