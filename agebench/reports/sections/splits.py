"""Description of the split protocol of a run, and of its leaks."""

from collections.abc import Iterator

from agebench.config.cards.protocol import DEFAULT
from agebench.metrics.schema import MetricsFile, ProtocolSummary
from agebench.reports.formatting import escape_markdown, format_count, format_number, join_words

LEAKY = "‡"


def _protocol_of(metrics: MetricsFile) -> str:
    """The protocol's name; "" for the default one, and where there was none to choose."""
    name = metrics.protocol.name if metrics.protocol else DEFAULT
    return "" if name == DEFAULT else name


def leaks_of(protocol: ProtocolSummary | None) -> dict[str, int]:
    """Return `duplicates` and `subjects` on both sides of the protocol's split; empty where nothing leaks."""
    leaks = protocol.leaks if protocol and isinstance(protocol.leaks, dict) else {}
    return {key: leaks.get(key, 0) for key in ("duplicates", "subjects")} if any(leaks.values()) else {}


def test_label(name: str, metrics: MetricsFile) -> str:
    """Return the name of a test set in tables; the training set's own held-out part is named after its protocol."""
    if name != metrics.train:
        return escape_markdown(name)
    return escape_markdown(f"{name} ({_protocol_of(metrics) or 'held-out part'})") + (
        LEAKY if leaks_of(metrics.protocol) else ""
    )


test_label.__test__ = False  # type: ignore[attr-defined]  # pytest: this is no test


def describe_protocol(metrics: MetricsFile) -> str:
    """Below a table: how the training set was divided, what leaks, and how many folds the figures are of."""
    home, folds = metrics.train, (metrics.protocol.folds if metrics.protocol else None) or 1
    sentences = []
    if _protocol_of(metrics):
        often = f" into {folds} folds, each with a model of its own" if folds > 1 else ""
        sentences.append(
            f"{escape_markdown(home)} was divided by its protocol {escape_markdown(_protocol_of(metrics))}{often}."
        )
    return "\n\n".join(filter(None, [" ".join([*sentences, *_folds(metrics)]), _describe_leaks(metrics)]))


def _describe_leaks(metrics: MetricsFile) -> str:
    """The warning beside every figure of a leaky protocol; "" where nothing leaks."""
    leaks = leaks_of(metrics.protocol)
    if not leaks:
        return ""
    found = [
        f"{format_count(leaks['duplicates'])} test images are also in training or validation"
        if leaks["duplicates"]
        else "",
        f"{format_count(leaks['subjects'])} people of the test are also trained on" if leaks["subjects"] else "",
    ]
    return (
        f"{LEAKY} **This protocol leaks: {join_words(list(filter(None, found)))}.** It was run as published; its "
        "figures flatter the "
        "model and are no measure of unseen faces."
    )


def _folds(metrics: MetricsFile) -> Iterator[str]:
    for name, test in metrics.tests.items():
        folds = test.folds
        if not folds:
            continue
        maes, named = folds.mae, [escape_markdown(fold) for fold in folds.names]
        best, worst = maes.index(min(maes)), maes.index(max(maes))
        yield (
            f"On {escape_markdown(name)} the folds' own MAEs are {format_number(folds.mean)} on average (standard deviation "
            f"{format_number(folds.sd)}; {format_number(maes[best])} in fold {named[best]} to "
            f"{format_number(maes[worst])} in fold {named[worst]})."
        )
