"""Run the benchmark: ``python -m benchmarks`` from the top of the checkout."""

from __future__ import annotations

import argparse
import datetime as dt
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import attrs

from benchmarks import machine, report
from benchmarks.blobs import PushError
from benchmarks.certificate import make_certificate
from benchmarks.clients import ClientError
from benchmarks.loads import LOADS
from benchmarks.peers import RECIPES, REGISTRY_NAME, SERVERS
from benchmarks.plan import FULL, QUICK, Bench, Samples
from benchmarks.servers import REPOSITORY_ROOT, Launcher, ServerError
from benchmarks.upstream import Upstream

TABLE = REPOSITORY_ROOT / "docs" / "explanation" / "_performance_table.md"
_TMPFS = Path("/dev/shm")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Put regproxy beside nginx and docker-registry, and print a Markdown table.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="smaller blobs and two rounds: a few minutes"
    )
    parser.add_argument(
        "--only", action="append", choices=sorted(LOADS), help="one load; may be repeated"
    )
    parser.add_argument(
        "--server",
        action="append",
        choices=SERVERS,
        help="one server; may be repeated (ratios need the others)",
    )
    parser.add_argument("--rounds", type=int, help="how often to measure everything")
    parser.add_argument(
        "--directory",
        type=Path,
        default=_TMPFS if _TMPFS.is_dir() else Path(tempfile.gettempdir()),
        help="for caches and upstream's storage: a tmpfs with 8 GiB free (%(default)s)",
    )
    parser.add_argument(
        "--output", type=Path, help=f"where the table goes; a complete run writes {TABLE}"
    )
    parser.add_argument(
        "--check", action="store_true", help="say which targets are met; status 1 if one is not"
    )
    return parser.parse_args(argv)


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    """Stop the run, once: a second signal must not disturb the clearing away."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _measure(arguments: argparse.Namespace, bench_directory: Path) -> tuple[Samples, str]:
    """Run the loads, and return the figures and the table."""
    plan = QUICK if arguments.quick else FULL
    if arguments.rounds:
        plan = attrs.evolve(plan, rounds=arguments.rounds)
    certificate, private_key = make_certificate(bench_directory, REGISTRY_NAME)
    samples = Samples()
    started = dt.datetime.now(dt.UTC)
    upstream = Upstream.start(bench_directory)
    launcher = Launcher(
        directory=bench_directory,
        upstream=upstream.url,
        certificate=certificate,
        private_key=private_key,
        recipes=RECIPES,
    )
    try:
        bench = Bench(plan, arguments.server or SERVERS, launcher, upstream, samples, _say)
        for name, load in LOADS.items():
            if not arguments.only or name in arguments.only:
                _say(f"{name}: {load.__doc__}")
                begun = time.monotonic()
                load(bench)
                _say(f"{name}: {time.monotonic() - begun:.0f} s")
    finally:
        launcher.stop_all()
        upstream.server.stop()
    return samples, report.table(samples, plan, started)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what the arguments ask for, and return the exit status."""
    arguments = _arguments(argv)
    if missing := machine.missing_programs():
        _say(f"not installed: {', '.join(missing)} (Debian packages of these names)")
        return 2
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with tempfile.TemporaryDirectory(
            prefix="regproxy-bench-", dir=arguments.directory
        ) as directory:
            samples, table = _measure(arguments, Path(directory))
    except (ServerError, ClientError, PushError) as error:
        _say(f"stopped: {error}")
        return 2
    except KeyboardInterrupt:
        _say("stopped")
        return 130
    complete = not (arguments.quick or arguments.only or arguments.server)
    output = arguments.output or (TABLE if complete else None)
    if output is not None:
        output.write_text(table)
    print(table)
    if not arguments.check:
        return 0
    verdicts = report.verdicts(samples)
    for text, met in verdicts:
        print({True: "met", False: "NOT MET", None: "not measured"}[met].ljust(13), text)
    return 1 if any(met is False for _, met in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
