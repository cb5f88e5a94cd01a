"""The rows of the controller's tables: prompts, what each action did to each, how learners learned, what they chose."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PromptRow:
    """prompts: one row per prompt per run."""

    prompt: str  # first 16 hex digits of the SHA-256 of its text and its reference continuation
    source: str  # its registered name or its file
    split: str  # train | test
    tokens: int  # of the prompt
    reference_tokens: int  # of the continuation it is judged by
    features: str  # JSON: feature of tasks.train_controller.observation -> its value, 0 to 1
    ppl: float  # of the prompt under the uncut model; of a long one that of its last tokens


@dataclass(frozen=True, kw_only=True)
class EpisodeRow:
    """episodes: one row per prompt and action per run: the measured table from which policies learn."""

    prompt: str  # as in prompts
    action: str  # as tasks.train_controller.act.actions.Action writes itself
    nll: float  # of the reference continuation, nats per token, teacher-forced
    dense_nll: float  # the same of the uncut model
    rise: float  # exp(nll - dense_nll) - 1: the share by which the perplexity of the reference grows
    kl: float  # KL(dense, this), nats per token, mean over the reference continuation
    prefill_ms: float  # the uncut model reads the prompt; shared by all actions
    switch_ms: float  # to put the profile in force and to fit the prompt's cache to it
    decode_ms: float  # per token, median of the repetitions
    tokens_per_s: float  # of the whole answer: tokens / (prefill + switch + all decoding)
    ratio: float  # tokens_per_s over that of "none" on the same prompt, timed beside it; 1.0 for "none"
    cache_bytes: int  # of the prompt's cache as this action keeps it
    memory_bytes: int  # of the parameters in force
    state: str  # JSON: the hardware as it was observed before this timing


@dataclass(frozen=True, kw_only=True)
class LearningRow:
    """learning: one row per look at a learner while it learns, per floor and seed per run."""

    learner: str  # dqn | bandit
    floor: float  # largest rise that is allowed
    learner_seed: int  # the seed of the context is that of the texts and the split
    step: int  # from 0
    epsilon: float | None  # share of actions that are drawn; None where none are
    loss: float | None  # Huber loss of the temporal difference; None where none is computed
    reward: float  # mean over the training prompts if it now chose greedily
    held_out_reward: float | None  # and over the test prompts; seen, not learned from


@dataclass(frozen=True, kw_only=True)
class DecisionRow:
    """decisions: one row per test prompt, policy, floor, seed and action that was taken per run."""

    policy: str  # a learner, or oracle | best fixed | random | dense, or a learner without some features
    floor: float  # largest rise that is allowed
    learner_seed: int  # the seed of the context is that of the texts and the split
    prompt: str  # as in prompts
    action: str  # that it took, as in episodes
    ratio: float  # speed against "none"
    rise: float  # share by which the perplexity of the reference grows
    reward: float  # of the weights that the run was given
    regret: float  # reward of the oracle's action less that of this one
    live: bool  # measured by really answering the prompt, not looked up in the episodes
    share: float  # of its answers that took this action: below 1 where a live policy took several, as the machine was
    state: str | None  # JSON: all that was seen before a live answer; of others it is that of prompts


@dataclass(frozen=True, kw_only=True)
class ControllerRow:
    """controllers: one row per policy and floor per run, over all its seeds and test prompts."""

    policy: str  # as in decisions
    floor: float  # largest rise that is allowed
    live: bool  # as in decisions
    seeds: int  # of the learner
    prompts: int  # held out, that it decided on
    ratio: float  # mean speed against "none"
    ratio_low: float  # 95 % interval
    ratio_high: float  # its upper end
    gain: float  # mean of the ratio less that of the best fixed action, prompt by prompt
    gain_low: float  # 95 % interval, prompts drawn in pairs
    gain_high: float  # its upper end
    violations: float  # share of the prompts whose rise exceeds the floor
    mean_rise: float  # over all prompts and seeds
    regret: float  # mean, as in decisions
    oracle_share: float | None  # gain / the oracle's gain; None where that interval reaches 0
    decision_ms: float | None  # median time to choose, beyond the prefill
