"""Named cuts of one resident model, between which it is switched in place.

Each profile is built once: the linears it cuts exist beside those of the model, everything else is the model's own. So
a switch only changes what the modules refer to; it copies and computes nothing, and is exact and reversible.

"none" is the model as it was given. Profiles are cuts of that model: their block numbers are its own.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tasks.model.anatomy import find_blocks, linears_of
from tasks.model.units import units_of
from tasks.prune.structure.depth import slice_blocks
from tasks.prune.structure.logits import digest_of_logits
from tasks.prune.structure.slice import Slice
from tasks.prune.structure.width import Kept, slice_units

NONE = "none"


@dataclass(frozen=True, kw_only=True, eq=False)
class Profile:
    """A cut: `kept` units as `slice_units` takes them, `blocks`, `attention` and `ffn` removed as by `slice_blocks`.

    `weights`: values other than those of the plain cut, of linears that `kept` makes smaller (a repaired o or down), by
    their names in the uncut model, `model.layers.0.mlp.down_proj.weight`.
    """

    name: str
    kept: Kept = field(default_factory=dict)
    blocks: Sequence[int] = ()
    attention: Sequence[int] = ()
    ffn: Sequence[int] = ()
    weights: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for block, kinds in self.kept.items():
            gone = set(kinds) if block in self.blocks else set()
            gone |= kinds.keys() & ({"head_groups", "query_heads"} if block in self.attention else set())
            gone |= kinds.keys() & ({"channels"} if block in self.ffn else set())
            if gone:
                raise ValueError(f"kept: {min(gone)} of block {block} given, which {self.name!r} removes whole")


class Profiles:
    """The profiles of `model`, which has one of them in force at any time: at first "none".

    What else cuts the model meanwhile has to be undone before the next switch; RuntimeError where it was not.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.active = NONE
        self._units = units_of(model)
        self._built: dict[str, _Built] = {}
        self._signatures = {NONE: _signature(model)}

    @property
    def names(self) -> list[str]:
        """That of the model itself, then the profiles in the order they were added."""
        return [NONE, *self._built]

    def add(self, profile: Profile) -> None:
        """Build a profile; the one in force stays. One forward of a few tokens.

        Raises ValueError, and changes nothing, for a name that is taken, a cut that `slice_units` or `slice_blocks`
        refuses, weights of linears that it does not cut or of other shapes, and a model that another profile is too.
        """
        if profile.name in self.names:
            raise ValueError(f"profile: {profile.name!r} given again, valid is a name other than {_listed(self.names)}")
        with self.using(NONE):
            built = self._build(profile)
            try:
                signature = _signature(self.model)
            finally:
                built.restore()
        for name, other in self._signatures.items():
            if other == signature:
                raise ValueError(f"profile: {profile.name!r} given, which is the same model as {name!r}")
        self._built[profile.name], self._signatures[profile.name] = built, signature

    def switch(self, name: str) -> None:
        """Put a profile in force. Raises ValueError for one that is not there."""
        self._check(name)
        if self.active != name and self.active != NONE:
            self._built[self.active].restore()
        if self.active != name and name != NONE:
            self._built[name].apply()
        self.active = name

    @contextmanager
    def using(self, name: str) -> Iterator[PreTrainedModel]:
        """Within, a profile is in force; then the one from before again. Errors as `switch`.

        Linears that it cuts are its own: values written into them stay with the profile and touch no other.
        """
        before = self.active
        self.switch(name)
        try:
            yield self.model
        finally:
            self.switch(before)

    def cut(self, name: str) -> Profile:
        """A profile as it was added; `get` also tells what its weights are now, which takes time. Errors as `get`."""
        self._check(name)
        return Profile(name=NONE) if name == NONE else self._built[name].profile

    def get(self, name: str) -> Profile:
        """A profile as data, with all `weights` that its linears have now and a plain cut would not give them.

        Raises ValueError for one that is not there.
        """
        self._check(name)
        if name == NONE:
            return Profile(name=NONE)
        built = self._built[name]
        with self.using(NONE), slice_units(self.model, built.profile.kept, self._units):
            plain = dict(self.model.named_parameters())
            changed = {key: own for key, own in built.own.items() if not torch.equal(own, plain[key])}
        return replace(built.profile, weights={key: own.detach().clone() for key, own in changed.items()})

    def own_bytes(self, *names: str) -> int:
        """Bytes of memory that these profiles hold beyond the model; of all of them, where none is named.

        Counted over the storages of all parameters and buffers, each once.
        """
        with self.using(NONE):
            shared = _storages(self.model)
        own: dict[int, int] = {}
        for name in names or self.names:
            with self.using(name):
                own |= _storages(self.model)
        return sum(size for address, size in own.items() if address not in shared)

    def shared_bytes(self, name: str) -> int:
        """Bytes of the model's own memory that a profile uses too. Errors as `switch`."""
        with self.using(NONE):
            shared = _storages(self.model)
        with self.using(name):
            return sum(size for address, size in _storages(self.model).items() if address in shared)

    def _check(self, name: str) -> None:
        if name not in self.names:
            raise ValueError(f"profile: {name!r} given, valid is {_listed(self.names)}")

    def _build(self, profile: Profile) -> "_Built":
        """Cut the model, which is uncut: units first, since blocks are numbered anew without those that go."""
        shared = {id(parameter) for parameter in self.model.parameters()}
        width = slice_units(self.model, profile.kept, self._units)
        try:
            own = {name: each for name, each in self.model.named_parameters() if id(each) not in shared}
            _set_weights(own, profile)
            depth = slice_blocks(self.model, blocks=profile.blocks, attention=profile.attention, ffn=profile.ffn)
        except ValueError:
            width.restore()
            raise
        return _Built(profile, (width, depth), own)


@dataclass(frozen=True)
class _Built:
    """A profile in memory: `own` are the parameters of the linears it cuts, by their names in the uncut model."""

    profile: Profile
    slices: tuple[Slice, ...]
    own: dict[str, nn.Parameter]

    def apply(self) -> None:
        for each in self.slices:
            each.apply()

    def restore(self) -> None:
        for each in reversed(self.slices):
            each.restore()


def _set_weights(own: Mapping[str, nn.Parameter], profile: Profile) -> None:
    """Raises ValueError, before any value is set, for weights that do not fit."""
    for name, weight in profile.weights.items():
        if name not in own:
            raise ValueError(f"weights: {name} given, valid is a parameter of a linear that {profile.name!r} cuts")
        if weight.shape != own[name].shape or weight.dtype != own[name].dtype:
            given, valid = (f"{each.dtype} of shape {tuple(each.shape)}" for each in (weight, own[name]))
            raise ValueError(f"weights: {name} is {given}, valid is {valid}")
    for name, weight in profile.weights.items():
        own[name].data.copy_(weight)


def _signature(model: PreTrainedModel) -> tuple[str, list[tuple[int, ...]]]:
    """Equal of models that compute the same with linears of the same shapes, in whatever words the cuts were given."""
    shapes = [tuple(each.weight.shape) for block in find_blocks(model)[1] for each in linears_of(block).values()]
    return digest_of_logits(model), shapes


def _storages(model: nn.Module) -> dict[int, int]:
    """The bytes at each address where a parameter or buffer has its memory."""
    tensors = [*model.parameters(), *model.buffers()]
    return {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
