"""The door of the run-time controller: `encode_prompts`, `measure_episodes`, `train_policy`, `judge_policies` and
`answer_prompts`."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace

from transformers import PreTrainedTokenizerBase

from tasks.caching import cache_key
from tasks.data.prompts import Prompt, read_prompts, split_prompts
from tasks.handles import Checkpoint
from tasks.model.load import context_of, load_config, load_model, load_tokenizer
from tasks.progress import progress
from tasks.prune.structure.profile_folder import load_profiles
from tasks.prune.structure.profiles import Profiles
from tasks.prune.structure.results import BuiltProfiles
from tasks.record import home
from tasks.record.kept import Kept
from tasks.record.rows import load_rows, save_rows
from tasks.stage import open_folder, stage
from tasks.train_controller.act.actions import Action
from tasks.train_controller.judge.contenders import Contender, every_decision
from tasks.train_controller.judge.live import LiveAnswer, Named, Rival, answer_live, decision_times, live_decisions
from tasks.train_controller.judge.regret import BEST_FIXED, DENSE, best_fixed, summaries
from tasks.train_controller.learn.learner import Learner
from tasks.train_controller.learn.policy_folder import load_policy, save_policy
from tasks.train_controller.learn.reward import Reward
from tasks.train_controller.learn.table import Table, table_of
from tasks.train_controller.learn.trials import mean_reward
from tasks.train_controller.measure import episodes
from tasks.train_controller.measure.encoded import check_prompts, encode_prompt, load_prompts, of_split, save_prompts
from tasks.train_controller.measure.episodes import EncodedPrompt
from tasks.train_controller.results import Answered, Judged, Measured, Prompts, Trained
from tasks.train_controller.rows import ControllerRow, DecisionRow, EpisodeRow, LearningRow, PromptRow
from tasks.train_controller.runtime import Controller
from tasks.train_controller.state import HardwareReader


@stage(reads_input=True, retry_on=ConnectionError, timeout_seconds=3600)
def encode_prompts(source: str, identity: str, limit: int | None, seed: int, tokens: int, model: Checkpoint) -> Prompts:
    """Read prompts, split them by content, and encode them with the model's tokenizer; of references `tokens` at most.

    `identity` (tasks.data.prompts.identify_prompts) stands for the content of the source in the cache key.
    """
    folder = open_folder(model)
    encoded, read = read_encoded(source, load_tokenizer(folder), limit=limit, seed=seed, tokens=tokens)
    check_prompts(encoded, context_of(load_config(folder)), tokens)
    with home.store("prompts") as draft:
        save_prompts(draft.path, encoded)
    return Prompts(
        hash=draft.stored.hash,
        folder=draft.stored.folder,
        source=source,
        dataset_hash=hashlib.sha256("".join(prompt.id for prompt in read).encode()).hexdigest(),
        prompts=len(read),
        text_bytes=sum(len(prompt.text.encode()) for prompt in read),
        tokens=sum(prompt.ids_1T.shape[1] for prompt in encoded),
        longest=max(prompt.ids_1T.shape[1] for prompt in encoded),
    )


def read_encoded(
    source: str, tokenizer: PreTrainedTokenizerBase, *, limit: int | None, seed: int, tokens: int
) -> tuple[list[EncodedPrompt], list[Prompt]]:
    """The prompts of a source, those to train on first, for a model and as they were read. Errors as `read_prompts`."""
    encoded, read = [], []
    for split, prompts in zip(
        ("train", "test"), split_prompts(read_prompts(source, limit=limit), seed=seed), strict=True
    ):
        read += prompts
        encoded += [
            encode_prompt(
                tokenizer,
                prompt.text,
                prompt.reference,
                prompt=prompt.id,
                source=prompt.source,
                split=split,
                tokens=tokens,
            )
            for prompt in prompts
        ]
    return encoded, read


@stage()
def measure_episodes(
    model: Checkpoint,
    built: BuiltProfiles,
    prompts: Prompts,
    actions: tuple[Action, ...],
    tokens: int,
    repetitions: int,
    device: str,
    machine: str,
) -> Measured:
    """What each action does to each prompt: a table to learn from. `machine` is in the key: another measures anew.

    Whoever is stopped goes on behind the last prompt that was kept, and so does a run with more prompts.
    """
    asked, profiles = load_prompts(open_folder(prompts)), _opened(model, built, device)
    inputs = {"model": model, "built": built, "actions": actions, "tokens": tokens, "repetitions": repetitions}
    key = cache_key(measure_episodes.fn)(None, inputs | {"device": device, "machine": machine})
    known = Kept(home.root() / "episodes" / f"{key}.json")
    missing = [prompt for prompt in asked if prompt.prompt not in known]
    found = len(asked) - len(missing)
    with _keeping(known), progress("episodes", total=len(asked), done=found) as reach:
        for prompt, rows in episodes.measure_episodes(
            profiles,
            missing,
            actions,
            reader=HardwareReader(device),
            new_tokens=tokens,
            repetitions=repetitions,
            on_prompt=lambda done, _: reach(found + done),
        ):
            known[prompt.prompt] = {"prompt": asdict(prompt), "episodes": [asdict(row) for row in rows]}
    of_prompts = [replace(PromptRow(**known[prompt.prompt]["prompt"]), split=prompt.split) for prompt in asked]
    of_episodes = [EpisodeRow(**row) for prompt in asked for row in known[prompt.prompt]["episodes"]]
    with home.store("episodes") as draft:
        save_rows(draft.path, {"prompts": of_prompts, "episodes": of_episodes})
    stored = draft.stored
    return Measured(hash=stored.hash, folder=stored.folder, size_bytes=stored.size_bytes)


@stage()
def train_policy(
    measured: Measured,
    learner: Learner,
    name: str,
    without: tuple[str, ...],
    floor: float,
    seed: int,
    model_hash: str,
    profiles_hash: str,
) -> Trained:
    """What `learner`, called `name`, learns from the training prompts of the table, without these features."""
    train, test = (read_table(measured, split).without(without) for split in ("train", "test"))
    looks: list[LearningRow] = []
    policy = learner.learn(train, floor, seed, test, lambda look: looks.append(replace(look, learner=name)))
    with home.store("policies") as draft:
        save_policy(policy, draft.path, model_hash, profiles_hash)
    return Trained(
        hash=draft.stored.hash,
        folder=draft.stored.folder,
        size_bytes=draft.stored.size_bytes,
        name=name,
        floor=floor,
        seed=seed,
        reward=mean_reward(train, floor, learner.reward, policy.choices(train.state_PF)),
        looks=tuple(looks),
    )


@stage()
def answer_prompts(
    model: Checkpoint,
    built: BuiltProfiles,
    prompts: Prompts,
    measured: Measured,
    policies: tuple[Trained, ...],
    actions: tuple[Action, ...],
    target: float,
    tokens: int,
    repetitions: int,
    device: str,
    machine: str,
) -> Answered:
    """The test prompts, answered by the controller: dense, with the best fixed action, and as each policy chooses.

    `target`: the share of the training prompts on which the best fixed action may break the floor.
    """
    asked = of_split(load_prompts(open_folder(prompts)), "test")
    profiles, tokenizer, train = (
        _opened(model, built, device),
        load_tokenizer(open_folder(model)),
        read_table(measured, "train"),
    )
    reader = HardwareReader(device)
    whole = Controller(profiles, tokenizer, actions, reader=reader)
    rivals = []
    for each in policies:
        policy = load_policy(open_folder(each), model_hash=model.hash, profiles_hash=built.hash)
        named = Named(policy=each.name, floor=each.floor, seed=each.seed)
        rivals.append(Rival(named=named, controller=Controller(profiles, tokenizer, actions, policy, reader=reader)))
        fixed = replace(named, policy=BEST_FIXED, seed=0)
        rivals.append(Rival(named=fixed, controller=whole, action=actions[best_fixed(train, each.floor, target)]))
    dense = Rival(named=Named(policy=DENSE, floor=0.0, seed=0), controller=whole, action=actions[0])
    again = tuple(each.floor for each in policies)
    answers: list[LiveAnswer] = []
    with progress("live answers", total=len(asked)) as reach:
        for done, of_prompt in enumerate(
            answer_live(dense, rivals, asked, tokens=tokens, repetitions=repetitions, again=again), start=1
        ):
            answers += of_prompt
            reach(done)
    with home.store("answers") as draft:
        save_rows(draft.path, {"answers": answers})
    return Answered(hash=draft.stored.hash, folder=draft.stored.folder)


@stage()
def judge_policies(
    measured: Measured, trained: tuple[Trained, ...], answered: Answered | None, reward: Reward, target: float
) -> Judged:
    """What every policy chose for the test prompts, beside those that learn nothing, and its worth; also live."""
    train, test = (read_table(measured, split) for split in ("train", "test"))
    learned = [
        Contender(name=each.name, floor=each.floor, seed=each.seed, policy=load_policy(open_folder(each)))
        for each in trained
    ]
    answers = [] if answered is None else load_rows(open_folder(answered), "answers", LiveAnswer)
    made = every_decision(train, test, learned, reward, target) + live_decisions(answers, test, reward)
    with home.store("decisions") as draft:
        save_rows(draft.path, {"decisions": made, "controllers": summaries(made, decision_times(answers))})
    return Judged(hash=draft.stored.hash, folder=draft.stored.folder)


def read_judged(judged: Judged) -> tuple[list[DecisionRow], list[ControllerRow]]:
    """The rows of what was judged."""
    folder = open_folder(judged)
    return load_rows(folder, "decisions", DecisionRow), load_rows(folder, "controllers", ControllerRow)


def read_table(measured: Measured, split: str) -> Table:
    """What was measured of the prompts of a split."""
    prompts, rows = read_rows(measured)
    return table_of(prompts, rows, split)


def read_rows(measured: Measured) -> tuple[list[PromptRow], list[EpisodeRow]]:
    """The rows of the table."""
    folder = open_folder(measured)
    return load_rows(folder, "prompts", PromptRow), load_rows(folder, "episodes", EpisodeRow)


@contextmanager
def _keeping(known: Kept) -> Iterator[None]:
    """Whatever ends the work, what it has measured is kept."""
    try:
        yield
    finally:
        known.keep()


def _opened(model: Checkpoint, built: BuiltProfiles, device: str) -> Profiles:
    return load_profiles(load_model(open_folder(model), device), model.hash, open_folder(built))
