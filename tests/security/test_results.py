"""What lies in the folder of results is read only if a stage has written it: nothing in there can make code run."""

import base64
import json
import pickle
from pathlib import Path

import pytest
from prefect.results import ResultRecord
from prefect.serializers import JSONSerializer

from tasks.evaluate.task import evaluate
from tasks.prune.task import pack, prune
from tasks.result_file import drop_foreign_result
from tasks.stage import AS_JSON

WRITTEN = AS_JSON.model_dump()


def result(payload: object, **serializer: object) -> bytes:
    metadata = {"storage_key": "k", "expiration": None, "serializer": WRITTEN | serializer}
    metadata |= {"prefect_version": "3.8.8", "storage_block_id": None}
    text = payload if isinstance(payload, str) else json.dumps(payload)
    return json.dumps({"metadata": metadata, "result": text}).encode()


def remains(path: Path, written: bytes) -> bool:
    path.write_bytes(written)
    drop_foreign_result(path, WRITTEN)
    return path.exists()


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_prefect_itself_would_run_a_pickle_and_call_a_function(tmp_path):
    """What the guard is for; should Prefect ever stop this, the guard can go."""
    blob = base64.encodebytes(pickle.dumps(Touch(tmp_path / "ran"))).decode()
    metadata = {"storage_key": "k", "expiration": None, "serializer": {"type": "pickle"}, "prefect_version": "3.8.8"}
    written = json.dumps({"metadata": metadata, "result": blob}).encode()
    ResultRecord.deserialize(written, backup_serializer=JSONSerializer())
    assert (tmp_path / "ran").exists()
    (tmp_path / "folder").mkdir()
    call = result({"__class__": "shutil.rmtree", "data": {"path": str(tmp_path / "folder")}})
    ResultRecord.deserialize(call, backup_serializer=JSONSerializer())
    assert not (tmp_path / "folder").exists()


def test_a_pickled_result_is_removed_unread(tmp_path):
    blob = base64.encodebytes(pickle.dumps(Touch(tmp_path / "ran"))).decode()
    assert not remains(tmp_path / "r", result(blob, type="pickle"))
    assert not remains(tmp_path / "r", result(blob, type="compressed/pickle"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "payload",
    [
        {"__class__": "shutil.rmtree", "data": {"path": "/nowhere"}},
        {"__class__": "os.system", "data": "true"},
        {"__class__": "tasks.record.home.write_file", "data": {"path": "/nowhere", "data": ""}},  # no dataclass
        {"__class__": "tasks.handles.dataclass", "data": {}},
        {"__class__": "tasks.no_such.Checkpoint", "data": {}},
        {"__class__": 7, "data": {}},
        {"__exc_type__": "builtins.SystemExit", "message": ""},
        [{"deep": [{"__class__": "shutil.rmtree", "data": {"path": "/nowhere"}}]}],
        {"__class__": "tasks.handles.Checkpoint", "data": {"hash": {"__class__": "os.system", "data": "true"}}},
    ],
)
def test_a_result_makes_nothing_but_dataclasses_of_ours(tmp_path, payload):
    assert not remains(tmp_path / "r", result(payload))


def test_other_ways_to_read_json_are_foreign_too(tmp_path):
    assert remains(tmp_path / "r", result({"a": 1}))
    assert not remains(tmp_path / "r", result({"a": 1}, object_decoder="os.system"))
    assert not remains(tmp_path / "r", result({"a": 1}, jsonlib="pickle"))
    assert not remains(tmp_path / "r", b"[" * 200_000)
    assert not remains(tmp_path / "r", b"null")
    assert not remains(tmp_path / "r", result({"a": 1})[:-1])


def test_stages_write_what_the_guard_lets_pass(tmp_path):
    checkpoint = {"hash": "a" * 64, "folder": "store/checkpoints/a", "kind": "transformers", "dense": None}
    assert remains(tmp_path / "r", result({"__class__": "tasks.handles.Checkpoint", "data": checkpoint}))
    for stage in (prune, pack, evaluate):
        assert stage.result_serializer == AS_JSON
