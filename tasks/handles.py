"""What passes between stages, and the rows of the tables: frozen values of plain types, so that they travel as JSON.

A handle names content: `hash` is the SHA-256 that `tasks.record.home` (of a user's model `tasks.model.load`) computed
over `folder`, and who opens it checks it. `folder` is absolute for what a user brought, else in the artifacts folder.
Each row type is the schema of a Parquet table, whose grain its docstring states; `Context` stands before every row.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model in a folder: `kind` is "transformers" (AutoModelForCausalLM loads it), "per_layer" (it does, and runs the
    modeling file of tasks.prune.structure.export), "packed" or "sparse_inputs" (loaded upon the folder `dense`)."""

    hash: str
    folder: str
    kind: str = "transformers"
    dense: str | None = None


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Token ids, `ids` in `folder/tokens.safetensors`: (windows, window) for calibration, 1-D for evaluation."""

    hash: str
    folder: str
    source: str
    dataset_hash: str  # of the texts alone: equal for every tokenizer
    documents: int
    text_bytes: int  # UTF-8 bytes of the texts that the ids encode
    tokens: int
    windows: int
    window: int
    learned: int | None = None  # of a text to learn from; where these are not all, `labels` lies beside the ids
    scored_bytes: int = 0  # of a text for evaluation: UTF-8 bytes of the tokens that are scored


@dataclass(frozen=True, kw_only=True)
class Context:
    """What every row carries: where it comes from."""

    run: str  # its id: the flow, when it began, and some letters drawn at random
    flow: str  # oneshot | slice | activation | ...: the command that made it
    model: str  # its folder's name, or builtin
    model_hash: str  # SHA-256 of the dense model's files
    dataset_hash: str  # SHA-256 of the texts that the row is about
    method: str  # what chose: a pruner, importance or selection, and what was done beside it
    pattern: str  # 2:4, 50%, or -30% of a cut
    seed: int  # of everything that is drawn, such as the calibration windows
    versions: str  # JSON: package -> version
    machine: str  # JSON: processor, cores, memory, GPU
    recorded_at: str  # ISO 8601, UTC


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """runs: one row per run."""

    command: str  # what resumes or repeats it
    parameters: str  # JSON of the flow's parameters
    sweep: str | None  # id of the sweep it is a point of
    sweep_points: int | None = None  # runs that its sweep is to have; unknown in older rows
    seconds: float  # from its first stage to its last
    checkpoint: str  # hash of the pruned checkpoint
    registered_version: str | None  # in MLflow: name/version


@dataclass(frozen=True, kw_only=True)
class StageRow:
    """stages: one row per stage per run."""

    stage: str  # its name within the run
    seconds: float  # that it took, or that finding its result took
    cached: bool  # its result was there from an earlier run
    code: str | None = None  # SHA-256 of what it computes with (tasks.caching.code_of); unknown in older rows
    peak_bytes: int | None = None  # of the process while it was computed; None where found again, or not on Linux


@dataclass(frozen=True, kw_only=True)
class DatasetRow:
    """datasets: one row per tokenised text per run."""

    role: str  # calibration | recovery | evaluation
    source: str  # its registered name or its file
    documents: int  # read
    text_bytes: int  # UTF-8 bytes of the texts
    tokens: int  # in all windows
    windows: int  # drawn, or laid one behind the other
    window: int  # tokens of one
    learned: int | None = None  # of the tokens of a text for recovery; the others are only read


@dataclass(frozen=True, kw_only=True)
class BlockRow:
    """blocks: one row per pruned block per run."""

    block: int  # its number, from 0
    sparsity: float  # zeros counted in the block's pruned linears, 0 to 1
    error: float | None  # ||pruned - unpruned||^2 / ||unpruned||^2 of its output on the first calibration batch
    seconds: float  # selection and update, and the forward passes
    tuned_steps: int | None = None  # of the block's reconstruction
    tuned_seconds: float | None = None  # that the steps took
    tuned_from: float | None = None  # ||block - dense||^2 / ||dense||^2 on the calibration batches that were held out
    tuned_to: float | None = None  # and behind the last step, or the best that was kept


@dataclass(frozen=True, kw_only=True)
class LinearRow:
    """linears: one row per pruned linear per run."""

    block: int  # its number, from 0
    linear: str  # the name inside its block, such as self_attn.q_proj
    out_features: int  # rows of its weight
    in_features: int  # columns of its weight
    zeros: int  # in its weight
    sparsity: float  # zeros / (out_features * in_features)
    error: float | None  # relative output error on the calibration inputs: tr(D G D') / tr(W G W'), D the change of W
    error_from: str | None = None  # G: "gram" of the inputs, exact; "norms", its diagonal, an estimate; None: unseen
    sweep_error: float | None = None  # of SparseGPT's sweep on the same keep, beside a refit without drift correction
    damp: float | None = None  # share of mean(diag G) on the diagonal of G, by who set the weights or else chose them
    rank: int | None = None  # of the factors beside the sparse part, which `zeros` then counts
    order: str | None = None  # of the inputs under n:m: "folded" into the linears before, "gather" stored; None: as is
    seconds: float  # selection and update, without the forward passes


@dataclass(frozen=True, kw_only=True)
class UnitRow:
    """units: one row per unit per importance per run."""

    importance: str  # its name in tasks.calibrate.importance.IMPORTANCES
    block: int  # its number, from 0
    kind: str  # head_groups | query_heads | channels | blocks | attention | ffn
    unit: int  # its number in the block; 0 for a block, attention or FFN as a whole
    score: float  # the higher, the more it matters; comparable within an importance and a kind
    loss_without: float | None  # nats per token, measured; None where the unit was not in the sample


@dataclass(frozen=True, kw_only=True)
class ImportanceRow:
    """importances: one row per importance and kind of unit per run, of the kinds that were measured."""

    importance: str  # its name in tasks.calibrate.importance.IMPORTANCES
    kind: str  # head_groups | query_heads | channels | blocks | attention | ffn
    units: int  # scored
    sampled: int  # measured
    correlation: float | None  # Spearman, scores with losses without the unit; None of fewer than 3, or all equal


@dataclass(frozen=True, kw_only=True)
class SliceRow:
    """slices: one row per block per run that cut units."""

    block: int  # its number once whole blocks were removed
    head_groups: int | None  # KV heads that are left; None where the block has no attention, or one in fused linears
    head_groups_before: int | None  # of the dense block
    query_heads: int | None  # that are left in all groups together
    query_heads_before: int | None  # of the dense block
    channels: int | None  # of the FFN
    channels_before: int | None  # of the dense block
    parameters: int  # of the block
    parameters_before: int  # of the dense block
    cut_error: float | None  # ||block - dense||^2 / ||dense||^2 of its output on windows held out, without its repair
    repaired_error: float | None  # and with all of it; both behind blocks that were repaired
    attention_gain: float | None  # fall of the reader's squared error by its repair, as a share of ||W x||^2
    ffn_gain: float | None  # as attention_gain, of down
    damp: float | None  # share of mean(diag G) that the repair had to add to the diagonal of G, the larger of two
    seconds: float  # that cutting and repairing it took


@dataclass(frozen=True, kw_only=True)
class RecoveryRow:
    """recoveries: one row per source of text per run that trained its pruned or cut model; losses are of all texts."""

    source: str  # its registered name or its file
    windows: int  # trained, a window each time it was shown
    distinct: int  # different ones; where that is less, the source was shown more than once
    read: int  # tokens in these windows
    learned: int  # of which so many were predicted and corrected
    steps: int  # of the whole training
    first_loss: float  # nats per token: the mean of the first tenth of the steps
    last_loss: float  # and of the last tenth


@dataclass(frozen=True, kw_only=True)
class EvaluationRow:
    """evaluations: one row per evaluated model per text per run."""

    subject: str  # dense | pruned
    checkpoint: str  # hash of what was loaded and evaluated
    source: str  # its registered name or its file; wikitext2, ptb, c4, with a file or without: as papers score it
    window: int  # tokens of one
    windows: int  # scored, none overlapping another
    tokens: int  # scored: all of a window but the first
    nll: float  # nats per token
    ppl: float  # exp(nll)
    bits_per_byte: float  # nll of the scored tokens in bits / their UTF-8 bytes: comparable between tokenizers
    parameters: int  # counted in the loaded model
    size_bytes: int  # of the weight files on disk
    memory_bytes: int  # of the loaded model's parameters and buffers
    kv_bytes: int | None = None  # of the cache of one sequence of 1000 tokens; unknown in older rows
    sparsity: float  # counted in the prunable linears: zeros; with sparse inputs, weights that a token has not needed


@dataclass(frozen=True, kw_only=True)
class SpeedRow:
    """speeds: one row per phase and subject per run."""

    subject: str  # dense | pruned
    phase: str  # prefill | decode
    batch: int  # sequences at once
    tokens: int  # tokens of one repetition
    repetitions: int  # of each model, in turns
    latency_ms: float  # median of one repetition
    tokens_per_s: float  # tokens * 1000 / latency_ms
    ratio: float  # speed against dense, > 1 is faster; 1.0 for dense itself
    ratio_low: float  # 95 % interval
    ratio_high: float  # its upper end
    verdict: str  # faster | slower | no gain | reference
    device: str  # cpu | cuda
    sparse_linears: int  # linears that ran as semi-structured (2:4) tensors; 0 on the CPU and of the dense model


@dataclass(frozen=True, kw_only=True)
class ArtifactRow:
    """artifacts: one row per stored artifact per run."""

    kind: str  # tokens | pruned | packed | ...: its folder in the store
    hash: str  # SHA-256 of its manifest
    folder: str  # relative to the artifacts folder
    size_bytes: int  # of all its files


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What the prune stage leaves: a checkpoint with zeros, and what happened to every block and linear."""

    checkpoint: Checkpoint
    blocks: tuple[BlockRow, ...]
    linears: tuple[LinearRow, ...]


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What the pack stage leaves: the same weights in fewer bytes; `formats` counts the tensors of each format."""

    checkpoint: Checkpoint
    formats: dict[str, int]
    size_bytes: int
    dense_bytes: int
