"""What stands beside the answers, in words: what their intervals and decisions are worth, and where the time went."""

from typing import Any

from agebench.inference.batch_predict import PredictSummary, VideoTiming
from agebench.reports.formatting import format_ci, format_count
from agebench.runs.guarantees import calibrated_from

STAGES = ("decode", "detect", "align", "estimate", "draw")


def format_interval(interval: dict[str, Any]) -> str:
    """How wide, calibrated on whom, and how it held."""
    reach = f"{interval['radius']:.2f} " + ("of the model's own standard deviations" if interval["scaled"] else "years")
    held = "; ".join(
        f"{format_ci(found, digits=1, percent=True)} of {format_count(found['n'])} in {name}"
        for name, found in interval["coverage"].items()
    )
    return (
        f"interval: estimate ± {reach}, to hold {100 * interval['level']:g} % of true ages among faces like those of "
        f"{interval['calibrated_on']}, {calibrated_from(interval)}; among other faces it need not. Measured: {held}"
    )


def format_gate(gate: dict[str, Any]) -> str:
    """The rule, and how it errs on each test set."""
    said = []
    for name, found in gate["tests"].items():
        if found is None:
            said.append(f"{name}: not measured, nobody in it is on one side of {gate['threshold']}")
            continue
        passed, stopped = (format_ci(found[key], digits=1, percent=True) for key in ("fpr", "fnr"))
        said.append(
            f"{name}: {passed} of {format_count(found['n_under'])} faces below {gate['threshold']} pass as over, {stopped} of "
            f"{format_count(found['n_over'])} others do not"
        )
    rule = f"gate: 'over' {gate['threshold']} only where the estimate is {gate['challenge']:g} or more, else 'check'"
    return f"{rule}. Measured: {'; '.join(said)}"


def format_summary(tally: PredictSummary) -> str:
    """How many, and how many not."""
    said = f"{format_count(tally.faces)} faces in {format_count(tally.pictures)} pictures"
    return said + (f"; {format_count(tally.without)} without an age, the first {tally.reason}" if tally.without else "")


def format_timing(timing: VideoTiming) -> str:
    """Frames a second from end to end, and milliseconds of processor time in each stage."""
    each = {stage: 1000 * timing.seconds[stage] / max(1, timing.frames) for stage in STAGES if stage in timing.seconds}
    work = ", ".join(f"{stage} {taken:.1f}" for stage, taken in each.items())
    speed = f"{timing.rate:.1f} frames/s from end to end" if timing.frames > 1 else "one frame"
    spent = f"milliseconds of processor time a frame: {work}; in all {sum(each.values()):.1f}"
    damaged = f"; {timing.damaged} damaged pieces passed over" if timing.damaged else ""
    return f"{timing.name}: {timing.frames:,} frames, {speed} ({spent}){damaged}"
