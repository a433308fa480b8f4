import hashlib

import numpy as np
import pytest
import torch

from echo_torch import RunDirectory, configure
from echo_torch.errors import UserError
from echo_torch.lab.run_directory import weights_sha256
from echo_torch.lab.yaml_files import read_yaml, to_yaml


def test_the_first_free_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = []
    for _ in range(3):
        run = RunDirectory.new(None, "lag-seed1")
        run.create()
        names.append(str(run.path))
    assert names == ["runs/lag-seed1", "runs/lag-seed1-2", "runs/lag-seed1-3"]


def test_choosing_a_name_makes_nothing(tmp_path):
    RunDirectory.new(tmp_path / "a" / "b", "x")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_directory_is_taken_a_full_one_not(tmp_path):
    assert RunDirectory.new(tmp_path, "x").path == tmp_path
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"`run` must be new or empty.*Got"):
        RunDirectory.new(tmp_path, "x")
    with pytest.raises(UserError, match="which is a file"):
        RunDirectory.new(tmp_path / "file", "x")
    with pytest.raises(UserError, match="is a file"):
        RunDirectory.new(tmp_path / "file" / "below", "x")
    with pytest.raises(UserError, match="`run` cannot be used"):
        RunDirectory.new("\0", "x").create()
    with pytest.raises(UserError, match="`run` cannot be used"):
        RunDirectory.new(tmp_path / ("long" * 200), "x").create()


def test_configuration_in_a_file(tmp_path):
    configuration = configure("stateful", lag=6, clip_norm=0.5)
    run = RunDirectory(tmp_path)
    run.config.write_text(to_yaml(configuration))
    assert run.read_config() == configuration
    run.config.write_text("format: 1\nmode: lag\nlag: 9\n")
    with pytest.raises(UserError, match="not the configuration of a run: lag must be smaller"):
        run.read_config()
    with pytest.raises(UserError, match="`run` must be the directory of a finished run"):
        RunDirectory(tmp_path / "none").read_config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"lag: 'x", "not valid YAML at line"),
        (b"lag: [1", "must give each name one value. Got a list for 'lag'"),
        (b"- 1\n- 2", "must hold names and values.*Got list"),
        (b"", "Got nothing"),
        (b"1: 2", "must hold names and values"),
        (b"\xff\xfe\x00", "not valid YAML"),
        (b"a: !!python/object/apply:os.system [echo]", "not valid YAML"),
        (b"[" * 5000, "must hold names and values.*Got list"),
    ],
)
def test_bad_yaml(tmp_path, text, message):
    path = tmp_path / "file.yaml"
    path.write_bytes(text)
    with pytest.raises(UserError, match=message):
        read_yaml(path)


def test_weights_fingerprint_follows_its_definition():
    weights = {"b": torch.arange(6.0).view(2, 3).T, "a": torch.ones(1, dtype=torch.float64)}
    digest = hashlib.sha256()
    digest.update(b"a\0float64\0[1]\0" + np.ones(1, "<f8").tobytes())
    digest.update(b"b\0float32\0[3, 2]\0" + np.array([[0, 3], [1, 4], [2, 5]], "<f4").tobytes())
    assert weights_sha256(weights) == digest.hexdigest()
    weights["b"] = weights["b"] + 1e-6
    assert weights_sha256(weights) != digest.hexdigest()


def test_weights_of_types_that_numpy_has_not_or_has_in_two_parts():
    """Of bfloat16 the bits count, of a complex number its real part and then its imaginary one."""
    half = torch.tensor([1.0, -2.5, 3e30], dtype=torch.bfloat16)
    turned = torch.tensor([[1 + 2j], [4 - 3j]]).conj()
    digest = hashlib.sha256(b"half\0bfloat16\0[3]\0" + (half.float().numpy().view("<u4") >> 16).astype("<u2").tobytes())
    digest.update(b"turned\0complex64\0[2, 1]\0" + np.array([1, -2, 4, 3], "<f4").tobytes())
    assert weights_sha256({"turned": turned, "half": half}) == digest.hexdigest()
    for dtype in (torch.float16, torch.float8_e4m3fn, torch.bool, torch.int64):
        one = torch.tensor(1.0).to(dtype)
        assert (
            weights_sha256({"a": one}) == weights_sha256({"a": one.clone()}) != weights_sha256({"a": one.float() + 1})
        )


def test_a_directory_may_be_a_string(tmp_path):
    assert RunDirectory(str(tmp_path)).metrics == RunDirectory(tmp_path).metrics
