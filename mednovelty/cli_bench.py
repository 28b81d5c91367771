"""The command bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mednovelty import console
from mednovelty.cli_options import Json, Overwrite, Set, end


def bench(
    name: Annotated[
        str,
        typer.Argument(help="list, or a benchmark: mnist-novel-digit, miso; with a data set: fashion-miso."),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="Folder of data sets; default: where their manifests say, below $MEDNOVELTY_DATA."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where results go; default: runs/NAME.")
    ] = None,
    methods: Annotated[
        str, typer.Option("--methods", help="a,b; groups, all of the protocol; trivial: in pixels.")
    ] = "all",
    scores: Annotated[
        str,
        typer.Option(
            "--scores", help="Names or groups, a,b; all: without the group generated, which optimises."
        ),
    ] = "all",
    classes: Annotated[
        str | None,
        typer.Option("--classes", "--ood", help="a,b; default: all. Of ood: what is out of distribution."),
    ] = None,
    datasets: Annotated[
        str | None,
        typer.Option("--datasets", "--in", help="a,b; default: the protocol's first. In distribution."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, help="Trainings a class; default: the protocol's.")
    ] = None,
    first_seed: Annotated[int, typer.Option("--first-seed", help="The others follow it.")] = 0,
    assignments: Set = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option("--sweep", help="name=a,b: a setting with each value, a row each; repeatable."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Run what is not done yet.")] = False,
    overwrite: Overwrite = False,
    workers: Annotated[
        int, typer.Option("--workers", min=0, help="Processes side by side; 0: in this one.")
    ] = 1,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Processor threads of each worker; default: 1.")
    ] = None,
    device: Annotated[str, typer.Option("--device", "-d", help="cpu, cuda, cuda:1 or auto.")] = "cpu",
    oracle: Annotated[
        bool,
        typer.Option("--oracle", help="Choose settings by labels of the test, as papers do; tables say so."),
    ] = False,
    against: Annotated[
        str | None,
        typer.Option("--against", help="Other libraries beside it: pyod,anomalib, or pyod_knn and such."),
    ] = None,
    against_python: Annotated[
        list[str] | None,
        typer.Option("--against-python", help="Which Python has one: pyod=envs/pyod/bin/python."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a published protocol and print the paper's numbers beside ours."""
    from mednovelty import bench_command

    if name == "list":
        end(console.run(lambda: bench_command.list_benchmarks(as_json), as_json))
    request = bench_command.BenchRequest(
        name=name,
        data=data,
        output=output,
        methods=methods,
        scores=scores,
        classes=classes,
        datasets=datasets,
        seeds=seeds,
        first_seed=first_seed,
        assignments=assignments or (),
        sweep=sweep or (),
        resume=resume,
        overwrite=overwrite,
        workers=workers,
        threads=threads,
        device=device,
        oracle=oracle,
        against=against,
        against_python=against_python or (),
        as_json=as_json,
    )
    end(console.run(lambda: bench_command.bench(request), as_json))


__all__ = ["bench"]
