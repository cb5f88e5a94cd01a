"""The table is kept as it is measured: who was stopped goes on, and more prompts cost only themselves."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from tasks.handles import Checkpoint
from tasks.prune.structure.results import BuiltProfiles
from tasks.record import home, kept
from tasks.train_controller import task
from tasks.train_controller.act.actions import Action
from tasks.train_controller.measure.encoded import save_prompts
from tasks.train_controller.measure.episodes import EncodedPrompt
from tasks.train_controller.results import Prompts
from tasks.train_controller.rows import PromptRow
from tests.record.plausible_controllers import episode

MODEL = Checkpoint(hash="a" * 64, folder="store/checkpoints/a")
BUILT = BuiltProfiles(hash="b" * 64, folder="store/profiles/b", size_bytes=1, facts=())


@pytest.fixture(autouse=True)
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ESPALIER_ARTIFACTS", str(tmp_path))
    monkeypatch.setattr(task, "_opened", lambda *_: None)
    return tmp_path


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is measured, in place of measuring it; a prompt called "stop" is a kill."""
    done: list[str] = []

    def measure(profiles, prompts, actions, *, on_prompt, **_):
        for number, prompt in enumerate(prompts, start=1):
            if prompt.prompt == "stop":
                raise KeyboardInterrupt
            done.append(prompt.prompt)
            row = PromptRow(
                prompt=prompt.prompt,
                source=prompt.source,
                split=prompt.split,
                tokens=2,
                reference_tokens=2,
                features="{}",
                ppl=1.0,
            )
            yield row, [episode(row, str(action), 0.0) for action in actions]
            on_prompt(number, len(prompts))

    monkeypatch.setattr(task.episodes, "measure_episodes", measure)
    return done


def prompts(*names: str, split: str = "train") -> Prompts:
    ids = torch.ones(1, 2).long()
    with home.store("prompts") as draft:
        save_prompts(
            draft.path,
            [EncodedPrompt(prompt=each, source="docs", split=split, ids_1T=ids, reference_1R=ids) for each in names],
        )
    stored, facts = draft.stored, {"text_bytes": 1, "tokens": 2, "longest": 2, "dataset_hash": "d"}
    return Prompts(hash=stored.hash, folder=stored.folder, source="docs", prompts=len(names), **facts)


def measure(asked: Prompts, tokens: int = 4):
    how = {"tokens": tokens, "repetitions": 1, "device": "cpu", "machine": "{}"}
    return task.measure_episodes.fn(model=MODEL, built=BUILT, prompts=asked, actions=(Action(),), **how)


def test_who_is_stopped_goes_on_where_it_was(artifacts, measured):
    with pytest.raises(KeyboardInterrupt):
        measure(prompts("one", "two", "stop", "three"))
    assert measured == ["one", "two"]
    table = measure(prompts("one", "two", "three"))
    assert measured == ["one", "two", "three"]
    asked, rows = task.read_rows(table)
    assert [row.prompt for row in asked] == [row.prompt for row in rows] == ["one", "two", "three"]


def test_a_kill_costs_no_more_than_what_was_not_kept_yet(artifacts, measured, monkeypatch):
    monkeypatch.setattr(kept, "KEPT_EVERY", 0.0)
    monkeypatch.setattr(kept.Kept, "keep", spare(kept.Kept.keep))
    with pytest.raises(KeyboardInterrupt):
        measure(prompts("one", "stop"))
    [file] = (artifacts / "episodes").glob("*.json")
    assert json.loads(file.read_bytes())["values"].keys() == {"one"}


def spare(keep):
    """`keep` as a killed process has it: called for each value, and not once more in the end."""
    kept_so_far: list[int] = []

    def only_for_new(self):
        if len(self) not in kept_so_far:
            kept_so_far.append(len(self))
            keep(self)

    return only_for_new


def test_more_prompts_cost_only_themselves_and_a_split_is_that_of_the_run(measured):
    measure(prompts("one", "two"))
    table = measure(prompts("two", "three", split="test"))
    assert measured == ["one", "two", "three"]
    asked, _ = task.read_rows(table)
    assert [(row.prompt, row.split) for row in asked] == [("two", "test"), ("three", "test")]


def test_what_is_measured_in_another_way_is_another_table(measured):
    first = measure(prompts("one"))
    measure(prompts("one"), tokens=5)
    assert measured == ["one", "one"]
    assert dataclasses.replace(measure(prompts("one"))) == first
