"""The controller at work: per prompt as much of the model as it needs, and the answer, piece by piece.

The uncut model reads the prompt once. From what it and the machine then look like an action is chosen; its profile is
put in force, the prompt's cache is fitted to it, and the rest is written with it.

Axes: F features.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Self

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tasks.model.folder import fingerprint
from tasks.model.load import check_tokenizer, context_of, load_model, load_tokenizer, vocabulary_of
from tasks.prune.structure.profile_folder import FILES, load_profiles
from tasks.prune.structure.profiles import NONE, Profiles
from tasks.train_controller.act.actions import Action, parse_actions
from tasks.train_controller.act.answers import Answer, Decision, Reader
from tasks.train_controller.act.decode import Sampling, Timed, decode
from tasks.train_controller.act.fitting import Fitted, check_actions, check_fits, in_force
from tasks.train_controller.act.pieces import Pieces
from tasks.train_controller.act.prefill import Prefill, read_for
from tasks.train_controller.act.prompt_features import describe_prompt
from tasks.train_controller.learn.policy import Policy
from tasks.train_controller.learn.policy_folder import load_policy
from tasks.train_controller.observation import FEATURES, Observation


class Controller:
    """One resident model, one prompt at a time: who has several callers lets them queue."""

    def __init__(
        self,
        profiles: Profiles,
        tokenizer: PreTrainedTokenizerBase,
        actions: Sequence[Action],
        policy: Policy | None = None,
        *,
        reader: Reader,
    ) -> None:
        """`policy`: chooses among `actions`, the first of which is "none"; None: it is always "none".

        Raises ValueError for actions as `measure_episodes` does, and for a policy of other actions or features.
        """
        check_actions(actions, profiles)
        names = tuple(str(action) for action in actions)
        if policy is not None and policy.actions != names:
            raise ValueError(f"policy: it chooses among {', '.join(policy.actions)}, valid is {', '.join(names)}")
        if policy is not None and policy.features != FEATURES:
            raise ValueError(f"policy: it sees {', '.join(policy.features)}, valid is {', '.join(FEATURES)}")
        self.profiles, self.tokenizer, self.policy, self.reader = profiles, tokenizer, policy, reader
        self.actions = tuple(actions)
        self.model: PreTrainedModel = profiles.model.eval()
        self.context = context_of(self.model.config)
        self.stop_ids = _stop_ids(self.model, tokenizer)
        self._open = False
        profiles.switch(NONE)

    @classmethod
    def load(
        cls,
        model_folder: Path,
        profiles_folder: Path | None = None,
        policy_folder: Path | None = None,
        *,
        device: str = "cpu",
    ) -> Self:
        """From folders; without profiles there is "none" alone.

        Raises ValueError for a model that cannot be loaded, profiles of another model, and a policy that was learned
        with another model, other profiles or other actions.
        """
        from tasks.train_controller.state import HardwareReader  # with another reader psutil need not be there

        model_hash = fingerprint(model_folder)
        model, tokenizer = load_model(model_folder, device), load_tokenizer(model_folder)
        check_tokenizer(tokenizer, model.config)
        profiles, profiles_hash = Profiles(model), None
        if profiles_folder is not None:
            profiles, profiles_hash = load_profiles(model, model_hash, profiles_folder), hash_profiles(profiles_folder)
        policy = None
        if policy_folder is not None:
            policy = load_policy(policy_folder, model_hash=model_hash, profiles_hash=profiles_hash)
        names = profiles.names[1:]
        actions = parse_actions(names if policy is None else policy.actions, names)
        return cls(profiles, tokenizer, actions, policy, reader=HardwareReader(device))

    def decide(self, read: Prefill) -> Decision:
        """What the policy chooses for a prompt that was read, and by what; nothing is put in force."""
        return self._decide(read, None)

    def answer(self, prompt: str | Sequence[int], **how: Any) -> Answer:
        """As `stream`, which has the same words, all at once."""
        *_, answer = self.stream(prompt, **how)
        assert isinstance(answer, Answer)  # it comes last
        return answer

    def stream(
        self,
        prompt: str | Sequence[int],
        *,
        new_tokens: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        stop: str | Sequence[str] = (),
        ignore_stops: bool = False,
        action: Action | None = None,
    ) -> Iterator[str | Answer]:
        """The answer in pieces of text, which joined are all of it, and last the `Answer`.

        Each token gives a piece as soon as it is there, "" where it is no text yet, so that nobody who wants to stop
        early has to wait for more than one.

        `prompt`: a text, or token ids, which are taken as they are. `new_tokens`: at most so many, and no more than fit
        the model's context; fewer where a token that ends texts comes (not with `ignore_stops`), or a text of `stop`;
        neither is in the answer. `temperature`, `top_p`, `seed`: as of tasks.train_controller.act.decode.Sampling.
        `action`: in place of what the policy would choose.

        Whoever stops early closes the iterator; then, as after the last piece, "none" is in force.

        Raises ValueError, at the call, for a prompt that is empty, no Unicode, as long as the context, or of ids that
        the model does not know, and for another word out of bounds; RuntimeError, at the first piece, while another
        stream is open.
        """
        if new_tokens < 1:
            raise ValueError(f"new_tokens: {new_tokens} given, valid is 1 or more")
        if action is not None:
            check_fits(self.profiles, action)
        sampling = Sampling(temperature=temperature, top_p=top_p, seed=seed)
        ids = self._encode(prompt)
        room = new_tokens if self.context is None else self.context - len(ids)
        write = partial(decode, new_tokens=min(new_tokens, room), sampling=sampling)
        pieces = Pieces(self.tokenizer, ids, stop=stop, stop_ids=() if ignore_stops else self.stop_ids)
        return self._write(ids, action, write, pieces)

    def _encode(self, prompt: str | Sequence[int]) -> list[int]:
        if isinstance(prompt, str):
            _check_unicode(prompt)
        ids: list[int] = self.tokenizer(prompt, verbose=False)["input_ids"] if isinstance(prompt, str) else [*prompt]
        if not prompt or not ids:
            raise ValueError("prompt: an empty one given, valid is at least one token")
        if self.context is not None and len(ids) >= self.context:
            raise ValueError(f"prompt: {len(ids)} tokens given, valid is at most {self.context - 1}")
        vocabulary = vocabulary_of(self.model.config)
        if not 0 <= min(ids) <= max(ids) < vocabulary:
            raise ValueError(f"prompt: ids from {min(ids)} to {max(ids)} given, valid is 0 to {vocabulary - 1}")
        return ids

    def _write(
        self, ids: list[int], action: Action | None, write: Callable[..., Iterator[int]], pieces: Pieces
    ) -> Iterator[str | Answer]:
        with self._alone():
            read = read_for(self.profiles, torch.tensor([ids]), self.actions if action is None else [action])
            decision = self._decide(read, action)
            with in_force(self.profiles, read, decision.action) as fitted:
                tokens = Timed(write(fitted.model, fitted.cache, read.logits_LV[-1]))
                for token in tokens:
                    yield pieces.add(token)
                    if pieces.stopped:
                        break
            if piece := pieces.rest():
                yield piece
        yield _answer_of(read, decision, fitted, tokens, pieces)

    @torch.inference_mode()
    def _decide(self, read: Prefill, action: Action | None) -> Decision:
        started = perf_counter()
        observation = Observation(hardware=self.reader.read(), prompt=describe_prompt(read))
        scores, named = dict[str, float](), action is not None
        if action is None and self.policy is not None:
            score_A = self.policy.scores_A(observation.as_vector()).tolist()
            action = self.actions[score_A.index(max(score_A))]  # as Policy.choose has it
            scores = dict(zip(self.policy.actions, score_A, strict=True))
        return Decision(
            action=action or self.actions[0],
            observation=observation,
            scores=scores,
            floor=self.policy.floor if self.policy is not None and scores else None,
            named=named,
            decision_ms=1000 * (perf_counter() - started) if scores else 0.0,
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._open:
            raise RuntimeError("stream: another one is open, valid is to read it to its end or to close it first")
        self._open = True
        try:
            yield
        finally:
            self._open = False


def hash_profiles(folder: Path) -> str:
    """SHA-256, in hex, over the profiles of a folder: of a stored one the hash by which it was stored."""
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (FILES.index, FILES.tensors)}
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode()).hexdigest()


def _check_unicode(prompt: str) -> None:
    """Bytes of a command line that are not UTF-8 are lone surrogates in Python."""
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        given = f"{prompt[error.start]!r} as its character {error.start}"
        raise ValueError(f"prompt: {given} given, valid is Unicode text") from error


def _stop_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that end a text, by the model's settings and by the tokenizer."""
    settings = model.generation_config
    own = settings.eos_token_id if settings is not None else None
    several = own if isinstance(own, list) else [own]
    return frozenset(token for token in (*several, tokenizer.eos_token_id) if token is not None)


def _answer_of(read: Prefill, decision: Decision, fitted: Fitted, tokens: Timed, pieces: Pieces) -> Answer:
    whole_ms = read.prefill_ms + decision.decision_ms + fitted.switch_ms + 1000 * tokens.seconds
    return Answer(
        text=pieces.text,
        finish="stop" if pieces.stopped else "length",
        decision=decision,
        prompt_tokens=read.ids_1T.shape[1],
        tokens=tokens.count,
        prefill_ms=read.prefill_ms,
        switch_ms=fitted.switch_ms,
        decode_ms=1000 * tokens.seconds / tokens.count,
        tokens_per_s=1000 * tokens.count / whole_ms,
        cache_bytes=fitted.cache_bytes,
    )
