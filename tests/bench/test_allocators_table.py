"""The table of bench.allocators by hand: means, intervals, and who is judged by whom."""

from bench.allocators_table import interval, markdown

START = {"command": "", "date": "2026-11-23", "machine": "{}", "dense": {}, "searched": 16, "held_out": 64}
START |= {"importance": "wanda_sp", "pruner": "wanda"}


def line(allocator, looks, seed, held_out):
    cell = {"problem": "units 30%", "allocator": allocator, "looks": looks, "seed": seed}
    spent = {"tokens": 4096 * looks, "forwards": looks, "hits": 2, "seconds": 1.5}
    return {"cell": cell, "held_out": held_out, "uniform": 3.0, "dense": 1.5} | spent


def test_an_interval_is_students():
    # of 1, 2, 3: the deviation 1, divided by the root of 3, times 4.3027 of two degrees of freedom
    assert interval([1.0, 2.0, 3.0]) == "+2.0000 ± 2.4841"
    assert interval([0.5]) == "+0.5000 (1)"
    assert interval([]) == ""


def test_pairs_are_of_the_same_seeds_and_evolution_has_its_most_looks():
    lines = [START]
    lines += [line("rl", 30, seed, 2.5 + seed) for seed in range(3)]
    lines += [line("rl", 300, seed, 1.0) for seed in range(3)]
    lines += [line("evolution", looks, seed, 2.0 + seed + 30 / looks) for seed in range(2) for looks in (30, 300)]
    text = markdown({"stories3M": lines})
    assert "### units 30%: dense 1.5000, uniform 3.0000" in text
    assert "| rl | +0.5000 ± 2.4841 | -2.0000 ± 0.0000 | 1,228,800 | 300 | 2 | 2 |" in text
    assert "| rl, 30 looks, less evolution, 300 | +0.4000 ± 0.0000 |" in text
    assert "less adapt" not in text
