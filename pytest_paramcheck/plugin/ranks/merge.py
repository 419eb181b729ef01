"""One report for each phase of a test, made of all ranks' reports.

What any rank found is what the test found. Causes in their order: a rank that died by itself,
then the earliest failure, then a rank that does not end; a lost connection is the echo of one
of these wherever there is one, and so is a rank that was stopped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from .outcome import LOST, PHASES, RAISED, Ending, How, Outcome
from .texts import crash_of, first_line_of, ranks_text, shown_failure, with_section

#: What is each rank's own in texts that say the same: addresses, temporary folders.
_OWN = re.compile(r"0x[0-9a-f]+|(?<=paramcheck-ranks-)\w+/tmp\d+")
_C10D = re.compile(r"^\S+ +c10d.*\n?", re.MULTILINE)


def merged(item: pytest.Item, outcome: Outcome) -> dict[str, pytest.TestReport]:
    """Return the report of each phase that the test came to."""
    made: dict[str, pytest.TestReport] = {}
    failing = _failing_phase(outcome)
    for phase in PHASES:
        reports = outcome.of_phase(phase)
        if reports or phase == failing:
            one = _Phase(item, outcome, phase, reports, decides=phase == failing)
            made[phase] = one.report()
    return made


def not_run(item: pytest.Item, text: str) -> dict[str, pytest.TestReport]:
    """Return the reports of a test that the ranks were not told to run."""
    one = _Phase(item, Outcome(1), "call", {}, decides=False)
    return {"call": one.failure(failure_of(item, text))}


def _failing_phase(outcome: Outcome) -> str | None:
    """Return the first phase in which a rank failed of itself; None where none did."""
    found = [
        phase for phase in PHASES for report in outcome.of_phase(phase).values() if _failed(report)
    ]
    found += [
        outcome.phase_of_ending(rank)
        for rank, ending in outcome.endings.items()
        if ending.how is not How.STOPPED
    ]
    return min(found, key=PHASES.index, default=None)


def _failed(report: pytest.TestReport) -> bool:
    """Whether a phase failed. A strict xfail that passes did not raise: other ranks decide."""
    return report.failed and bool(getattr(report, RAISED, True))


def _reason(report: pytest.TestReport) -> str:
    """Why a rank skipped."""
    said = report.longrepr
    return said[2].removeprefix("Skipped: ") if isinstance(said, tuple) else str(said)


def _is_xfail(report: pytest.TestReport) -> bool:
    return report.skipped and hasattr(report, "wasxfail")


class _Phase:
    """The reports of one phase."""

    def __init__(
        self,
        item: pytest.Item,
        outcome: Outcome,
        phase: str,
        reports: Mapping[int, pytest.TestReport],
        *,
        decides: bool,
    ) -> None:
        self._item = item
        self._outcome = outcome
        self._phase = phase
        self._reports = reports
        self._endings: Mapping[int, Ending] = outcome.endings if decides else {}
        self._passed = [rank for rank, report in reports.items() if report.passed]

    def report(self) -> pytest.TestReport:
        """Return the one report."""
        by_itself = [e for e in self._endings.values() if e.how is not How.STOPPED]
        failed = [rank for rank, report in self._reports.items() if _failed(report)]
        expected = [rank for rank, report in self._reports.items() if _is_xfail(report)]
        skipped = [
            rank
            for rank, report in self._reports.items()
            if report.skipped and rank not in expected
        ]
        echoes = [rank for rank in failed if self._is_echo(rank)]
        if skipped and echoes == failed and not by_itself and (failed or self._endings):
            lines = [self._disagreement(skipped), *self._later(echoes)]
            return self.failure(failure_of(self._item, "\n".join(lines)), failed)
        if by_itself or failed:
            return self._failed(failed)
        if expected:
            report = self._made("skipped", self._reports[expected[0]].longrepr, expected)
            report.wasxfail = self._reports[expected[0]].wasxfail
            return report
        if skipped and len(skipped) < len(self._reports):
            return self.failure(failure_of(self._item, self._disagreement(skipped)))
        # What has failed without having raised is a strict xfail that passed, on all that run it.
        alike = sorted(self._reports.items(), key=lambda pair: not pair[1].failed)
        for rank, report in alike:
            made = self._made(report.outcome, report.longrepr, [rank])
            if hasattr(report, "wasxfail"):
                made.wasxfail = report.wasxfail
            return made
        return self._made("passed", None, [])

    def failure(self, longrepr: Any, ranks: Sequence[int] = ()) -> pytest.TestReport:
        """Return a report that failed."""
        return self._made("failed", longrepr, ranks)

    def _disagreement(self, skipped: Sequence[int]) -> str:
        said = _reason(self._reports[skipped[0]])
        ran = [rank for rank in self._reports if rank not in skipped]
        return f"ranks disagree: {ranks_text(skipped)} skipped ({said}), {ranks_text(ran)} ran"

    def _failed(self, failed: Sequence[int]) -> pytest.TestReport:
        """Return the report of a phase that failed: its cause, and what else there was."""
        order = sorted(failed, key=lambda rank: (self._is_echo(rank), self._reports[rank].stop))
        died = [rank for rank, ending in self._endings.items() if ending.how is How.DIED]
        hung = [rank for rank, ending in self._endings.items() if ending.how is How.HUNG]
        if died or not order or (hung and self._is_echo(order[0])):
            return self._of_endings(order)
        return self._of_failures(order)

    def _is_echo(self, rank: int) -> bool:
        return bool(getattr(self._reports[rank], LOST, False))

    def _of_endings(self, failed: Sequence[int]) -> pytest.TestReport:
        """Return the report of ranks that ended, each with a line."""
        lines = [f"{ranks_text([rank])} {ending.said}" for rank, ending in self._in_order()]
        echoes = [rank for rank in failed if self._is_echo(rank)]
        lines += self._later(echoes)
        lines += [
            f"{ranks_text([rank])} skipped ({_reason(report)})"
            for rank, report in self._reports.items()
            if report.skipped and not _is_xfail(report)
        ]
        if self._passed:
            lines.append(f"{ranks_text(self._passed, self._outcome.ranks)} passed")
        tails = {rank: text for rank, text in self._outcome.tails.items() if text.strip()}
        lines += [f"--- last output of rank {r}\n{text.rstrip()}" for r, text in tails.items()]
        shown = failure_of(self._item, "\n".join(lines))
        for rank in failed:
            if rank not in echoes:
                title = f"rank {rank} of {self._outcome.ranks}"
                shown = with_section(shown, title, str(self._reports[rank].longreprtext))
        return self.failure(shown, failed)

    def _in_order(self) -> list[tuple[int, Ending]]:
        """The ranks that ended: first those that did so of themselves."""
        return sorted(
            self._endings.items(), key=lambda pair: (pair[1].how.value, pair[1].waits, pair[0])
        )

    def _of_failures(self, failed: Sequence[int]) -> pytest.TestReport:
        """Return the report of ranks that raised: the first one's own, and what the others say."""
        of = self._outcome.ranks
        first = failed[0]
        longrepr = self._reports[first].longrepr
        text = _leveled(self._reports[first])
        alike = [rank for rank in failed if _leveled(self._reports[rank]) == text]
        if of > 1:
            longrepr = _named(longrepr, ranks_text(alike, of))
        for rank in failed:
            if rank in alike:
                continue
            if self._is_echo(rank):
                longrepr = with_section(
                    longrepr, f"rank {rank} of {of}", f"later: {self._line(rank)}"
                )
            else:
                said = self._reports[rank].longreprtext
                longrepr = with_section(longrepr, f"rank {rank} of {of}, later", said)
        for rank, report in self._reports.items():
            if report.skipped and not _is_xfail(report):
                longrepr = with_section(
                    longrepr, f"rank {rank} of {of}", f"skipped ({_reason(report)})"
                )
        for rank, ending in self._in_order():
            longrepr = with_section(longrepr, f"rank {rank} of {of}", ending.said)
        if self._passed:
            longrepr = with_section(longrepr, f"{ranks_text(self._passed)} of {of}", "passed")
        return self.failure(longrepr, failed)

    def _captured(self) -> list[tuple[str, str]]:
        """What ranks had captured that did not come to a report of their own."""
        names = ("stdout", "stderr")
        return [
            (f"Captured {name} (rank {rank})", text)
            for rank in self._endings
            for name, text in zip(names, self._outcome.captured.get(rank, ()), strict=False)
            if text.strip()
        ]

    def _later(self, ranks: Sequence[int]) -> list[str]:
        return [f"{ranks_text([rank])}, later: {self._line(rank)}" for rank in ranks]

    def _line(self, rank: int) -> str:
        return first_line_of(self._reports[rank].longrepr)

    def _made(self, outcome: Any, longrepr: Any, ranks: Sequence[int]) -> pytest.TestReport:
        """Return a report; ``ranks`` are those that it is made of before all others."""
        reports = self._reports
        sections = _all_sections(reports)
        if outcome == "failed":
            sections += self._captured()
        properties: dict[Any, Any] = {}
        others: list[Any] = []
        for rank in [*ranks, *sorted(reports)]:
            if rank not in reports:
                continue
            for given in reports[rank].user_properties:
                pair: object = given  # other plugins need not write pairs
                if isinstance(pair, (tuple, list)) and len(pair) == 2:
                    properties.setdefault(pair[0], pair[1])
                elif given not in others:
                    others.append(given)
        found = [*properties.items(), *others] or [*self._item.user_properties]
        return pytest.TestReport(
            nodeid=self._item.nodeid,
            location=self._item.location,
            # Plain values: those of an item are its own, and xdist sends reports on.
            keywords=dict.fromkeys(self._item.keywords, 1),
            outcome=outcome,
            longrepr=longrepr,
            when=self._phase,  # type: ignore[arg-type]
            sections=sections,
            duration=max((report.duration for report in reports.values()), default=0.0),
            start=min((report.start for report in reports.values()), default=0.0),
            stop=max((report.stop for report in reports.values()), default=0.0),
            user_properties=found,
        )


def _all_sections(reports: Mapping[int, pytest.TestReport]) -> list[tuple[str, str]]:
    """The sections of all ranks, each with its rank; once what all say that was not captured."""
    by_rank = {rank: _sections(report) for rank, report in sorted(reports.items())}
    shared = [
        section
        for section in next(iter(by_rank.values()), [])
        if section[0][:8] != "Captured" and all(section in own for own in by_rank.values())
    ]
    return shared + [
        (f"{name} (rank {rank})", text)
        for rank, own in by_rank.items()
        for name, text in own
        if (name, text) not in shared
    ]


def _sections(report: pytest.TestReport) -> list[tuple[str, str]]:
    """The captured sections, without what the group itself logs."""
    found = [
        (name, _C10D.sub("", text) if "log" in name else text) for name, text in report.sections
    ]
    return [(name, text) for name, text in found if text.strip()]


def _leveled(report: pytest.TestReport) -> str:
    return _OWN.sub("", report.longreprtext)


def failure_of(item: pytest.Item, text: str) -> Any:
    """Return a failure of the harness's own, at the test."""
    file, line, _ = item.reportinfo()
    return shown_failure(text, str(file), (line or 0) + 1)


def _named(longrepr: Any, ranks: str) -> Any:
    """Say which ranks a failure is of: in the line that the short summary shows."""
    crash = crash_of(longrepr)
    if crash is None:
        return f"[{ranks}] {longrepr}"
    crash.message = f"[{ranks}] {crash.message}"
    return longrepr
