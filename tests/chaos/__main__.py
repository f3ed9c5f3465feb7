"""`make chaos`: a covering set of faults and moments on real services, each to the model of an undisturbed run.

    python -m tests.chaos [--seed 7] [--all] [--fault "worker killed"] [--moment save] [--minutes 45]

Prints a line when a case is through and the table at the end; ends with 1 if a case did not hold, or if the minutes did
not suffice for all. Cases that the machine cannot try are in the table as such.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.apart import APART
from tests.chaos.cases import FAULTS, MOMENTS, Case, covering, every_case
from tests.chaos.faults import FAULT, needs, others_of
from tests.chaos.site import Row, Site, left_over, running_site

LATE = "the minutes were over"


def main(arguments: Sequence[str]) -> int:
    """Run what was asked for; 1 if a case did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the covering set; drawn, if not said")
    parser.add_argument("--all", action="store_true", help="every fault at every moment instead")
    parser.add_argument("--fault", action="append", choices=list(FAULTS), help="only this one; may be said again")
    parser.add_argument("--moment", action="append", choices=MOMENTS, help="only this one; may be said again")
    parser.add_argument("--minutes", type=float, default=45.0, help="begin no case after so many")
    parser.add_argument("--json", type=Path, help="write the table there too")
    chosen = parser.parse_args(arguments)
    seed = random.randrange(1000) if chosen.seed is None else chosen.seed
    named = chosen.all or chosen.fault or chosen.moment
    cases = [
        case
        for case in (every_case() if named else covering(seed))
        if (not chosen.fault or case.fault in chosen.fault) and (not chosen.moment or case.moment in chosen.moment)
    ]
    print(f"{len(cases)} cases, seed {seed}", flush=True)
    rows, left = run(cases, chosen.minutes * 60)
    print(table(rows, cases))
    if chosen.json:
        chosen.json.write_text(json.dumps([{**row._asdict(), "case": list(row.case)} for row in rows], indent=2))
    print(f"left running after `foundation down`: {left or 'nothing'}")
    late = [case for case in cases if not needs(case.fault) and case not in {row.case for row in rows}]
    return 1 if left or late or any(row.problems for row in rows) else 0


def run(cases: Sequence[Case], seconds: float) -> tuple[list[Row], str]:
    """The rows of the cases that could be tried in time, and what still ran after the services were down."""
    rows, began = [], time.monotonic()
    with running_site() as site:
        site.undisturbed("pipeline" if any(case.moment == "publish" for case in cases) else "pretrain")
        print(f"undisturbed: model {site.expected[:12]}, {time.monotonic() - began:.0f} s", flush=True)
        for case in cases:
            if needs(case.fault) or time.monotonic() - began > seconds:
                continue
            rows.append(_tried(site, case))
            print(_line(rows[-1]), flush=True)
    return rows, ", ".join(f"{count} {name}" for name, count in left_over(site.home).items())


def _tried(site: Site, case: Case) -> Row:
    apart, began = APART.get(case.fault), time.time()
    try:
        if apart is None:
            return site.disturbed(case, FAULT[case.fault], others_of(case.fault))
        return apart(site, case.moment)
    except (AssertionError, subprocess.TimeoutExpired) as error:
        return Row(case, [str(error)], [], 0, 0.0, time.time() - began)


def _line(row: Row) -> str:
    held = "; ".join(row.problems) or "the same model"
    by_hand = f", by {' '.join(row.by_hand)}" if row.by_hand else ""
    return f"{row.case.fault} at {row.case.moment}: {held}{by_hand} ({row.took:.0f} s)"


def table(rows: Sequence[Row], cases: Sequence[Case]) -> str:
    """The table in Markdown."""
    lines = [
        "| fault | moment | recovered | by hand | steps lost | seconds to recover |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    tried = {row.case: row for row in rows}
    for case in cases:
        if case not in tried:
            lines.append(f"| {case.fault} | {case.moment} | not tried | {needs(case.fault) or LATE} | | |")
            continue
        row = tried[case]
        held = "yes" if not row.problems else "NO: " + "; ".join(row.problems)
        by_hand = ", ".join(row.by_hand) or "nothing"
        lines.append(f"| {case.fault} | {case.moment} | {held} | {by_hand} | {row.steps_lost} | {row.seconds:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
