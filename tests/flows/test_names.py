"""A mistaken name is told without the classes that are named, and the names are theirs."""

import subprocess
import sys
from pathlib import Path

import pytest

from flows import names
from flows.activation_choices import MITIGATION_CHOICES, SELECTION_CHOICES
from flows.choices import Slice
from flows.cli import build_parser
from flows.controller_choices import Controller
from flows.iterative_choices import Iterative
from flows.methods import IMPORTANCE_CHOICES, PRUNER_CHOICES, UPDATE_CHOICES, parse_pruner
from flows.presets import SWEEPS
from flows.profile_choices import Profiles
from tasks.prune.structure.budget import COSTS
from tasks.prune.structure.export import FORMS
from tasks.prune.weight.pattern import FORMS as PATTERN_FORMS
from tasks.prune.weight.pattern import parse_pattern

MISTAKES = {  # words -> what is said, the same line that the registry says
    "oneshot --pruner wandaa --pattern 2:4": "pruner: 'wandaa' is unknown; choose one of magnitude, wanda, ria, "
    "clearcut, sparsegpt, none, FILE.py:Class",
    "sweep --preset methods --pruner wandaa": "pruner: 'wandaa' is unknown; choose one of magnitude, wanda, ria, "
    "clearcut, sparsegpt, none, FILE.py:Class",
    "oneshot --pruner wanda --pattern 2:4 --update refitt,drift=1": "update: 'refitt' is unknown; choose one of none, "
    "sweep, refit",
    "slice --budget 0.3 --importance tailor": "importance: 'tailor' is unknown; choose one of weight_norm, activation, "
    "wanda_sp, flap, taylor, fisher, influence, leave_one_out",
    "activation --selection topp --pattern 50%": "selection: 'topp' is unknown; choose one of topk, nm, threshold, "
    "clact, amber, weight_variance",
    "sweep --preset demos": "preset: 'demos' is unknown; choose one of demo, patterns, methods, ladder, "
    "importances, allocators, activation, activation-tables, llama-1b-sparsegpt-2of4",
}


def test_the_names_are_those_of_the_registries():
    assert tuple(PRUNER_CHOICES) == names.PRUNERS
    assert tuple(UPDATE_CHOICES) == names.UPDATES
    assert tuple(IMPORTANCE_CHOICES) == names.IMPORTANCES
    assert tuple(SELECTION_CHOICES) == names.SELECTIONS
    assert tuple(MITIGATION_CHOICES) == names.MITIGATIONS
    assert names.PATTERNS == PATTERN_FORMS
    assert tuple(SWEEPS) == names.SWEEPS
    assert tuple(COSTS) == names.COSTS
    assert {*FORMS} == {*names.FORMS}


@pytest.mark.parametrize("word", ["2:4", "16:32", "4:4", "50%", "0%", "99.9%", "50%@matrix", "12.50%"])
def test_a_pattern_is_what_the_flows_read(word: str):
    assert names.pattern("")(word) == word
    parse_pattern(word)


@pytest.mark.parametrize("word", ["50", "100%", "0:4", "5:4", "2:4 ", "-5%", "50%@row", "", "2:", ".5%"])
def test_what_they_do_not_read_is_told_at_once(word: str):
    with pytest.raises(ValueError, match="is not valid"):
        parse_pattern(word)
    with pytest.raises(ValueError, match=r"^pattern: .* is not valid; use n:m with 1 <= n < m"):
        build_parser().parse_args(["activation", "--selection", "nm", f"--pattern={word}"])


def test_a_pruner_is_a_name_or_a_class_in_a_file():
    for word in ("none", "sparsegpt,damp=0.02", "mine.py:Class,power=2"):
        assert names.pruner(word) == word
    with pytest.raises(ValueError, match="'wandaa' is unknown") as error:
        parse_pruner("wandaa")
    assert str(error.value) == MISTAKES["oneshot --pruner wandaa --pattern 2:4"]


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistaken_name_is_one_line(words: str):
    with pytest.raises(ValueError, match="unknown") as error:
        build_parser().parse_args(words.split())
    assert str(error.value) == MISTAKES[words]


@pytest.mark.parametrize(
    ("field", "word"),
    [
        ("budget", "30%"),
        ("budget", "a third"),
        ("budget", "0"),
        ("budget", "30"),
        ("budget", "nan"),
        ("round_to", "64.5"),
        ("round_to", "0"),
        ("samples", "10%"),
        ("window", "1"),
        ("seed", "-1"),
        ("recover_rate", "0"),
        ("recover_rate", "fast"),
    ],
)
def test_a_mistaken_number_is_the_line_that_the_parameters_say(field: str, word: str):
    with pytest.raises(ValueError, match=f"^{field}: ") as of_parameters:
        Slice.parse(**{field: word})
    words = ["slice", "--budget", "0.3", f"--{field.replace('_', '-')}={word}"]
    with pytest.raises(ValueError, match=f"^{field}: ") as of_words:
        build_parser().parse_args(words)
    assert str(of_words.value) == str(of_parameters.value)


def test_a_number_may_be_written_as_the_parameters_read_it():
    words = build_parser().parse_args(["slice", "--budget", ".3", "--round-to", "64.0", "--samples", "1_000"])
    said = Slice.parse(budget=words.budget, round_to=words.round_to, samples=words.samples)
    assert (said.budget, said.round_to, said.samples) == (0.3, 64, 1000)


def test_the_importance_where_none_is_said_is_the_one_that_the_help_calls_the_default(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    assert {flow.model_fields["importance"].default.method for flow in (Slice, Profiles, Iterative, Controller)} == {
        names.USUAL_IMPORTANCE
    }
    for command in ("slice", "profiles", "iterative"):
        with pytest.raises(SystemExit):
            build_parser().parse_args([command, "--help"])
        assert f"{names.USUAL_IMPORTANCE} (the default)" in capsys.readouterr().out


def test_help_a_mistaken_word_and_the_list_of_runs_need_no_torch(tmp_path: Path):
    told = """
import sys
from flows.cli import main
assert main(["oneshot", "--pruner", "wandaa", "--pattern", "2:4"]) == 2
assert main(["slice", "--budget", "30%"]) == 2
assert main(["runs"]) == 0
try:
    main(["slice", "--help"])
except SystemExit:
    pass
print(sorted({"torch", "transformers", "scipy", "mlflow", "prefect", "pydantic"} & sys.modules.keys()))
"""
    place = {"ESPALIER_ARTIFACTS": str(tmp_path), "PATH": "", "HOME": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, env=place, check=True)
    assert ran.stdout.splitlines()[-1] == "[]", ran.stderr
