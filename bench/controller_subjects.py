"""What bench.controller asks of each model: prompts of two kinds of text, and cuts that suit a model of its size.

In a model of six blocks each matters: without one of them the perplexity of stories3M is more than four times as high,
without a tenth of the channels it is a fifth higher. So the cuts are mild, and one whole block shows what speed costs.
Half of the prompts are like the text that the model was trained on and half are not, so that they differ in what a cut
costs them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from bench.models import DATA
from bench.texts import MODELS, Text
from tasks.calibrate.importance import IMPORTANCES
from tasks.data.prompts import read_prompts, split_prompts
from tasks.model.load import context_of, load_config, load_tokenizer
from tasks.prune.structure.named_cuts import UNITS, parse_cuts
from tasks.prune.structure.profile_repair import repaired_profile
from tasks.prune.structure.profiles import NONE, Profiles
from tasks.prune.structure.rises import measure_rises
from tasks.train_controller.act.actions import Action, parse_actions
from tasks.train_controller.learn.learner import Learner
from tasks.train_controller.learn.learners import reweighted
from tasks.train_controller.measure.encoded import encode_prompt
from tasks.train_controller.measure.episodes import EncodedPrompt

OTHER_PROMPTS = {  # unlike what the model was trained on
    "stories260K": DATA / "prompts" / "dolly_sample.jsonl",
    "stories3M": DATA / "prompts" / "dolly_sample.jsonl",
    "builtin": DATA / "prompts" / "mbpp.jsonl",
}
ACTIONS = (  # beside "none"
    "ffn4,ffn10,heads10,heads10@snapkv:0.75,window=8,none@snapkv:0.75,window=8,none@window:0.75,depth17"
)
REFERENCE, LEAST_REFERENCE = 96, 16  # tokens by which an action is judged: with few, chance decides
TEST_SHARE = 0.3
ROUND_TO = 16  # channels


@dataclass(frozen=True, kw_only=True)
class Again(Action):
    """ "none" once more under another name: it can be no faster than "none"."""

    def __str__(self) -> str:
        return AGAIN


AGAIN = "none again"


def prompts_of(name: str, limit: int, tokens: int) -> list[EncodedPrompt]:
    """As many of both kinds, in an order that is mixed, so that any first part of them has both splits.

    Those that leave no room for an answer of `tokens` or for a reference, or whose reference is short, are left out.
    """
    folder, _, stories = MODELS[name]
    tokenizer, context = load_tokenizer(folder), context_of(load_config(folder))
    parts = split_prompts(read_prompts(f"{stories}+{OTHER_PROMPTS[name]}", limit=limit), TEST_SHARE)
    encoded = [
        encode_prompt(
            tokenizer, each.text, each.reference, prompt=each.id, source=each.source, split=split, tokens=REFERENCE
        )
        for split, prompts in zip(("train", "test"), parts, strict=True)
        for each in prompts
    ]
    room = (context or 1 << 30) - max(tokens, REFERENCE)
    fitting = [
        each for each in encoded if each.ids_1T.shape[1] <= room and each.reference_1R.shape[1] >= LEAST_REFERENCE
    ]
    return sorted(fitting, key=lambda each: each.prompt)  # a hash


def actions_of(words: Sequence[str]) -> tuple[Action, ...]:
    """ "none", the same again, and those that are named."""
    named = parse_actions(words, sorted({word.partition("@")[0] for word in words}))
    return (named[0], Again(), *named[1:])


def profiles_of(model: PreTrainedModel, text: Text, actions: Sequence[Action]) -> Profiles:
    """The cuts that the actions name, each repaired: by Wanda's scores of units and by the influence of blocks."""
    cuts = parse_cuts(",".join(dict.fromkeys(each.profile for each in actions if each.profile != NONE)))
    batches = text.batches(0)
    of_units = IMPORTANCES["wanda_sp"]().score(model, batches)
    of_blocks = IMPORTANCES["influence"]().score(model, batches)
    scores = [units | block for units, block in zip(of_units, of_blocks, strict=True)]
    heads = any(cut.kind == "heads" for cut in cuts)
    rises = measure_rises(model, scores, UNITS["heads"], batches) if heads else None
    profiles = Profiles(model)
    for cut in cuts:
        profile = cut.profile(model, scores, rises=rises, round_to=ROUND_TO)
        profiles.add(repaired_profile(model, profile, batches) if profile.kept else profile)
    return profiles


def prompt_source(name: str) -> str:
    """The prompts of a model in words."""
    return f"{Path(MODELS[name][2]).name} and {OTHER_PROMPTS[name].name}"


def weights_of(learner: Learner) -> dict[str, Learner]:
    """The learner with every reward of the sweep but its own, by the name of its policies."""
    return {said: other for said, other in reweighted(learner).items() if other.reward != learner.reward}
