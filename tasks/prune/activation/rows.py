"""Rows of the tables that tell how the inputs of a model were made sparse, and what computes on them."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SparseInputRow:
    """sparse_inputs: one row per input that linears share, of each block, per run; what is measured is of new text."""

    block: int  # its number, from 0
    linears: str  # that read it, such as mlp.gate_proj+mlp.up_proj
    in_features: int  # width of the input
    out_features: int  # of all of them
    asked: float  # the share of a token's inputs to drop: the pattern's, or its own where a block's was divided
    dropped: float  # the share that was dropped of all tokens of the evaluation
    energy_kept: float  # sum of the squares of the inputs that were kept / of all
    threshold: float | None  # of a selection that has one


@dataclass(frozen=True, kw_only=True)
class LearnedRow:
    """learned: one row per block per run whose mitigations learn.

    Errors are relative, ||sparse - dense||^2 / ||dense||^2 of the block's output on the held-out windows.
    """

    block: int  # its number, from 0
    steps: int  # that it was trained for
    error_from: float  # without what is learned
    error_to: float  # with the best that was learned: in the model where it was kept
    seconds: float  # of the training
    loss_from: float | None = None  # nats per token of the whole model on those windows, before any block was trained
    loss_to: float | None = None  # after all were
    kept: bool = True  # what was learned, of all blocks: not where that loss did not fall


@dataclass(frozen=True, kw_only=True)
class ProductRow:
    """products: one row per shape of a product and number of tokens per run that was timed with sparse inputs."""

    in_features: int  # width of the input
    out_features: int  # of all linears that share the input
    dropped: float  # share of the inputs, rounded to 5 %
    dtype: str  # of weights and inputs
    product: str  # that reads kept rows alone: compiled, gathered (both on a CPU) or triton
    threads: int  # of torch
    tokens: int  # at once
    dense_ms: float  # of the dense product, the least of several
    sparse_ms: float  # of the product that reads kept rows alone
    sparse: bool  # which of them is used
