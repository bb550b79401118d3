"""Messages of `agebench predict`: validity of intervals and gates, counts, and timings."""

from agebench.inference.batch_predict import PredictSummary, VideoTiming
from agebench.inference.input_sources import describe_left_out
from agebench.metrics.schema import CalibratedInterval, GateGuarantee
from agebench.reports.formatting import format_ci, format_count

STAGES = ("decode", "detect", "align", "estimate", "draw")


def format_interval(interval: CalibratedInterval) -> str:
    """Describe an interval: width, calibration set, and coverage on the test sets.

    Args:
        interval: see `agebench.metrics.guarantees.conformal_interval`.
    """
    width = f"{interval.radius:.2f} " + ("of the model's own standard deviations" if interval.scaled else "years")
    coverage = "; ".join(
        f"{format_ci(share, digits=1, percent=True)} of {format_count(share.n)} in {name}"
        for name, share in interval.coverage.items()
    )
    return (
        f"interval: estimate ± {width}, to hold {100 * interval.level:g} % of true ages among faces like those of "
        f"{interval.calibrated_on}, {interval.calibration_size}; among other faces it need not. Measured: {coverage}"
    )


def format_gate(gate: GateGuarantee) -> str:
    """Describe a gate: the rule, and its error rates on each test set.

    Args:
        gate: see `agebench.metrics.guarantees.gate_error_rates`.
    """
    measurements = []
    for name, rates in gate.tests.items():
        if rates is None:
            measurements.append(f"{name}: not measured, no person is on one side of {gate.threshold}")
            continue
        passed, stopped = (format_ci(rate, digits=1, percent=True) for rate in (rates.fpr, rates.fnr))
        measurements.append(
            f"{name}: {passed} of {format_count(rates.n_under)} faces below {gate.threshold} pass as over, {stopped} of "
            f"{format_count(rates.n_over)} others do not"
        )
    rule = f"gate: 'over' {gate.threshold} only where the estimate is {gate.challenge:g} or more, else 'check'"
    return f"{rule}. Measured: {'; '.join(measurements)}"


def format_summary(summary: PredictSummary) -> str:
    """Describe how many images have ages.

    Args:
        summary: the counts.
    """
    text = f"{format_count(summary.faces, 'face')} in {format_count(summary.images, 'image')}"
    if summary.without:
        text += f"; {format_count(summary.without)} without an age, the first {summary.reason}"
    if summary.finished_before:
        text += f"; finished before: {format_count(summary.finished_before, 'shard')}"
    if summary.left_out:
        text += f"; left out: {describe_left_out(summary.left_out)}"
    return text


def format_timing(timing: VideoTiming) -> str:
    """Describe a video's timing: frames per second from end to end, and milliseconds of processor time per stage.

    Args:
        timing: the timing.
    """
    stages = {
        stage: 1000 * timing.seconds[stage] / max(1, timing.frames) for stage in STAGES if stage in timing.seconds
    }
    work = ", ".join(f"{stage} {milliseconds:.1f}" for stage, milliseconds in stages.items())
    speed = f"{timing.rate:.1f} frames/s from end to end" if timing.frames > 1 else "one frame"
    durations = f"milliseconds of processor time a frame: {work}; in all {sum(stages.values()):.1f}"
    damaged = f"; {timing.damaged} damaged pieces passed over" if timing.damaged else ""
    return f"{timing.name}: {timing.frames:,} frames, {speed} ({durations}){damaged}"
