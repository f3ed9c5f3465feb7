"""Where a rank's part of every parameter lies in DeepSpeed's memory, and its state by name from there and back.

    ZeRO 0       masters     a a a a   b b b b b      whole on every rank: each writes its share
    ZeRO 1, 2    a group     a a a a b|b b b b . .    end to end, filled up, cut into one part a rank
    ZeRO 3       a rank's    a a|a a, b b b|b b .     each parameter cut into one part a rank, parts end to end

    piece (name, start, count; master, offset) -> Fragment -> checkpoint -> piece of another engine

A *master* is the float32 tensor that the optimizer moves, and the key of the optimizer's state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from foundation_core.train.fragments import STEP, WEIGHT, Fragment, StateSource, check_shapes, share_out, whole


class _Piece(NamedTuple):
    """The values of one parameter that this rank's optimizer moves.

    Args:
        shape: of the whole parameter.
        start: the first value's place in the flattened parameter.
        master: (any,) what the optimizer moves, flattened.
        offset: the first value's place in it.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    length: int
    master: Tensor
    offset: int

    def of(self, like_master: Tensor) -> Tensor:
        """(length,) this piece of the master, or of what the optimizer keeps beside it; no copy."""
        return like_master.detach().view(-1).narrow(0, self.offset, self.length)


def state_of(module: nn.Module, optimizer: Any, zero_stage: int) -> EngineState:
    """The state of a DeepSpeed engine.

    Args:
        optimizer: DeepSpeed's wrapper, or the plain optimizer where it wraps none.
    """
    from deepspeed.runtime.bf16_optimizer import BF16_Optimizer

    if zero_stage == 3:
        return _CutParameters(module, optimizer)
    if zero_stage or isinstance(optimizer, BF16_Optimizer):
        return _CutGroups(module, optimizer)
    return _Masters(module, optimizer) if hasattr(optimizer, "fp32_groups") else _Plain(module, optimizer)


class EngineState(ABC):
    """What an engine holds on this rank: read, replaced, or freed of its gradients."""

    def __init__(self, module: nn.Module, optimizer: Any) -> None:
        self.module, self.optimizer = module, optimizer
        self._moves: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)

    @abstractmethod
    def fragments(self, rank: int, world: int) -> Iterator[Fragment]:
        """This rank's part."""

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """Every parameter, whole, float32, on the CPU: the masters. A collective call."""

    @abstractmethod
    def discard(self) -> None:
        """Forget the gradients of the step, on the way or whole."""

    @abstractmethod
    def _pieces(self) -> list[_Piece]:
        """The pieces of this rank, in the same order on every rank."""

    @abstractmethod
    def _show(self) -> None:
        """Give the module what the masters hold. A collective call."""

    def restore(self, source: StateSource) -> None:
        """Take over a state. A collective call.

        Raises:
            CheckpointError: it is of another model.
        """
        buffers = dict(self.buffers())
        shapes = {name: tuple(getattr(p, "ds_shape", p.shape)) for name, p in self.module.named_parameters()}
        check_shapes(source, shapes | {name: tuple(buffer.shape) for name, buffer in buffers.items()})
        pieces: dict[int, list[_Piece]] = {}
        for piece in self._pieces():
            pieces.setdefault(id(piece.master), []).append(piece)
        with torch.no_grad():
            for same in pieces.values():
                self._restore_master(same, source)
            for name, buffer in buffers.items():
                buffer.copy_(source.read(name, WEIGHT).view(buffer.shape))
        self._show()

    def buffers(self) -> Iterator[tuple[str, Tensor]]:
        """The module's buffers that are part of its state, alike on every rank."""
        kept = self.module.state_dict().keys()
        return ((name, buffer) for name, buffer in self.module.named_buffers() if name in kept)

    def _restore_master(self, pieces: list[_Piece], source: StateSource) -> None:
        """One master and what the optimizer keeps of it; what was kept of it before is gone."""
        master = pieces[0].master
        kept: dict[str, Any] = {}
        for piece in pieces:
            piece.of(master).copy_(source.read(piece.name, WEIGHT, piece.start, piece.length))
            for kind in source.kinds(piece.name):
                if kind == STEP:  # pieces of one master moved together; one that never had a gradient counted none
                    kept[STEP] = max(kept.get(STEP, 0.0), float(source.read(piece.name, STEP)))
                elif kind != WEIGHT:
                    values = kept.setdefault(kind, torch.zeros_like(master))
                    piece.of(values).copy_(source.read(piece.name, kind, piece.start, piece.length))
        if STEP in kept:
            kept[STEP] = self._count(kept[STEP], master)
        self._moves.state.pop(master, None)
        if kept:
            self._moves.state[master] = kept

    def _count(self, steps: float, master: Tensor) -> Any:
        """The optimizer's count of its steps, in the type that it keeps."""
        if type(self._moves).__module__.startswith("deepspeed"):
            return int(steps)
        return torch.tensor(steps, dtype=torch.float32, device=master.device)

    def _fragments(self) -> Iterator[Fragment]:
        """Of the pieces: views of the engine's memory."""
        for piece in self._pieces():
            yield Fragment(piece.name, WEIGHT, piece.start, piece.of(piece.master), piece.shape)
            for kind, value in self._moves.state.get(piece.master, {}).items():
                if kind != STEP:
                    yield Fragment(piece.name, kind, piece.start, piece.of(value), piece.shape)
                elif piece.start == 0:  # one count a parameter, from whoever holds its beginning
                    yield Fragment(piece.name, STEP, 0, torch.as_tensor(value, dtype=torch.float32).view(1), ())

    def _whole_buffers(self) -> list[Fragment]:
        return [whole(name, WEIGHT, buffer) for name, buffer in self.buffers()]


class _Whole(EngineState):
    """ZeRO 0: every rank moves every parameter."""

    def fragments(self, rank: int, world: int) -> Iterator[Fragment]:
        """A share of all."""
        return share_out([*self._fragments(), *self._whole_buffers()], rank, world)

    def weights(self) -> dict[str, Tensor]:
        """The masters."""
        return {piece.name: _copied(piece.master.view(piece.shape)) for piece in self._pieces()}

    def _pieces(self) -> list[_Piece]:
        return [
            _Piece(name, tuple(parameter.shape), 0, parameter.numel(), self._master(parameter), 0)
            for name, parameter in self.module.named_parameters()
        ]

    @abstractmethod
    def _master(self, parameter: nn.Parameter) -> Tensor:
        """What the optimizer moves for a parameter."""


class _Plain(_Whole):
    """ZeRO 0 in float32: the optimizer moves the parameters themselves."""

    def discard(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def _master(self, parameter: nn.Parameter) -> Tensor:
        return parameter

    def _show(self) -> None:
        """The parameters are the masters."""


class _Masters(_Whole):
    """ZeRO 0 in bf16: a float32 master beside each parameter."""

    def __init__(self, module: nn.Module, optimizer: Any) -> None:
        super().__init__(module, optimizer)
        groups = zip(optimizer.fp16_groups, optimizer.fp32_groups, strict=True)
        pairs = [pair for low, high in groups for pair in zip(low, high, strict=True)]
        self._of = {id(parameter): master for parameter, master in pairs}

    def discard(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def _master(self, parameter: nn.Parameter) -> Tensor:
        master: Tensor = self._of.get(id(parameter), parameter)
        return master

    def _show(self) -> None:
        with torch.no_grad():
            for parameter in self.module.parameters():
                parameter.copy_(self._master(parameter))


class _Cut(EngineState):
    """ZeRO 1 to 3: every rank moves its part."""

    def fragments(self, rank: int, world: int) -> Iterator[Fragment]:
        """What this rank moves, and a share of the buffers."""
        yield from self._fragments()
        yield from share_out(self._whole_buffers(), rank, world)

    def weights(self) -> dict[str, Tensor]:
        """The masters, gathered."""
        from deepspeed.utils import safe_get_full_fp32_param

        return {name: _copied(safe_get_full_fp32_param(p)) for name, p in self.module.named_parameters()}


class _CutGroups(_Cut):
    """ZeRO 1 and 2: the parameters of a group end to end, cut into one part a rank."""

    def discard(self) -> None:
        """Forget the gradients, as DeepSpeed does where it skips a step."""
        optimizer = self.optimizer
        if hasattr(optimizer, "clear_hp_grads"):  # float32 gradients beside bf16 ones
            optimizer.zero_grad(set_to_none=True)
            return
        optimizer.micro_step_id = _BEFORE_THE_FIRST
        for bucket in optimizer.ipg_buckets.values():
            bucket.clear()
        optimizer.zero_grad(set_to_none=True)
        for group in range(len(optimizer.bit16_groups)):
            optimizer.averaged_gradients[group] = None
            optimizer.all_grad_tensors[group] = None
        if optimizer.cpu_offload:
            optimizer.reset_cpu_buffers()

    def _pieces(self) -> list[_Piece]:
        optimizer, pieces = self.optimizer, []
        zero = hasattr(optimizer, "single_partition_of_fp32_groups")
        masters = optimizer.single_partition_of_fp32_groups if zero else optimizer.fp32_groups_flat_partition
        for name, parameter in self.module.named_parameters():
            found = parameter._hp_mapping  # type: ignore[attr-defined]  # None: other ranks hold all of it
            if found is not None:
                part, place = found.lp_fragment_address, found.hp_fragment_address
                master = masters[found.param_group_index]
                pieces.append(_Piece(name, tuple(parameter.shape), part.start, part.numel, master, place.start))
        return pieces

    def _show(self) -> None:
        self.optimizer._hp_optimizer_states_linked = False  # what was linked is the state of before
        self.optimizer.update_lp_params()


class _CutParameters(_Cut):
    """ZeRO 3: each parameter cut into one part a rank."""

    def discard(self) -> None:
        """Forget the gradients, as DeepSpeed does where it skips a step."""
        optimizer = self.optimizer
        optimizer._partition_all_parameters()
        for bucket in optimizer.ipg_buckets.values():
            bucket.clear_params()
        optimizer.zero_grad(set_to_none=True)
        optimizer.averaged_gradients = {}
        if optimizer.offload_optimizer:
            optimizer.reset_cpu_buffers()

    def _pieces(self) -> list[_Piece]:
        optimizer, pieces = self.optimizer, []
        for name, parameter in self.module.named_parameters():
            cut: Any = parameter
            group, offset, part = optimizer.grad_position[optimizer.get_param_id(cut)]
            start = part * optimizer._get_param_partition_rank(cut)
            count = min(part, cut.ds_numel - start)  # the last part is filled up
            if count > 0:
                master = optimizer.fp32_partitioned_groups_flat[group]
                pieces.append(_Piece(name, tuple(cut.ds_shape), start, count, master, offset))
        return pieces

    def _show(self) -> None:
        optimizer = self.optimizer
        optimizer._partition_all_parameters()
        for group in range(len(optimizer.fp16_groups)):
            optimizer._reassign_or_swap_out_partitioned_parameters(group)
        small = optimizer.persistent_parameters  # which DeepSpeed keeps whole on every rank
        if small:
            small[0].all_gather(small)


_BEFORE_THE_FIRST = -1
"""DeepSpeed's number of the micro-batch before the first."""


def _copied(value: Tensor) -> Tensor:
    return value.detach().float().cpu().clone()
