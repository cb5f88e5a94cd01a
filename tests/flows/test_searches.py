"""An allocator that searches, from the command line to the page: what it found is what the model has."""

import dataclasses
import json
import shlex

import pytest

from flows.allocator_choices import TOKENS
from flows.choices import Oneshot, Slice
from flows.cli import build_parser, main
from flows.methods import parse_allocation, parse_pruner
from flows.parameters import oneshot_of, slice_of
from tasks.record.metrics import query


def words(tiny_model, stories, *more):
    text = ("--calibration", f"{stories}[:20]", "--evaluation", f"{stories}[20:]", "--window", "16", "--samples", "8")
    return ["--model", str(tiny_model), *text, "--no-speed", *more]


def run(capsys, *command):
    assert main([*command, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_zeros_arrive_part_by_part_and_a_second_search_takes_no_forward(artifacts, tiny_model, stories, capsys):
    asked = words(tiny_model, stories, "--pruner", "magnitude", "--pattern", "50%", "--allocator-tokens", "2000")
    first = run(capsys, "oneshot", *asked, "--allocation", "evolution", "--measure-levels")
    assert first["result"]["sparsity"] == pytest.approx(0.5, abs=1e-12)
    allocations = {(row["block"], row["kind"]): row["share"] for row in query("select * from allocations")}
    assert len(allocations) == 4
    assert len(set(allocations.values())) > 1
    zeros = query(
        "select block, linear like 'self_attn%' as attention, sum(zeros) / sum(out_features * in_features) as share "
        "from linears group by all"
    )
    for row in zeros:  # within a weight of each row of 32, and the move to the exact total
        asked_for = allocations[row["block"], "attention" if row["attention"] else "ffn"]
        assert row["share"] == pytest.approx(asked_for, abs=1 / 32 + 0.05)
    [table] = query("select count(*) as rows, count(distinct (block, kind)) as parts from levels")
    assert table == {"rows": 4 * 20, "parts": 4}
    [summary] = query("select * from allocators")
    assert (summary["allocator"], summary["limit"], summary["windows"]) == ("evolution", 2000, 4)
    assert 0 < summary["tokens"] <= 2000
    moves = query("select loss, best, tokens from searches order by move")
    assert min(move["loss"] for move in moves) == moves[-1]["best"]

    run(capsys, "oneshot", *asked, "--allocation", "evolution")  # the same search without the table among its inputs
    [again] = query("select * from allocators where run <> ?", [first["run"]])
    assert again["forwards"] == 0
    assert again["hits"] == summary["forwards"] + summary["hits"]
    assert (again["held_out_loss"], again["tokens"]) == (summary["held_out_loss"], summary["tokens"])
    run(capsys, "oneshot", *asked, "--allocation", "evolution")  # to the letter once more: the stage itself is known
    rows = query("select cached from allocators order by recorded_at")
    assert [row["cached"] for row in rows] == [False, False, True]
    page = (artifacts / "reports" / first["run"] / "index.html").read_text(encoding="utf-8")
    assert "<h2>Allocation</h2>" in page
    assert page.count("<figcaption>What goes of each block") == 1


def test_units_arrive_block_by_block(artifacts, tiny_model, stories, capsys):
    asked = words(tiny_model, stories, "--budget", "0.3", "--round-to", "8", "--allocator-tokens", "2000")
    made = run(capsys, "slice", *asked, "--allocator", "milp,points=3", "--importance", "weight_norm")
    gone = {(row["block"], row["kind"]): row["share"] for row in query("select * from allocations")}
    for row in query("select * from slices"):
        assert row["head_groups"] == row["head_groups_before"] * (1 - gone[row["block"], "attention"])
        assert row["channels"] == row["channels_before"] * (1 - gone[row["block"], "ffn"])
    [saved] = query("select sum(saved_parameters) as share from allocations")
    before, after = (made[subject]["parameters"] for subject in ("dense", "result"))
    of_blocks = query("select sum(parameters_before) as n from slices")[0]["n"]
    assert before - after == pytest.approx(saved["share"] * of_blocks, abs=1e-6)
    assert made["result"]["ppl"] > 0
    [row] = query("select command, method from runs")
    assert row["method"] == "weight_norm+milp,points=3+repair"
    assert "--allocator milp,points=3" in row["command"]
    assert "--allocator-tokens 2000" in row["command"]


def test_a_file_with_halves_is_pruned_and_packed(artifacts, tiny_model, stories, capsys, tmp_path):
    file = tmp_path / "halves.json"
    # an attention of 3,072 weights beside an FFN of 6,144
    file.write_text('{"0": {"attention": 0.25, "ffn": 0.625}, "1": {"attention": 0.5, "ffn": 0.5}}')
    asked = words(tiny_model, stories, "--pruner", "magnitude", "--pattern", "4:8")
    made = run(capsys, "oneshot", *asked, "--allocation", str(file))
    assert made["result"]["sparsity"] == pytest.approx(0.5, abs=1e-12)
    halves = query(
        "select linear like 'self_attn%' as attention, avg(sparsity) as share from linears where block = 0 group by all"
    )
    assert {row["attention"]: row["share"] for row in halves} == {True: 0.25, False: 0.625}
    [row] = query("select command from runs")
    assert '[{"attention": 0.25, "ffn": 0.625}, {"attention": 0.5, "ffn": 0.5}]' in row["command"]


@pytest.mark.parametrize("allocation", ["rl,updates=40", "auto", "refine,start=uniform", "[0.4, 0.6]"])
def test_the_command_of_a_run_reads_back(allocation):
    more = ["--allocator-tokens", "5000", "--measure-levels"] if not allocation.startswith("[") else []
    parser = build_parser()
    given = ["--pruner", "wanda", "--pattern", "50%", "--allocation", allocation, *more]
    once = oneshot_of(parser.parse_args(["oneshot", *given]))
    cut = slice_of(parser.parse_args(["slice", "--budget", "0.5", "--allocator", allocation, *more]))
    for parameters, read in ((once, oneshot_of), (cut, slice_of)):
        again = read(parser.parse_args(shlex.split(parameters.command())[1:]))
        assert again == parameters
        assert type(parameters).model_validate_json(parameters.model_dump_json()) == parameters
    assert once.tokens_to_look_at == (5000 if more else TOKENS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"allocation": "rl,flops=-1"}, r"^allocation: rl: flops: -1.0 given, valid is 0 to 1e\+06$"),
        (
            {"allocation": "rl,kv=1"},
            r"^allocation: kv given for zeros, which save as much of it wherever they are; valid is kv=0$",
        ),
        (
            {"allocation": "owl", "measure_levels": True},
            r"^measure_levels: given, but nothing is searched; valid with ad",
        ),
        ({"allocation": "adapt", "allocator_tokens": 1 << 63}, r"^allocator_tokens: Input should be less than 9223"),
        ({"allocation": "evolution,switches=1001"}, r"^allocation: evolution: switches: 1001 given, valid is 1 to"),
        ({"allocation": "evolution,children=0"}, r"^allocation: evolution: children: 0 given, valid is 1 to 1000$"),
        ({"allocation": "random,spread=1e308"}, r"^allocation: random: spread: 1e\+308 given, valid is 0 < spread"),
        ({"allocation": "split,points=1001"}, r"^allocation: split: points: 1001 given, valid is 2 to 1000$"),
        ({"allocation": "uniform", "allocator_tokens": 9}, r"^allocator_tokens: given, but nothing is searched"),
    ],
)
def test_what_cannot_be_meant_is_one_line(changes, message):
    def parse():
        allocation = parse_allocation(changes["allocation"])
        Oneshot.parse(pruner=parse_pruner("wanda"), pattern="50%", **{**changes, "allocation": allocation})

    with pytest.raises(ValueError, match=message) as error:
        parse()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--allocator-tokens", "50"), "allocator_tokens: 50 given, valid is 64 or more, which one look takes"),
        (("--budget", "0.99"), "budget: 0.99 of the parameters given, valid is 0."),
        (("--round-to", "48"), "round_to: 48 given, a search cuts 64 channels in equal steps: 8, 16, 32"),
        (("--export", "uniform"), "export: uniform given, but a search makes blocks differ"),
        (("--samples", "1"), "samples: 1 given, but to repair"),
        (("--allocator", "refine", "--samples", "7"), "samples: 7 given, refine needs 8 or more"),
        (("--allocator", "auto", "--samples", "15"), "samples: 15 given, auto needs 16 or more"),
        (("--allocator", "rl,bytes=1"), "bytes: 1.0 given, but all levels of this budget of parameters save it alike"),
    ],
)
def test_a_search_that_cannot_be_is_refused_before_any_work(artifacts, tiny_model, stories, capsys, more, message):
    asked = words(tiny_model, stories, "--budget", "0.3", "--round-to", "8", "--allocator", "random")
    assert main(["slice", *asked, *more]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said
    assert "\n" not in said


def test_whole_blocks_are_not_searched():
    with pytest.raises(ValueError, match=r"^allocator: rl given for whole blocks, of which none is cut; leave it out$"):
        Slice.parse(allocator="rl", units=("blocks",), importance={"method": "influence"})


def test_a_misspelt_allocator_is_told_what_there_is():
    for parse in (parse_allocation, lambda text: Slice.parse(allocator=text)):
        with pytest.raises(
            ValueError, match=r"'evolutoin' given, .*uniform, .*evolution, milp, descent, rl, refine, auto"
        ):
            parse("evolutoin")


def test_a_choice_is_known_by_its_name_and_what_was_changed():
    asked = Slice.parse(allocator="rl,updates=40", budget=0.3)
    assert asked.name == "wanda_sp+rl,updates=40+repair"
    assert dataclasses.asdict(asked.search.build())["updates"] == 40
