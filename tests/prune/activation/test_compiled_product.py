"""What the compiled product promises beyond the sums: the same bits always, torch's own threads, words for misuse."""

from pathlib import Path

import pytest
import torch

from tasks.prune.activation.compiled_product import SYMBOLS, compiled_product, library
from tests.prune.activation.compilers import needs_compiler
from tests.prune.activation.test_product import drawn

pytestmark = needs_compiler
LIBRARIES = Path(torch.__file__).parent / "lib"


@pytest.mark.parametrize("dtype", SYMBOLS, ids=str)
def test_its_bits_depend_neither_on_threads_nor_on_other_tokens(dtype):
    """1029 inputs are no whole number of chunks, 4133 outputs take several tiles, of other widths for other threads."""
    x_TI, weight_IO = drawn(8, 1029, 4133, dtype)
    threshold, before = torch.tensor(0.5, dtype=dtype), torch.get_num_threads()
    together_TO = compiled_product(x_TI, weight_IO, threshold)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.equal(compiled_product(x_TI, weight_IO, threshold), together_TO)
            for tokens in (slice(0, 1), slice(5, 6), slice(2, 5)):
                assert torch.equal(compiled_product(x_TI[tokens], weight_IO, threshold), together_TO[tokens])
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not (LIBRARIES / "libgomp.so.1").exists(), reason="torch brings no OpenMP of this name")
def test_it_brings_no_second_pool_of_threads():
    library()
    with open("/proc/self/maps") as maps:
        loaded = {line.split()[-1] for line in maps if "/libgomp.so.1" in line}
    assert loaded == {str(LIBRARIES / "libgomp.so.1")}


@pytest.mark.parametrize(
    ("x_TI", "weight_IO", "says"),
    [
        (torch.ones(1, 4), torch.ones(5, 3), r"^shape: \(1, 4\) and \(5, 3\) given"),
        (torch.ones(4), torch.ones(4, 3), r"^shape: \(4,\) and \(4, 3\) given"),
        (torch.ones(1, 4), torch.ones(3, 4).T, "^weight: its rows do not lie one after the other"),
        (torch.ones(1, 4), torch.ones(4, 3).bfloat16(), "^dtype: torch.float32 and torch.bfloat16 given"),
        (torch.ones(1, 4).double(), torch.ones(4, 3).double(), "^dtype: .*valid is float32 or bfloat16 for both"),
        (torch.ones(1, 4, device="meta"), torch.ones(4, 3), "^device: meta and cpu given"),
    ],
)
def test_what_it_cannot_read_is_refused(x_TI, weight_IO, says):
    with pytest.raises(ValueError, match=says):
        compiled_product(x_TI, weight_IO)
