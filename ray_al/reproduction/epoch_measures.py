"""What learners reported of their epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ray_al.reproduction.claims import Arm, Measured, NotRun
from ray_al.reproduction.records import Records


@dataclass(frozen=True)
class EpochSeconds:
    """Median seconds of the epochs of one stage, of all trajectories of an arm; its deviation is not given."""

    arm: Arm
    stage: str

    @property
    def arms(self) -> tuple[Arm, ...]:
        return (self.arm,)

    def __call__(self, records: Records) -> Measured:
        found = []
        for run in records.runs(self.arm.sweep):
            rows = run.epochs
            if len(rows) and run.has(self.arm):
                own = rows["trajectory_id"].isin(run.of(self.arm)["trajectory_id"]) & (rows["stage"] == self.stage)
                found += rows.loc[own, "seconds"].tolist()
        if not found:
            raise NotRun(
                records.command(self.arm.sweep), f"epochs of {self.arm}" if records.runs(self.arm.sweep) else ""
            )
        ordered = sorted(found)
        middle = ordered[len(ordered) // 2]
        return Measured(middle, math.nan, math.nan, 0, 1, "", f"median of {len(found)} epochs")
