"""An alias moves only to what passes every gate, and each gate says by which row it judged."""

import pytest

from tasks.record import home
from tasks.record.registry import tracking, versions
from tasks.record.registry.gates import Limits, closed
from tasks.record.registry.promotion import Promotion, check_alias, promote
from tasks.record.runs.lineage import lineage_of
from tests.record.publishing import NAME
from tests.record.versions import publish_recorded

pytestmark = pytest.mark.usefixtures("database")


def champion(named: str, **limits: float) -> Promotion:
    return promote(lineage_of(named), "champion", Limits(**limits))


def test_a_version_that_passes_gets_the_alias_and_the_rows_that_say_so():
    version = publish_recorded("r1")
    made = champion("r1")
    assert (made.passed, made.before, made.holder) == (True, None, version)
    assert lineage_of(f"{NAME}@champion").run == "r1"
    quality, size, prefill, decode = made.gates
    assert (quality.figure, quality.limit) == (pytest.approx(7.0 / 6.05), 1.5)
    assert (size.figure, size.limit) == (pytest.approx(7.0 / 12.6), 1.0)
    assert (prefill.figure, decode.figure, decode.limit) == (0.95, 0.95, 0.8)
    assert quality.evidence == "evaluations: run r1, subject pruned, source docs"
    assert decode.evidence == "speeds: run r1, subject pruned, phase decode, device cpu"
    with tracking.tracking() as client:
        tags = client.get_model_version(NAME, "1").tags
    assert tags["champion quality"] == f"{quality.says} ({quality.evidence})"
    assert "champion since" in tags


def test_what_does_not_pass_leaves_the_alias_where_it_is():
    first = publish_recorded("r1")
    champion("r1")
    made = champion(publish_recorded("r2", ppl=9.2))
    assert [gate.name for gate in closed(made.gates)] == ["quality"]
    assert (made.passed, made.before, made.holder) == (False, first, first)
    assert versions.number_of(NAME, "champion") == "1"
    with tracking.tracking() as client:
        assert not [tag for tag in client.get_model_version(NAME, "2").tags if tag.startswith("champion")]


def test_a_version_whose_files_were_altered_is_not_promoted(artifacts):
    publish_recorded("r1")
    stored = next((artifacts / "mlruns").rglob("packing.json"))
    stored.write_text(stored.read_text() + " ")
    with pytest.raises(home.Altered, match=r"packing\.json was altered"):
        champion("r1")


@pytest.mark.parametrize(
    ("alias", "says"),
    [("best", "moves by itself"), ("best-2of4", "moves by itself"), ("latest", "valid is letters"), ("v3", "letters")],
)
def test_an_alias_that_is_not_ours_to_move_is_refused(alias, says):
    with pytest.raises(ValueError, match=f"^alias: .*{says}"):
        check_alias(alias)
