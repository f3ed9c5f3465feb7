"""The newest checkpoint that is whole, on disk or in the store, as all ranks see it.

newest -> manifest, sizes, hashes (each rank a share of the files) -> the engine -> example's outputs -> best weights
   |                                  a fault, on any rank
   +-- the one before <---------------------+            none left: an error, if there ever was one
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from foundation_core.errors import CheckpointError, DataError
from foundation_core.events import EventLog
from foundation_core.files import PARTIAL, write_json
from foundation_core.train import manifest
from foundation_core.train.beside import Beside
from foundation_core.train.collective import of_rank_0, together
from foundation_core.train.copies import StoreCopies
from foundation_core.train.engine import Engine
from foundation_core.train.example import OutputCheck, from_file
from foundation_core.train.fragments import StateFiles
from foundation_core.train.manifest import DAMAGED, MANIFEST_FILE, OUTPUTS_FILE, Fault, fault, folder_name


class _Candidate(NamedTuple):
    """A checkpoint that may be whole: on disk, or the copy in the store."""

    step: int
    in_store: bool


class Restorer:
    """Reads the checkpoints of one training; see `Checkpoints` for the arguments."""

    def __init__(
        self,
        folder: Path,
        engine: Engine,
        identity: Mapping[str, str],
        events: EventLog,
        check: OutputCheck | None,
        copies: StoreCopies | None,
        beside: Beside | None = None,
    ) -> None:
        self.folder, self.engine, self.identity = folder, engine, identity
        self.events, self.check, self.copies, self.beside = events, check, copies, beside

    def restore(self) -> tuple[int, dict[str, Any]] | None:
        """Load the newest one that is whole: (steps done, the loop's state), or None if there never was one."""
        began, damaged = time.monotonic(), dict[_Candidate, tuple[Fault, str]]()
        while (found := self._candidate(damaged)) is not None:
            body, wrong = self._load(found)
            if body is not None and not wrong.code:
                self._settle(body, damaged, began)
                return body["step"], body["state"]
            damaged[found] = wrong, wrong.said(body)
        had_one = of_rank_0(self.engine, int(any(self.folder.glob(f"step-*{DAMAGED}*"))))
        if damaged or had_one:
            words = "; ".join(f"step {found.step}: {said}" for found, (_, said) in damaged.items())
            raise CheckpointError(
                f"no checkpoint in {self.folder} is whole{f': {words}' if words else ', and there was one'}",
                fix=f"bring back what is damaged, or remove {self.folder} to train anew",
            )
        return None

    def _candidate(self, tried: Collection[_Candidate]) -> _Candidate | None:
        """The newest that was not tried yet, as rank 0 sees it; of a step the one on disk before the copy."""
        number = 0
        if self.engine.rank == 0:
            there = [_Candidate(step, False) for step in manifest.finished(self.folder)]
            there += [_Candidate(step, True) for step in (self.copies.steps() if self.copies is not None else [])]
            # A copy that was brought lies on disk now, and was tried.
            left = [one for one in there if one not in tried and _Candidate(one.step, True) not in tried]
            number = max((2 * one.step + (not one.in_store) + 1 for one in left), default=0)
        number = of_rank_0(self.engine, number)
        return _Candidate((number - 1) // 2, not (number - 1) % 2) if number else None

    def _load(self, found: _Candidate) -> tuple[dict[str, Any] | None, Fault]:
        """Take over a checkpoint: its manifest, if it has one, and the first fault that any rank found."""
        folder = self.folder / folder_name(found.step)
        if found.in_store:
            assert self.copies is not None
            told = self.copies.manifest(found.step)
            if "identity" in told:
                fix = "name another pretrain.checkpoints.store, or empty it"
                self._check_identity(str(self.copies.depot), told, fix)
            self._bring(found.step)
        with manifest.reading(folder):
            body, mine = None, Fault()
            try:
                body = manifest.read_manifest(folder)
            except DataError:
                mine = fault("manifest")
            if body is not None:
                self._check_identity(str(folder), body, f"remove {self.folder} to train anew")
                mine = manifest.find_fault(folder, body, self.engine.rank, self.engine.world)
            wrong = self._first(mine)
            if body is None or wrong.code:
                return body, wrong
            self.engine.restore(StateFiles(folder / name for name in manifest.state_files(body)))
            wrong = self._first(self._wrong_outputs(folder, body))
            return body, wrong if wrong.code else self._first(self._wrong_best(body))

    def _check_identity(self, place: str, body: Mapping[str, Any], fix: str) -> None:
        for name, expected in self.identity.items():
            if body["identity"].get(name) != expected:
                raise CheckpointError(
                    f"{place} belongs to another training: its {name} is {body['identity'].get(name)}",
                    allowed=f"{name} {expected}",
                    fix=fix,
                )

    def _wrong_outputs(self, folder: Path, body: Mapping[str, Any]) -> Fault:
        if self.check is None or body["example"] is None:
            return Fault()
        differs = self.check.differs(from_file(folder / OUTPUTS_FILE), body["example"])
        return fault("outputs") if differs else Fault()

    def _wrong_best(self, body: Mapping[str, Any]) -> Fault:
        """A checkpoint without them is from before they travelled, or somebody removed them while training."""
        lacks = self.beside is not None and self.engine.rank == 0 and self.beside.lacks_best(body)
        return fault("best") if lacks else Fault()

    def _settle(self, body: Mapping[str, Any], damaged: Mapping[_Candidate, tuple[Fault, str]], began: float) -> None:
        """Leave the folder as that of the training that goes on."""

        def settle() -> None:
            if damaged and self.engine.rank == 0:
                self._set_aside(damaged, body["step"], began)
            if self.beside is not None and self.engine.rank == 0:
                self.beside.bring_back(self.folder / folder_name(body["step"]), body)

        together(self.engine, settle)

    def _bring(self, step: int) -> None:
        """Copy a checkpoint out of the store, each rank a share of its files, as if it had been saved here."""
        copies, final = self.copies, self.folder / folder_name(step)
        assert copies is not None
        body, partial = copies.manifest(step), final.with_name(f"{final.name}.store{PARTIAL}")

        def fetch() -> None:
            partial.mkdir(parents=True, exist_ok=True)
            for number, entry in enumerate(body.get("files", [])):
                if number % self.engine.world == self.engine.rank:
                    copies.fetch(step, entry["file"], partial / entry["file"])

        def name() -> None:
            if self.engine.rank == 0:
                write_json(partial / MANIFEST_FILE, body)
                manifest.replace(partial, final)

        together(self.engine, fetch)
        together(self.engine, name)

    def _set_aside(self, damaged: Mapping[_Candidate, tuple[Fault, str]], step: int, began: float) -> None:
        """Rename what was damaged, and say what happened."""
        for number, (bad, (wrong, said)) in enumerate(damaged.items(), start=1):
            if bad.in_store and self.copies is not None:
                self.copies.discard(bad.step)
            place = self.folder / folder_name(bad.step)
            if place.exists() and bad.step != step:
                place = manifest.set_aside(place, wrong)
            self.events.write(
                "failure", failure="corrupt_checkpoint", step=bad.step, attempt=number,
                budget_left=len(manifest.finished(self.folder)), what=f"{place}: {said}",
            )  # fmt: skip
        seconds = round(time.monotonic() - began, 3)
        self.events.write("recovered", failure="corrupt_checkpoint", step=step, seconds=seconds)

    def _first(self, mine: Fault) -> Fault:
        """The fault of the lowest rank that found one."""
        faults = self.engine.gather_over_ranks(torch.tensor(mine, device=self.engine.device))
        return next((Fault(*row) for row in faults.tolist() if row[0]), Fault())
