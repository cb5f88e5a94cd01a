"""What is said of recovery is done: adapters, a teacher, several texts, conversations; what is unused is refused."""

import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from flows.choices import Oneshot, Slice
from flows.cli import build_parser, main
from flows.methods import parse_importance, parse_pruner
from flows.oneshot import oneshot
from flows.outcome import Outcome
from flows.parameters import oneshot_of, slice_of
from flows.recoveries import parse_distil, parse_recover
from flows.slice import slice_model
from tasks.data.chat import encode_chat
from tasks.prune.pack import load_packed
from tasks.recover import task as recover_task
from tasks.recover.checkpoint import Training
from tasks.recover.distil import Distillation
from tasks.recover.lora import LoRA
from tasks.recover.recovery import Recovery
from tasks.recover.texts import WeightedText
from tasks.stage import StageFailed
from tests.flows.runs import rows_of

STEP = 16 * 32  # tokens
TEMPLATE = (
    "{% for m in messages %}{{ m.role }} {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)
ASKED, SAID = "every branch that bears no fruit is", "cut so that light reaches the rest"


@pytest.fixture
def words(tiny_model: Path, stories: Path) -> dict:
    texts = {"calibration": f"{stories}[:20]", "evaluation": f"{stories}[20:]"}
    return {"model": str(tiny_model), "samples": 8, "window": 32, "speed": False, **texts}


@pytest.fixture
def talking_model(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model, whose tokenizer knows how a conversation is rendered."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "talking"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    path = tmp_path / "talk.jsonl"
    turns = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}]
    path.write_text((json.dumps({"messages": turns}) + "\n") * 40, encoding="utf-8")
    return path


def weights_of(outcome: Outcome) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(outcome.checkpoint).state_dict()


@pytest.mark.parametrize(("pattern", "permute"), [("2:4", True), ("50%", False)])
def test_a_pruned_model_learns_from_the_dense_one_by_adapters_and_keeps_its_zeros(
    artifacts: Path, words: dict, pattern: str, permute: bool
):
    words |= {"pruner": parse_pruner("wanda"), "pattern": pattern, "permute": permute}
    how = {"recover": parse_recover("lora,rank=4"), "recover_rate": 1e-2, "distil": parse_distil("temperature=3")}
    pruned = oneshot(Oneshot.parse(**words))
    trained = oneshot(Oneshot.parse(**words, recover_tokens=10 * STEP, **how))
    before, after = weights_of(pruned), weights_of(trained)
    linears = [name for name in before if "proj" in name]
    assert all(torch.equal(before[name] == 0, after[name] == 0) for name in linears)
    assert not any(torch.equal(before[name], after[name]) for name in linears)
    assert all(torch.equal(before[name], after[name]) for name in before if name not in linears)
    packed = load_packed(Path(trained.packed)).state_dict()
    assert all(torch.equal(weight, packed[name]) for name, weight in after.items())
    assert trained.result.sparsity == pruned.result.sparsity == 0.5
    assert trained.result.nll < pruned.result.nll
    assert trained.result.size_bytes == pruned.result.size_bytes
    assert [row["checkpoint"] for row in rows_of("runs", trained)] == [Path(trained.checkpoint).name]
    said = rows_of("runs", trained)[0]["method"]
    assert said.endswith(f"+recover,tokens={10 * STEP}+lora,rank=4+distil,temperature=3.0")


def test_several_texts_and_a_conversation_have_a_row_each_and_a_stopped_training_goes_on(
    artifacts: Path, words: dict, stories: Path, talking_model: Path, talk: Path, monkeypatch: pytest.MonkeyPatch
):
    words |= {"model": str(talking_model), "budget": 0.4, "importance": parse_importance("weight_norm"), "round_to": 8}
    words |= {"recover_text": f"{stories}[:10]=3+{talk}", "recover_tokens": 8 * STEP, "distil": parse_distil("")}
    parameters = Slice.parse(**words, recover_rate=1e-3)

    @contextmanager
    def stopping(what: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
        def reach(done: int) -> None:
            reached.append(done)
            if done == 6:
                raise OSError("stopped")

        yield reach

    reached: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(recover_task, "CHECKPOINT_EVERY", 4)
        patch.setattr(recover_task, "progress", stopping)
        with pytest.raises(StageFailed, match="stage recover checkpoint: stopped"):
            slice_model(parameters)
        patch.setattr(recover_task, "progress", lambda *_, **__: nullcontext(reached.append))
        outcome = slice_model(parameters)
    assert reached == [*range(1, 7), *range(5, 9)]

    learned = {row["source"]: row for row in rows_of("recoveries", outcome)}
    plain, chat = learned[f"{stories}[:10]"], learned[str(talk)]
    assert (plain["windows"], chat["windows"]) == (3 * 8 * 16 // 4, 8 * 16 // 4)
    assert (plain["read"], plain["learned"]) == (plain["windows"] * 32, plain["windows"] * 31)
    assert 0 < chat["learned"] < chat["read"] * 31 // 32
    texts = {row["source"]: row for row in rows_of("datasets", outcome) if row["role"] == "recovery"}
    turns = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}]
    _, labels_T = encode_chat([turns] * 40, AutoTokenizer.from_pretrained(talking_model))
    assert (texts[str(talk)]["tokens"], texts[str(talk)]["learned"]) == (len(labels_T), int((labels_T >= 0).sum()))
    assert texts[f"{stories}[:10]"]["learned"] == texts[f"{stories}[:10]"]["tokens"]
    stages = {row["stage"] for row in rows_of("stages", outcome)}
    assert {"tokenize recovery 1", "tokenize recovery 2", "recover checkpoint"} <= stages


ONE_STEP = {"recover-tokens": str(STEP)}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"recover": "full"}, ("recover:", "recover_tokens")),
        ({"distil": ""}, ("distil:", "recover_tokens")),
        ({"recover-text": "docs"}, ("recover_text:", "recover_tokens")),
        ({"recover-rate": "0.1"}, ("recover_rate:", "recover_tokens")),
        ({"recover-batch": "8"}, ("recover_batch:", "recover_tokens")),
        ({"recover-at-once": "8"}, ("recover_at_once:", "recover_tokens")),
        ({"recover-batch": "0", **ONE_STEP}, ("recover_batch", "greater than or equal to 1")),
        ({"recover-at-once": "3", **ONE_STEP}, ("recover_at_once: 3", "divides the 16 windows of recover_batch")),
        ({"recover-batch": "32", **ONE_STEP}, ("recover_tokens: 512", "1024 or more", "32 windows of 32")),
        ({"recover-tokens": "32"}, ("recover_tokens: 32", "512 or more", "16 windows of 32")),
        ({"recover": "loro", **ONE_STEP}, ("recover:", "loro", "lora, full")),
        ({"recover": "lora,rank=0", **ONE_STEP}, ("rank: 0", "1 or more")),
        ({"recover": "lora,ranks=3", **ONE_STEP}, ("recover:", "ranks=3", "rank=…, alpha=…, linears=…")),
        ({"recover": "lora,linears=q", **ONE_STEP}, ("linears: q given", "self_attn.q_proj")),
        ({"distil": "soft=0", **ONE_STEP}, ("distil", "soft: 0", "more than 0")),
        ({"distil": "heat=2", **ONE_STEP}, ("distil", "heat=2", "temperature=…, soft=…, hard=…")),
        ({"recover-text": "dogs", **ONE_STEP}, ("dogs", "docs")),
        ({"recover-text": "docs=2", **ONE_STEP}, ("docs=2.0", "leave it out")),
        ({"recover-text": "docs+docs=2", **ONE_STEP}, ("docs given 2 times",)),
        ({"recover-text": "docs=0+c4", **ONE_STEP}, ("weight: 0", "docs", "more than 0")),
        ({"recover-text": "no.jsonl", **ONE_STEP}, ("recover_text: ", "no.jsonl", "does not exist")),
        ({"recover-text": "TALK", **ONE_STEP}, ("recover_text: ", "talk.jsonl", "chat template")),
        ({"low-rank": "0.25", **ONE_STEP}, ("low_rank", "recover_tokens")),
    ],
)
def test_a_mistake_is_one_line_before_any_work(
    artifacts: Path, words: dict, talk: Path, capsys: pytest.CaptureFixture, changed: dict, says: tuple
):
    words.pop("speed")
    said = words | {"pruner": "wanda", "pattern": "2:4"}
    said |= {name: str(talk) if value == "TALK" else value for name, value in changed.items()}
    assert main(["oneshot", *(word for name, value in said.items() for word in (f"--{name}", str(value)) if word)]) == 2
    printed = capsys.readouterr()
    assert (printed.out, len(printed.err.splitlines())) == ("", 1), printed.err
    assert all(part in printed.err for part in says), printed.err
    assert not (artifacts / "store" / "tokens").exists()


@pytest.mark.parametrize(
    "words",
    [
        {"recover_tokens": 10**6, "recover": "full", "recover_rate": 1e-4},
        {"recover_tokens": 10**6, "recover": parse_recover("lora,rank=8,linears=q_proj+v_proj")},
        {"recover_tokens": 10**6, "recover_batch": 4, "recover_at_once": 2, "recover_recompute": True},
        {"recover_tokens": 10**6, "distil": parse_distil(""), "recover_text": "docs=2+a.jsonl[:5]=0.5"},
        {"recover_tokens": 10**6, "distil": parse_distil("temperature=4,hard=0.5"), "recover_text": ["docs", "c4=3"]},
    ],
)
def test_the_command_of_a_run_repeats_it(words: dict):
    for parameters, read in (
        (Slice.parse(**words), slice_of),
        (Oneshot.parse(pruner=parse_pruner("wanda"), **words), oneshot_of),
    ):
        again = build_parser().parse_args(shlex.split(parameters.command())[1:])
        assert read(again) == parameters
        assert type(parameters).model_validate_json(parameters.model_dump_json()) == parameters


def test_words_become_what_they_say():
    shared = {"pruner": parse_pruner("wanda"), "recover_tokens": 5000, "seed": 3}
    plain = Oneshot.parse(**shared)
    assert plain.training() == Training(recovery=Recovery(tokens=5000, rate=2e-5, seed=3))
    assert plain.texts() == (WeightedText(source="docs"),)
    said = {"recover": parse_recover("lora,rank=8,alpha=4"), "distil": parse_distil("soft=2")}
    adapted = Oneshot.parse(**shared, **said, recover_text="a.txt=2+b.txt")
    assert adapted.training() == Training(
        recovery=Recovery(tokens=5000, rate=2e-4, seed=3), lora=LoRA(rank=8, alpha=4.0), distil=Distillation(soft=2.0)
    )
    assert adapted.texts() == (WeightedText(source="a.txt", weight=2.0), WeightedText(source="b.txt"))
    small = Oneshot.parse(**shared, recover_batch="6", recover_at_once="2", recover_recompute=True)
    assert small.training() == Training(recovery=Recovery(tokens=5000, batch=6, at_once=2, recompute=True, seed=3))
    assert Oneshot.parse(pruner=parse_pruner("wanda")).training() is None
    with pytest.raises(ValueError, match=r"^recover_recompute: nothing is trained"):
        Oneshot.parse(pruner=parse_pruner("wanda"), recover_recompute=True)
