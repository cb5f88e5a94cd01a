import pytest
import torch

from tasks.calibrate.observers import GRAM_BLOCK, InputGram, InputNorm

WIDTHS = [8, GRAM_BLOCK, GRAM_BLOCK * 2 + 44]


def inputs(width=8, tokens=50, dtype=torch.float32, seed=0):
    return torch.randn(tokens, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


def seen(kind, x_TI, split=7):
    stat = kind(x_TI.shape[1], "cpu")
    for part_TI in x_TI.split(split):
        stat.update(part_TI)
    return stat


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_sums_are_those_of_all_tokens(width, dtype):
    x_TI = inputs(width, dtype=dtype)
    exact_TI = x_TI.double()
    norm, gram = seen(InputNorm, x_TI), seen(InputGram, x_TI)
    torch.testing.assert_close(norm.norm_I().double(), exact_TI.norm(dim=0), rtol=1e-6, atol=0)
    torch.testing.assert_close(gram.gram_II.double(), exact_TI.T @ exact_TI, rtol=1e-5, atol=1e-4)
    assert norm.count == gram.count == len(x_TI)
    assert gram.gram_II.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("kind", [InputNorm, InputGram])
def test_batches_order_and_sign_do_not_matter(kind):
    x_TI = inputs()

    def read(stat):
        return stat.norm_I() if kind is InputNorm else stat.gram_II

    whole = read(seen(kind, x_TI, split=50))
    for other in (seen(kind, x_TI, split=1), seen(kind, x_TI.flip(0)), seen(kind, -x_TI)):
        torch.testing.assert_close(read(other), whole, rtol=1e-5, atol=1e-5)


def test_more_tokens_after_a_reading_count_too():
    x_TI = inputs(GRAM_BLOCK + 8)
    stat = seen(InputGram, x_TI[:20])
    assert stat.gram_II.shape == (GRAM_BLOCK + 8, GRAM_BLOCK + 8)
    early = stat.root_II(0.01)
    stat.update(x_TI[20:])
    torch.testing.assert_close(stat.gram_II, x_TI.T @ x_TI, rtol=1e-5, atol=1e-4)
    assert not torch.equal(stat.root_II(0.01), early)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_root_is_upper_triangular_and_gives_the_damped_gram(width):
    x_TI = inputs(width, tokens=2 * width, dtype=torch.float64)
    root_II = seen(InputGram, x_TI, split=100).root_II(0.1)
    gram_II = x_TI.T @ x_TI
    torch.testing.assert_close(
        root_II @ root_II.T, gram_II + 0.1 * gram_II.diagonal().mean() * torch.eye(width).double()
    )
    assert torch.equal(root_II, root_II.triu())
    inverse_II = torch.linalg.inv(root_II @ root_II.T)
    torch.testing.assert_close(torch.linalg.inv(root_II), torch.linalg.cholesky(inverse_II, upper=True))


def test_the_root_is_computed_once_for_each_damp():
    stat = seen(InputGram, inputs())
    assert stat.root_II(0.01) is stat.root_II(0.01)
    assert stat.root_II(0.02) is not stat.root_II(0.01)


def test_a_dead_input_takes_no_part_in_the_root():
    x_TI = inputs(8)
    with_dead_TI = torch.cat([x_TI[:, :3], torch.zeros(50, 2), x_TI[:, 3:]], dim=1)
    stat, alive = seen(InputGram, with_dead_TI), [0, 1, 2, 5, 6, 7, 8, 9]
    assert stat.dead_I.tolist() == [index not in alive for index in range(10)]
    torch.testing.assert_close(stat.root_II(0.01)[alive][:, alive], seen(InputGram, x_TI).root_II(0.01))


def test_inputs_that_are_all_dead_have_no_root():
    with pytest.raises(ValueError, match=r"^calibration: all 4 inputs were zero in all 5 tokens"):
        seen(InputGram, torch.zeros(5, 4)).root_II(0.01)


def test_a_singular_gram_says_what_to_do():
    with pytest.raises(ValueError, match=r"raise damp"):
        seen(InputGram, torch.ones(3, 8)).root_II(0)


@pytest.mark.parametrize("width", WIDTHS)
def test_output_energy(width):
    x_TI, weight_OI = inputs(width), inputs(width, tokens=6, seed=1)
    exact = (weight_OI.double() @ x_TI.double().T).square().sum().item()
    assert seen(InputGram, x_TI).output_energy(weight_OI).item() == pytest.approx(exact, rel=1e-5)
    diagonal = (weight_OI.double().square() @ x_TI.double().square().sum(0)).sum().item()
    assert seen(InputNorm, x_TI).output_energy(weight_OI).item() == pytest.approx(diagonal, rel=1e-5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_and_infinity_are_told_when_read(bad):
    x_TI = inputs()
    x_TI[3, 3] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        seen(InputNorm, x_TI).norm_I()
    with pytest.raises(ValueError, match="NaN or infinity"):
        _ = seen(InputGram, x_TI).gram_II


def test_no_tokens_and_wrong_shapes_are_told():
    with pytest.raises(ValueError, match="no tokens"):
        InputNorm(8, "cpu").norm_I()
    with pytest.raises(ValueError, match=r"\(tokens, 8\) is needed"):
        InputGram(8, "cpu").update(torch.ones(3, 7))
    with pytest.raises(ValueError, match=r"shape \(2, 3, 8\)"):
        InputNorm(8, "cpu").update(torch.ones(2, 3, 8))
