"""What a check found: the worst error of every rule, and the smallest case that broke one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Finding:
    """One rule applied to one quantity: passed where error <= tolerance, so that NaN never passes."""

    rule: str  # "gradient", "parity", ...
    subject: str  # what it was applied to: "x", "dx", ...
    error: float
    tolerance: float = 0.0  # 0: the rule is exact
    where: str = ""  # on failure: the element, its index, both numbers, the shape

    @property
    def passed(self) -> bool:
        return bool(self.error <= self.tolerance)

    @property
    def of_tolerance(self) -> float:
        """The error as a share of the tolerance: at most 1 where the rule passed."""
        if self.passed:
            return self.error / self.tolerance if self.tolerance else 0.0
        return self.error / self.tolerance if self.tolerance and np.isfinite(self.error) else np.inf


class GradientError(AssertionError):
    """A check that failed; `report` says where."""

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report = report


@dataclass
class Report:
    """The result of checking one function, over one case or many. `print(report)` shows it as a table."""

    name: str
    device: str
    dtype: str
    cases: int = 0
    worst: dict[tuple[str, str], Finding] = field(default_factory=dict)
    failures: list[Finding] = field(default_factory=list)  # of the smallest case that failed
    failing_case: str = ""

    @property
    def passed(self) -> bool:
        return not self.failures

    def add(self, case: str, findings: list[Finding]) -> None:
        """Count one more case."""
        self.cases += 1
        for finding in findings:
            known = self.worst.setdefault((finding.rule, finding.subject), finding)
            if not finding.of_tolerance <= known.of_tolerance:
                self.worst[finding.rule, finding.subject] = finding
        self.blame(case, findings)

    def blame(self, case: str, findings: list[Finding]) -> None:
        """Note the failures among `findings`, if any, in the place of those before: Hypothesis shrinks the case."""
        failures = [finding for finding in findings if not finding.passed]
        if failures:
            self.failures, self.failing_case = failures, case

    def worst_finding(self) -> Finding | None:
        """The finding that came nearest to its tolerance, or went furthest beyond it."""
        return max(self.failures or self.worst.values(), key=lambda finding: finding.of_tolerance, default=None)

    def expect(self) -> Report:
        """This report; raises GradientError where it has failures."""
        if not self.passed:
            raise GradientError(self)
        return self

    def as_dict(self) -> dict[str, Any]:
        """The report in plain types, for JSON: an error that is not finite is None."""

        def plain(finding: Finding) -> dict[str, Any]:
            return {
                "rule": finding.rule,
                "of": finding.subject,
                "error": float(finding.error) if np.isfinite(finding.error) else None,
                "tolerance": finding.tolerance,
                "passed": finding.passed,
                "where": finding.where,
            }

        return {
            "name": self.name,
            "device": self.device,
            "dtype": self.dtype,
            "cases": self.cases,
            "passed": self.passed,
            "worst": [plain(finding) for finding in self.worst.values()],
            "failing_case": self.failing_case,
            "failures": [plain(finding) for finding in self.failures],
        }

    def __str__(self) -> str:
        verdict = "passed" if self.passed else "FAILED"
        plural = "case" if self.cases == 1 else "cases"
        lines = [f"{self.name} on {self.device} in {self.dtype}: {self.cases} {plural}, {verdict}"]
        worst_of_rule: dict[str, Finding] = {}
        for finding in self.worst.values():
            known = worst_of_rule.setdefault(finding.rule, finding)
            if not finding.of_tolerance <= known.of_tolerance:
                worst_of_rule[finding.rule] = finding
        for finding in worst_of_rule.values():
            limit = f"{finding.tolerance:.0e}" if finding.tolerance else "exact"
            mark = "" if finding.passed else "  <- FAILED"
            lines.append(f"  {finding.rule:20} {finding.error:8.1e} of {limit:6} at {finding.subject}{mark}")
        if not self.passed:
            lines.append(f"smallest failing case: {self.failing_case}")
            lines += [f"  {finding.rule} of {finding.subject}: {finding.where}" for finding in self.failures]
        return "\n".join(lines)
