"""The KV budgets by name, and how they are read from words."""

import re
from dataclasses import fields

from tasks.prune.cache.budget import KVBudget
from tasks.prune.cache.key_norm import KeyNorm
from tasks.prune.cache.snapkv import SnapKV
from tasks.prune.cache.window import SlidingWindow

KV_BUDGETS: dict[str, type[KVBudget]] = {"window": SlidingWindow, "snapkv": SnapKV, "key_norm": KeyNorm}
FORMS = "window:0.5, snapkv:0.25,window=32,pool=7 or key_norm:0.5, each with a ratio above 0 and at most 1"


def parse_budget(text: str) -> KVBudget:
    """`window:0.5`, `window:0.5,sinks=8`, `snapkv:0.25`, `key_norm:0.5`. ValueError in one line that lists them."""
    name, _, rest = text.strip().partition(":")
    ratio, *named = rest.split(",")
    options = dict(each.partition("=")[::2] for each in named)
    known = {each.name for each in fields(KV_BUDGETS[name])} - {"ratio"} if name in KV_BUDGETS else set()
    whole = all(re.fullmatch(r"\d+", value) for value in options.values()) and len(options) == len(named)
    if name not in KV_BUDGETS or not options.keys() <= known or not whole or not re.fullmatch(r"\d*\.?\d+", ratio):
        raise ValueError(f"actions: {text!r} given, valid is {FORMS}")
    try:
        return KV_BUDGETS[name](ratio=float(ratio), **{option: int(value) for option, value in options.items()})
    except ValueError as error:
        raise ValueError(f"actions: {text!r} given ({error}), valid is {FORMS}") from error
