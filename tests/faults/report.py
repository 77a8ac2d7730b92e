"""What became of the requests, as a table of Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tests.faults.load import ANSWERED, WITHOUT, Sample

HEAD = "| request | while it is gone | longest | right again after |\n|---|---|---|---|"


def table(name: str, way: str, samples: Sequence[Sample], gone: float, back: float, over: float) -> str:
    """
    Args:
        name: The service.
        way: How it was gone.
        samples: All requests since then.
        gone: When, as the others in seconds of the monotonic clock.
        back: When it was started again, or went on.
        over: When all kinds were well again, and every upload processed.
    """
    told = f"{name.capitalize()}, {way} for {back - gone:.0f} s; all is done {over - back:.0f} s after that"
    lines = [f"**{told}**\n", HEAD]
    for kind in sorted({sample.kind for sample in samples}):
        of_kind = [sample for sample in samples if sample.kind == kind]
        meanwhile = [sample for sample in of_kind if sample.began < back]
        right = [s.ended - back for s in of_kind if s.began >= back and s.outcome == ANSWERED]
        longest = max(sample.ended - sample.began for sample in of_kind)
        after = f"{min(right):.1f} s" if right else "never"
        lines.append(f"| {kind} | {became(meanwhile)} | {longest:.1f} s | {after} |")
    return "\n".join(lines)


def became(samples: Sequence[Sample]) -> str:
    """For example `12 of 40 answered, 28 503 store_unavailable`."""
    counted = Counter(sample.outcome for sample in samples)
    texts = [f"{counted.pop(ANSWERED, 0)} of {len(samples)} answered"]
    if without := counted.pop(WITHOUT, 0):
        texts.append(f"{without} without documents")
    texts += [f"{number} x `{outcome}`" for outcome, number in counted.most_common()]
    return ", ".join(texts)
