"""What stands beside the answers, in words: what their intervals and decisions are worth, and where the time went."""

from typing import Any

from agebench.deploy.job import Tally, Timing
from agebench.reports.tables import count, with_interval
from agebench.runs.promises import calibrated_from

STAGES = ("decode", "detect", "align", "estimate", "draw")


def interval_in_words(interval: dict[str, Any]) -> str:
    """How wide, calibrated on whom, and how it held."""
    reach = f"{interval['radius']:.2f} " + ("of the model's own standard deviations" if interval["scaled"] else "years")
    held = "; ".join(
        f"{with_interval(found, digits=1, percent=True)} of {count(found['n'])} in {name}"
        for name, found in interval["coverage"].items()
    )
    return (
        f"interval: estimate ± {reach}, to hold {100 * interval['level']:g} % of true ages among faces like those of "
        f"{interval['calibrated_on']}, {calibrated_from(interval)}; among other faces it need not. Measured: {held}"
    )


def gate_in_words(gate: dict[str, Any]) -> str:
    """The rule, and how it errs on each test set."""
    said = []
    for name, found in gate["tests"].items():
        if found is None:
            said.append(f"{name}: not measured, nobody in it is on one side of {gate['threshold']}")
            continue
        passed, stopped = (with_interval(found[key], digits=1, percent=True) for key in ("fpr", "fnr"))
        said.append(
            f"{name}: {passed} of {count(found['n_under'])} faces below {gate['threshold']} pass as over, {stopped} of "
            f"{count(found['n_over'])} others do not"
        )
    rule = f"gate: 'over' {gate['threshold']} only where the estimate is {gate['challenge']:g} or more, else 'check'"
    return f"{rule}. Measured: {'; '.join(said)}"


def tally_in_words(tally: Tally) -> str:
    """How many, and how many not."""
    said = f"{count(tally.faces)} faces in {count(tally.pictures)} pictures"
    return said + (f"; {count(tally.without)} without an age, the first {tally.reason}" if tally.without else "")


def timing_in_words(timing: Timing) -> str:
    """Frames a second from end to end, and milliseconds of processor time in each stage."""
    each = {stage: 1000 * timing.seconds[stage] / max(1, timing.frames) for stage in STAGES if stage in timing.seconds}
    work = ", ".join(f"{stage} {taken:.1f}" for stage, taken in each.items())
    speed = f"{timing.rate:.1f} frames/s from end to end" if timing.frames > 1 else "one frame"
    spent = f"milliseconds of processor time a frame: {work}; in all {sum(each.values()):.1f}"
    damaged = f"; {timing.damaged} damaged pieces passed over" if timing.damaged else ""
    return f"{timing.name}: {timing.frames:,} frames, {speed} ({spent}){damaged}"
