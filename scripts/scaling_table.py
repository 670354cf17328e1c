"""What pictures cost on 1 to 64 GPUs, computed from what one was measured to do.

    python scripts/scaling_table.py                        # the tables of docs/scaling_costs.md
    python scripts/scaling_table.py --price 2.5 --drawings 16
    python scripts/scaling_table.py --write docs           # the page's tables, and its plot

The measured figures are read from docs/benchmarks_gpu.md, which scripts/bench_gpu.py writes.
benchmarks/scaling/steps.py has the formulas and says where they come from.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.scaling.measured import fit, read_page
from benchmarks.scaling.page import PAGE, PLOT, filled
from benchmarks.scaling.plot import plot
from benchmarks.scaling.shapes import H200
from benchmarks.scaling.tables import Plan, all_tables

MEASURED = Path(__file__).resolve().parents[1] / "docs" / "benchmarks_gpu.md"
DRAWINGS = 64  # the most that were measured
PRICE = 4.0  # dollars; an assumption


def parse() -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--price", type=float, default=PRICE, metavar="DOLLARS", help=f"a GPU hour's ({PRICE})"
    )
    parser.add_argument(
        "--drawings", type=int, default=DRAWINGS, help=f"under way for each GPU ({DRAWINGS})"
    )
    parser.add_argument("--write", type=Path, metavar="FOLDER", help=f"of {PAGE} and {PLOT}")
    args = parser.parse_args()
    if args.drawings < 1 or not args.price > 0:
        parser.error("--drawings and --price must be above 0")
    return args


def main() -> None:
    """Print the tables, or write them."""
    args = parse()
    measured = read_page(MEASURED.read_text(encoding="utf-8"))
    plan = Plan(gpu=H200, speed=fit(measured), per_gpu=args.drawings, price=args.price)
    tables = all_tables(plan, measured)
    if args.write is None:
        print("\n\n".join(tables.values()))
        return
    page = args.write / PAGE
    page.write_text(filled(page.read_text(encoding="utf-8"), tables), encoding="utf-8")
    plot(plan, args.write / PLOT)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(str(error))
