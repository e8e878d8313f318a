import errno
import json
import os
import pwd
import tempfile
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from optctl.training import checkpoint
from optctl.training.checkpoint import CheckpointError, load, save

STATE = {
    "agent": {
        "actor": torch.arange(6.0).view(2, 3),
        "updates": 3,
        "optimizer": {"count": torch.tensor(7)},
        "extra": {},
    },
    "flag": torch.tensor([True, False]),
    "name": "run",
    "rate": 0.1,
    "nothing": None,
}


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return type(a) is type(b) and a == b


@pytest.fixture
def path(tmp_path):
    return tmp_path / "agent.safetensors"


def test_state_and_metadata_come_back(path):
    save(path, STATE, {"problem": "pendulum-v1", "config": {"gamma": 0.99}})
    state, metadata = load(path)
    assert same(state, STATE)
    assert metadata == {"problem": "pendulum-v1", "config": {"gamma": 0.99}}
    assert os.listdir(path.parent) == [path.name]


def test_generators_views_and_shared_tensors_come_back(path):
    generator = torch.Generator().manual_seed(5)
    torch.randn(3, generator=generator)
    base = torch.arange(20.0).view(4, 5)
    save(path, {"generator": generator.get_state(), "slice": base[1:3].mT, "all": base, "again": base})
    state, _ = load(path)
    restored = torch.Generator()
    restored.set_state(state["generator"])
    assert torch.equal(torch.randn(4, generator=restored), torch.randn(4, generator=generator))
    assert torch.equal(state["slice"], base[1:3].mT) and torch.equal(state["again"], base)


def test_any_plain_safetensors_reader_reads_it(path):
    save(path, STATE)
    assert torch.equal(safetensors.torch.load_file(path)["agent/actor"], STATE["agent"]["actor"])


@pytest.mark.parametrize("where", ["header", "tensors", "end"])
def test_damage_is_found(path, where):
    save(path, STATE)
    data = bytearray(path.read_bytes())
    if where == "end":
        data = data[:-5]
    else:
        data[20 if where == "header" else -5] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        load(path)


def test_a_file_of_another_kind_is_refused(path):
    path.write_text("not a checkpoint at all")
    with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
        load(path)
    safetensors.torch.save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="is a safetensors file, but not a checkpoint of optctl"):
        load(path)


def test_another_version_is_refused(path, monkeypatch):
    monkeypatch.setattr(checkpoint, "VERSION", 2)
    save(path, STATE)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format version 2, but this version of optctl reads 1"):
        load(path)


def test_another_problem_is_refused(path):
    save(path, STATE, {"problem": "cartpole"})
    assert load(path, expect={"problem": "cartpole"})
    with pytest.raises(CheckpointError, match="was made with problem 'cartpole', but 'pendulum-v1' is expected"):
        load(path, expect={"problem": "pendulum-v1"})


def test_a_missing_file_and_a_folder_are_named(path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load(path)
    with pytest.raises(CheckpointError, match=str(path.parent)):
        load(path.parent)


def test_a_missing_folder_is_named(path):
    with pytest.raises(CheckpointError, match=r"folder .*nowhere does not exist"):
        save(path.parent / "nowhere" / "a.safetensors", STATE)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "is read-only"), (errno.EACCES, "is read-only")],
)
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_half_written(path, monkeypatch, code, sentence):
    save(path, STATE)

    def fail(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CheckpointError, match=sentence):
        save(path, {"rate": 0.2})
    monkeypatch.undo()
    assert same(load(path)[0], STATE)
    assert os.listdir(path.parent) == [path.name]


@pytest.fixture
def unprivileged():
    """Root may write into every folder: it is nobody for the time of a test."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(pwd.getpwnam("nobody").pw_uid)
    yield
    if root:
        os.seteuid(0)


def test_a_read_only_folder_is_named(unprivileged):
    with tempfile.TemporaryDirectory() as folder:  # the folders of pytest are closed to others
        os.chmod(folder, 0o555)
        with pytest.raises(CheckpointError, match="is read-only"):
            save(Path(folder) / "agent.safetensors", STATE)


@pytest.mark.parametrize(
    ("state", "sentence"),
    [({"a": [1]}, "'a' is a list"), ({"a": {"b/c": 1}}, "without '/', but has 'b/c'"), ({1: 2}, "string keys")],
)
def test_state_that_cannot_be_stored_is_refused(path, state, sentence):
    with pytest.raises(TypeError, match=sentence):
        save(path, state)
    assert not path.exists()


def write(path, pipe):
    for number in range(10**9):
        save(path, {"number": number, "block": torch.full((200_000,), float(number))})
        os.write(pipe, number.to_bytes(8, "big"))


def test_kill_9_leaves_a_whole_file(path, fork):
    for attempt in range(4):
        out, pipe = os.pipe()
        writer = fork(write, path, pipe)
        os.close(pipe)
        with os.fdopen(out, "rb") as numbers:
            numbers.read(3 * 8)
            time.sleep(0.003 * attempt)
            writer.kill()
            writer.join()
            written = 2 + len(numbers.read()) // 8
        state, _ = load(path)
        assert state["number"] in (written, written + 1)
        assert (state["block"] == state["number"]).all()


def test_the_header_is_json(path):
    save(path, STATE, {"problem": "a"})
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["__metadata__"]["format"] == "optctl-checkpoint"
