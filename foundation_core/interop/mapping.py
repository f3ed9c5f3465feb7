"""A table of names between two ways to write the same model, and the change that a tensor needs on its way.

    theirs                                    ours                                   change
    model.layers.{}.self_attn.q_proj.{}  <->  trunk.blocks.{}.mix.branch.query.{}    Same()

Each `{}` stands for one part of a name, between two dots: the number of a layer, `weight` or `bias`. What it stands for
is the same on both sides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from foundation_core.errors import CheckpointError

State = Mapping[str, Tensor]


class Change(Protocol):
    """How one tensor of theirs becomes one or more of ours, and back."""

    def to_ours(self, theirs: Tensor) -> Sequence[Tensor]:
        """As many as the rule has names of ours."""

    def to_theirs(self, ours: Sequence[Tensor]) -> Tensor:
        """What `to_ours` began with."""


@dataclass(frozen=True)
class Same:
    """No change."""

    def to_ours(self, theirs: Tensor) -> Sequence[Tensor]:
        """The tensor."""
        return [theirs]

    def to_theirs(self, ours: Sequence[Tensor]) -> Tensor:
        """The tensor."""
        return ours[0]


SAME = Same()


@dataclass(frozen=True)
class Rule:
    """One line of a table.

    Args:
        theirs: pattern of their name.
        ours: pattern of ours, or of several.
        also: other names that they give to the same tensor.
    """

    theirs: str
    ours: str | tuple[str, ...]
    change: Change = SAME
    also: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """The patterns of ours."""
        return (self.ours,) if isinstance(self.ours, str) else self.ours


@dataclass(frozen=True)
class Table:
    """All rules of a model.

    Args:
        ignored: patterns of names of theirs that hold nothing that was learned.
    """

    rules: tuple[Rule, ...]
    ignored: tuple[str, ...] = ()


def renamed(theirs: str, ours: str, names: Mapping[str, str], change: Change = SAME) -> tuple[Rule, ...]:
    """A rule for each layer of a block: `theirs.NAME.{}` to `ours.NAME.{}`, weights and biases alike."""
    return tuple(Rule(f"{theirs}{name}.{{}}", f"{ours}{new}.{{}}", change) for name, new in names.items())


def to_ours(state: State, table: Table) -> dict[str, Tensor]:
    """Their weights under our names.

    Raises:
        CheckpointError: a tensor that no rule knows.
    """
    found: dict[str, Tensor] = {}
    unknown = {name for name in state if not any(_filling(pattern, name) is not None for pattern in table.ignored)}
    for rule in table.rules:
        for name, tensor in state.items():
            filling = _filling(rule.theirs, name)
            if filling is None:
                continue
            found |= zip((part.format(*filling) for part in rule.parts), rule.change.to_ours(tensor), strict=True)
            unknown -= {pattern.format(*filling) for pattern in (rule.theirs, *rule.also)}
    return _all_known(found, unknown)


def to_theirs(state: State, table: Table) -> dict[str, Tensor]:
    """Our weights under their names.

    Raises:
        CheckpointError: a tensor that no rule knows.
    """
    found: dict[str, Tensor] = {}
    unknown = set(state)
    for rule in table.rules:
        for name in state:
            filling = _filling(rule.parts[0], name)
            if filling is None:
                continue
            parts = [part.format(*filling) for part in rule.parts]
            tensor = rule.change.to_theirs([state[part] for part in parts])
            found |= {pattern.format(*filling): tensor for pattern in (rule.theirs, *rule.also)}
            unknown -= set(parts)
    return _all_known(found, unknown)


def _filling(pattern: str, name: str) -> tuple[str, ...] | None:
    """What stands in the places of a pattern; None where the name is not of it."""
    match = re.fullmatch(re.escape(pattern).replace(r"\{\}", r"([^.]+)"), name)
    return None if match is None else match.groups()


def _all_known(found: dict[str, Tensor], unknown: set[str]) -> dict[str, Tensor]:
    if unknown:
        raise CheckpointError(
            f"{len(unknown)} tensors are not in the table, such as {', '.join(sorted(unknown)[:3])}",
            fix="take the table of this kind of model, or add the rule that is missing",
        )
    return found


@dataclass(frozen=True)
class Transposed:
    """Their matrices multiply from the other side."""

    def to_ours(self, theirs: Tensor) -> Sequence[Tensor]:
        """Turned; a vector stays as it is."""
        return [theirs.t()]

    def to_theirs(self, ours: Sequence[Tensor]) -> Tensor:
        """Turned back."""
        return ours[0].t()


@dataclass(frozen=True)
class Joined:
    """Theirs holds several of ours, one after the other along the outputs."""

    count: int
    transposed: bool = False

    def to_ours(self, theirs: Tensor) -> Sequence[Tensor]:
        """The parts."""
        return (theirs.t() if self.transposed else theirs).chunk(self.count)

    def to_theirs(self, ours: Sequence[Tensor]) -> Tensor:
        """The parts in one."""
        whole = torch.cat(list(ours))
        return whole.t() if self.transposed else whole


@dataclass(frozen=True)
class Scaled:
    """Ours is a multiple of theirs: a factor that their forward has and ours has not."""

    factor: float

    def to_ours(self, theirs: Tensor) -> Sequence[Tensor]:
        """The multiple."""
        return [theirs * self.factor]

    def to_theirs(self, ours: Sequence[Tensor]) -> Tensor:
        """The quotient; exact where the factor is a power of 2."""
        return ours[0] / self.factor


@dataclass(frozen=True)
class Leading:
    """Theirs has so many more dimensions of size 1 in front; a negative number: so many fewer."""

    ones: int

    def to_ours(self, theirs: Tensor) -> Sequence[Tensor]:
        """Without them."""
        return [theirs[(0,) * self.ones] if self.ones > 0 else theirs[(None,) * -self.ones]]

    def to_theirs(self, ours: Sequence[Tensor]) -> Tensor:
        """With them."""
        return ours[0][(None,) * self.ones] if self.ones > 0 else ours[0][(0,) * -self.ones]


@dataclass(frozen=True)
class Kernel:
    """Their convolution over patches that do not overlap is our linear layer on the patch's values."""

    channels: int
    patch: tuple[int, int]

    def to_ours(self, theirs: Tensor) -> Sequence[Tensor]:
        """(D, C x h x w)."""
        return [theirs.flatten(1)]

    def to_theirs(self, ours: Sequence[Tensor]) -> Tensor:
        """(D, C, h, w)."""
        return ours[0].unflatten(1, (self.channels, *self.patch))  # type: ignore[no-untyped-call, no-any-return]


@dataclass(frozen=True)
class ChannelsLast:
    """They number the values of a patch by (h, w, C), we by (C, h, w)."""

    channels: int
    patch: tuple[int, int]

    def to_ours(self, theirs: Tensor) -> Sequence[Tensor]:
        """Rows in our order."""
        return [theirs.view(*self.patch, self.channels, -1).permute(2, 0, 1, 3).reshape(theirs.shape)]

    def to_theirs(self, ours: Sequence[Tensor]) -> Tensor:
        """Rows in theirs."""
        return ours[0].view(self.channels, *self.patch, -1).permute(1, 2, 0, 3).reshape(ours[0].shape)


@dataclass(frozen=True)
class WithoutFirst:
    """Their table begins with rows that are never looked up; they come back as zeros."""

    rows: int

    def to_ours(self, theirs: Tensor) -> Sequence[Tensor]:
        """The rows that are looked up."""
        return [theirs[self.rows :]]

    def to_theirs(self, ours: Sequence[Tensor]) -> Tensor:
        """With zeros in front."""
        return torch.cat([ours[0].new_zeros(self.rows, ours[0].shape[1]), ours[0]])


@dataclass(frozen=True)
class WithZero:
    """We have a second vector where they have none: a bias of keys, which no softmax sees."""

    def to_ours(self, theirs: Tensor) -> Sequence[Tensor]:
        """The tensor, and zeros."""
        return [theirs, torch.zeros_like(theirs)]

    def to_theirs(self, ours: Sequence[Tensor]) -> Tensor:
        """The tensor."""
        return ours[0]


@dataclass(frozen=True)
class Stacked:
    """Theirs holds a matrix for each expert, each the joint of as many of ours as `parts`."""

    parts: int = 1

    def to_ours(self, theirs: Tensor) -> Sequence[Tensor]:
        """All parts of the first expert, of the second, and so on."""
        return [part for expert in theirs for part in expert.chunk(self.parts)]

    def to_theirs(self, ours: Sequence[Tensor]) -> Tensor:
        """(experts, outputs of the parts together, inputs)."""
        return torch.stack([torch.cat(list(ours[i : i + self.parts])) for i in range(0, len(ours), self.parts)])
