"""A policy as a folder: its tensors, and what it was made for.

    policy.safetensors   of the predictor, by name, and of the guard
    policy.json          learner, actions, features, floor; the hashes of the model, the profiles and the tensors

The same policy gives the same bytes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tasks.prune.sidecar import Sidecar
from tasks.train_controller.learn.guard import Guard
from tasks.train_controller.learn.learners import LEARNERS
from tasks.train_controller.learn.policy import Policy

FILES = Sidecar(name="policy", format="espalier policy")
OF_GUARD = ("free_A", "spread_A")


def save_policy(policy: Policy, folder: Path, model_hash: str, profiles_hash: str) -> None:
    """Write a policy that chooses among `profiles_hash` of the model `model_hash` (tasks.model.folder.fingerprint)."""
    guard = policy.guard
    tensors = {f"predictor/{name}": each for name, each in policy.predictor.tensors.items()}
    tensors |= {f"guard/{name}": getattr(guard, name) for name in OF_GUARD}
    tensors["guard/margin"] = torch.tensor(guard.margin, dtype=torch.float64)  # may be infinite, which JSON cannot be
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: each.contiguous() for name, each in sorted(tensors.items())}, folder / FILES.tensors)
    entries = {
        "profiles_hash": profiles_hash,
        "tensors_hash": _digest(folder / FILES.tensors),
        "learner": policy.learner,
        "actions": list(policy.actions),
        "features": list(policy.features),
        "floor": policy.floor,
        "margin": guard.margin if guard.margin < torch.inf else None,
        "violations": guard.violations,
        "prompts": guard.prompts,
        "settings": policy.predictor.settings,
    }
    FILES.write_index(folder, model_hash, entries)


def profiles_hash_of(folder: Path) -> str:
    """The hash of the profiles among which the policy in `folder` chooses. Raises ValueError as `load_policy`."""
    index, _ = FILES.read(folder, None)
    return str(index.get("profiles_hash"))


def load_policy(
    folder: Path,
    *,
    actions: Sequence[str] | None = None,
    model_hash: str | None = None,
    profiles_hash: str | None = None,
) -> Policy:
    """The policy in `folder`; what is given must be what it was made for.

    Raises ValueError for a folder without one, of other actions, another model, other profiles or a later version, for
    an unknown learner, and for files that are damaged.
    """
    index, tensors = FILES.read(folder, model_hash)
    if profiles_hash is not None and index.get("profiles_hash") != profiles_hash:
        given = index.get("profiles_hash")
        raise ValueError(f"policy: {folder} is of profiles {given}, valid is one of {profiles_hash}")
    if actions is not None and index.get("actions") != list(actions):
        given = ", ".join(index.get("actions", ()))
        raise ValueError(f"policy: {folder} is of the actions {given}, valid is one of {', '.join(actions)}")
    if index.get("learner") not in LEARNERS:
        raise ValueError(f"policy: {folder} is of learner {index.get('learner')!r}, valid is {', '.join(LEARNERS)}")
    if index.get("tensors_hash") != _digest(folder / FILES.tensors):
        raise ValueError(
            f"policy: {folder / FILES.tensors} is not the file that was written, valid is an undamaged one"
        )
    try:
        policy = _policy(index, tensors)
        policy.choose(torch.zeros(len(policy.features)))  # fails where the two do not go together
        return policy
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"policy: {folder / FILES.index} does not fit its tensors: {error}".split("\n")[0]) from error


def _policy(index: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Policy:
    of: dict[str, dict[str, Tensor]] = {"predictor": {}, "guard": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        of[part][rest] = tensor
    guard = Guard(
        **{name: of["guard"][name] for name in OF_GUARD},
        margin=of["guard"]["margin"].item(),
        violations=index["violations"],
        prompts=index["prompts"],
    )
    return Policy(
        learner=index["learner"],
        actions=tuple(index["actions"]),
        features=tuple(index["features"]),
        floor=index["floor"],
        predictor=LEARNERS[index["learner"]].predictor.of(of["predictor"], index["settings"]),
        guard=guard,
    )


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
