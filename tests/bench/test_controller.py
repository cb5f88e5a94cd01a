"""The benchmark of the controller: its lines are a table again, and its page says what they say."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from bench.cells import left
from bench.controller import SHUFFLED, WAYS, enough, shuffled
from bench.controller_measured import LEARN, LIVE, MEASURE, SWEEP, Cell, line_of, of_part, setup_of, table_from
from bench.controller_subjects import AGAIN, Again, actions_of, weights_of
from bench.controller_table import BY_RISES, by_rises, markdown
from tasks.train_controller.learn.learners import LEARNERS
from tasks.train_controller.observation import FEATURES, HARDWARE_FEATURES
from tests.record.plausible_controllers import episode, prompts
from tests.train_controller.made_up import a_table

ACTIONS = ("none", AGAIN, "ffn20")
SETUP = setup_of({"model": "m"})
START = {
    "command": "python -m bench.controller",
    "date": "2026-11-22T10:00:00+00:00",
    "machine": "{}",
    "threads": 1,
    "load": 0.5,
    "dense": {"ppl": 5.9029},
    "setup": SETUP,
    "prompts": "20 of two files",
    "actions": list(ACTIONS),
    "tokens": 24,
    "reference": 96,
    "repetitions": 2,
    "floors": [0.05],
    "target": 0.01,
}


def cell(part, of, **which):
    return {"cell": asdict(Cell(setup=SETUP, part=part, of=of, **which))}


def measured(prompt, gain, rise, again=1.0):
    of_actions = {"rise": [0.0, 0.0, rise], "kl": [0.0, 0.0, rise], "ratio": [1.0, again, 1.0 + gain]}
    of_actions |= {"switch_ms": [0.1, 0.1, 0.2], "decode_ms": [2.0, 2.0, 1.5], "cache_bytes": [100, 100, 50]}
    facts = {"split": "test" if prompt < 8 else "train", "source": "docs", "state": [0.5] * len(FEATURES)}
    return cell(MEASURE, f"p{prompt:02}") | facts | {"prefill_ms": 10.0} | of_actions


def lines():
    """Every second prompt is spoilt by the cut, so that no action suits all of them."""
    table = [
        measured(prompt, 0.2, 0.3 if prompt % 2 else 0.01, again=0.99 + 0.02 * (prompt % 2)) for prompt in range(28)
    ]
    which = {"prompts": 28, "target": 0.01, "floor": 0.05}
    wise = cell(LEARN, "bandit", **which) | {"choices": [0 if prompt % 2 else 1 for prompt in range(8)]}
    bold = cell(LEARN, "dqn", **which) | {"choices": [1] * 8}
    stale = cell(LEARN, "dqn", **which | {"prompts": 20}) | {"choices": [0] * 5}
    of_all = {"floor": 0.05, "seed": 0, "share": 1.0}
    live = [
        cell(LIVE, prompt, prompts=28, target=0.01)
        | {
            "answers": [
                {"policy": AGAIN, "prompt": prompt, "action": "none", "ratio": 1.01, "decision_ms": 0.0}
                | of_all
                | {"floor": 0.0},
                {"policy": "best fixed", "prompt": prompt, "action": "none", "ratio": 1.0, "decision_ms": 0.0} | of_all,
                {"policy": "bandit", "prompt": prompt, "action": "ffn20", "ratio": 1.15, "decision_ms": 0.25} | of_all,
            ]
        }
        for prompt in ("p00", "p02")
    ]
    return [START, *table, wise, bold, stale, *live]


def rows_of(text, first):
    cells = [[each.strip() for each in row.strip("|").split("|")] for row in text.splitlines() if row.startswith("| ")]
    return [row for row in cells if row[0] == first]


def test_a_prompt_becomes_a_line_and_the_lines_a_table():
    asked = prompts(train=3, test=2)
    features = json.dumps(dict.fromkeys(FEATURES, 0.25))
    named = ("none", "ffn20")
    made = []
    for row in asked:
        row = type(row)(**asdict(row) | {"features": features})
        line = line_of(row, [episode(row, action, 0.125) for action in named])
        made.append(cell(MEASURE, row.prompt) | json.loads(json.dumps(line)))
    assert of_part([START, *made], SETUP, MEASURE) == made
    assert of_part(made, "another", MEASURE) == []
    train, test = (table_from(made, named, split) for split in ("train", "test"))
    assert (train.prompts, test.prompts) == (tuple(r.prompt for r in asked[:3]), tuple(r.prompt for r in asked[3:]))
    assert train.state_PF.unique().tolist() == [0.25]
    assert test.ratio_PA.tolist() == [[1.0, 1.1]] * 2
    assert test.rise_PA[0, 1].item() == pytest.approx(0.03 * 1.125)
    assert len(table_from([], named, "test")) == 0


def test_none_again_is_timed_but_nothing_to_choose():
    first, again, *_ = actions_of(["ffn20", "none@window:0.5"])
    assert (str(first), str(again)) == ("none", AGAIN)
    assert isinstance(again, Again)
    table = table_from([measured(9, 0.2, 0.3)], ACTIONS, "train")
    assert table.actions == ("none", "ffn20")
    assert table.ratio_PA.tolist() == [[1.0, 1.2]]


def test_what_each_ablation_takes_away():
    table = a_table(30)
    mixed = WAYS[SHUFFLED](table, 3)
    assert torch.equal(mixed.ratio_PA, table.ratio_PA)
    assert not torch.equal(mixed.state_PF, table.state_PF)
    assert {*map(tuple, mixed.state_PF.tolist())} == {*map(tuple, table.state_PF.tolist())}
    assert torch.equal(shuffled(table, 3).state_PF, mixed.state_PF)
    blind = WAYS["no hardware state"](table, 0)
    of_hardware = [FEATURES.index(name) for name in HARDWARE_FEATURES]
    assert not blind.state_PF[:, of_hardware].any()
    assert WAYS[""](table, 0) is table


def test_each_other_reward_of_the_sweep_is_learned_by_once():
    swept = weights_of(LEARNERS["bandit"](target=0.02))
    assert len({each.reward for each in swept.values()}) == len(swept) == 6
    assert LEARNERS["bandit"]().reward not in {each.reward for each in swept.values()}
    assert all(name.startswith("bandit, quality ") and each.target == 0.02 for name, each in swept.items())


def test_too_few_prompts_are_no_table_to_learn_from():
    table = a_table(20)
    assert enough(table.of(range(8)), table.of(range(2)))
    assert not enough(table.of(range(7)), table.of(range(10)))
    assert not enough(table, table.of([0]))


def test_a_cell_of_another_table_or_target_is_done_anew(tmp_path):
    file = tmp_path / "lines.jsonl"
    done = Cell(setup=SETUP, part=LEARN, of="dqn", prompts=28, target=0.01, floor=0.05, seed=1)
    file.write_text(json.dumps({"cell": asdict(done), "choices": []}) + "\n", encoding="utf-8")
    others = [Cell(**asdict(done) | change) for change in ({"prompts": 29}, {"target": 0.02}, {"setup": "other"})]
    assert left(file, [done, *others], Cell, done="cell") == others


def test_the_page_has_each_policy_beside_the_oracle_and_the_best_fixed_action():
    text = markdown({"stories3M": lines()})
    found = {row[1].split(" (")[0]: row for row in rows_of(text, "5%") if len(row) == 8}
    assert found["best fixed: none"][2:4] == ["1.000 (1.000 to 1.000)", "+0.000 (+0.000 to +0.000)"]
    assert found["bandit"][2:] == [*found["oracle"][2:7], "100%"]
    assert found["bandit"][4] == "0.0%"
    assert (found["dqn"][4], found["dqn"][6]) == ("50.0%", f"{np.mean([0, 1.0 - (1.2 - 0.75)] * 4):.4f}")
    assert found["random"][1] == "random (5 seeds)"
    assert found[BY_RISES][2:7] == found["oracle"][2:7]  # as no time is by chance here
    assert found["bandit"][3].startswith("**+0.100 (")


def test_the_page_has_other_weights_of_the_reward_beside_the_usual_ones():
    assert "Other weights" not in markdown({"stories3M": lines()})
    of = {"prompts": 28, "target": 0.01, "floor": 0.05}
    swept = cell(SWEEP, "dqn, quality 0, tolerance 0", **of) | {"choices": [1] * 8}
    text = markdown({"stories3M": [*lines(), swept]})
    found = {row[1]: row for row in rows_of(text[text.index("Other weights") :], "5%")}
    assert [*found] == ["best fixed: none", "bandit", "dqn", "dqn, quality 0, tolerance 0"]
    assert found["dqn, quality 0, tolerance 0"][2:] == found["dqn"][2:]


def test_the_page_has_the_actions_and_what_was_answered_live():
    text = markdown({"stories3M": lines()})
    [[_, speed, rise, median, *met, switch, cache]] = rows_of(text, "ffn20")
    assert (speed, rise, median, met) == ("1.200 (1.200 to 1.200)", "15.5%", "15.5%", ["50%"])
    assert (switch, cache) == ("0.20", "50%")
    [again] = rows_of(text, AGAIN)
    assert again[1].startswith("1.000 (0.9")
    assert "1.010 (1.010 to 1.010)." in text
    [live] = [row for row in rows_of(text, "5%") if len(row) == 7 and row[1] == "bandit"]
    assert live[2:] == ["1.150 (1.150 to 1.150)", "**+0.150 (+0.150 to +0.150)**", "0.0%", "0.25", "0.25"]


def test_who_knows_the_rises_takes_what_is_fastest_on_average():
    slow_here = measured(0, -0.5, 0.04)
    train = table_from([measured(20, 0.2, 0.3), measured(21, 0.1, 0.3)], ACTIONS, "train")
    test = table_from([slow_here, measured(1, 0.9, 0.06)], ACTIONS, "test")
    assert by_rises(train, test, 0.05).tolist() == [1, 0]


def test_what_is_begun_is_no_table_yet():
    assert "Measured so far: 1 prompts." in markdown({"stories3M": [START, measured(1, 0.2, 0.3)]})
