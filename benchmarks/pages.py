"""What a page of 20,000 parameters costs to write, to keep and to open: python benchmarks/pages.py

Beside what one would otherwise run for the same numbers, one parameter after the other: a
histogram, range, mean, deviation, norm and the count of what is not finite, of each parameter and
of its gradient. Opened in a headless Chromium where that and selenium are installed: the browser's
own clock says when all is drawn.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from timing import Row, alternate, median, paired_ratio, show
from torch import nn

from pytest_paramcheck import param_page

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.pages.browser import browser, why_not
from tests.pages.models import Deep

RUNS = 5


def by_hand(model: nn.Module) -> list[object]:
    """The numbers of a page."""
    found: list[object] = []
    for parameter in model.parameters():
        for values in (parameter.detach(), parameter.grad):
            if values is not None:
                low, high = float(values.min()), float(values.max())
                found.append(
                    (
                        torch.histc(values, 24, low, high).tolist(),
                        float(values.mean()),
                        float(values.std(correction=0)),
                        float(values.norm()),
                        int((~values.isfinite()).sum()),
                    )
                )
    return found


def opened(path: Path) -> float:
    """Return how many seconds a browser took to draw a page, the median of a few times."""
    script = "return performance.getEntriesByType('navigation')[0].loadEventEnd"
    taken = []
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as page:
        page.looks()
        for _ in range(RUNS):
            page.open(path)
            taken.append(float(page.run(script)) / 1000)
    return median(taken)


def main() -> int:
    """Print the table; 1 where a budget is missed."""
    torch.manual_seed(0)
    model = Deep()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "page.html")
        written, loop = alternate(RUNS, lambda: param_page(model, path), lambda: by_hand(model))
        size = path.stat().st_size
        seconds, ratio = median(written), paired_ratio(written, loop)
        rows = [
            Row("a page of 20,000 parameters, written", f"{seconds:.2f} s", "2 s", seconds < 2),
            Row("beside a loop over the same numbers", f"{ratio:.2f}x", "", kept=True),
            Row("the file", f"{size / 1e6:.2f} MB", "5 MB", size < 5_000_000),
        ]
        if missing := why_not():
            rows.append(Row("opened", f"not measured: {missing}", "1 s", kept=True))
        else:
            drawn = opened(path)
            rows.append(Row("opened", f"{drawn:.2f} s", "1 s", drawn < 1))
    return 0 if show(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
