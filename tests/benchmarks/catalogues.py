"""How an endpoint's speed depends on its catalogue, its users at a time and its replicas.

    python -m tests.benchmarks.catalogues --items 10000 100000 1000000 --replicas 1 2

Each catalogue is one of random item vectors (what is recommended is of no matter here), served
beside an application that does nothing, in the same mode; each request brings a fresh event and
asks for ten items of the whole catalogue. The two are measured in turn, round by round. Prints a
line a combination: requests a second, p50 and p99 in ms, and the same of the other application.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import torch

from raymeta import runtime
from raymeta.artifact import save_artifact
from raymeta.config.algorithms import CaviaConfig
from raymeta.config.build import restore_algorithm
from raymeta.config.experiment import ExperimentConfig
from raymeta.config.models import FactorizationConfig
from raymeta.data.catalogue import Catalogue
from raymeta.data.features import NO_FEATURES
from raymeta.data.task_split import load_task_split
from raymeta.serve.load.client import Outcomes, closed_loop
from raymeta.serve.load.report import summary
from raymeta.serve.load.run import Target, _address, _requests, _run, discover
from raymeta.serve.load.traffic import Traffic
from raymeta.serve.local import serve_beside_noop
from tests.helpers.shops import SHOP, write_grouped_shop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--users", type=int, nargs="+", default=[1, 8, 64], help="at a time")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each phase")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--port", type=int, default=0, help="a free one if not given")
    options = parser.parse_args()
    print(
        "items replicas users |  per s     p50     p99 | no-op/s   p50 | of the no-op's: per s, p50"
    )
    for num_items in options.items:
        with tempfile.TemporaryDirectory() as folder:
            artifact = random_artifact(Path(folder) / "artifact", num_items, dim=options.dim)
            for num_replicas in options.replicas:
                store = Path(folder) / f"events-{num_replicas}.sqlite"
                port = options.port or runtime.free_port()
                with serve_beside_noop(
                    artifact, port=port, num_replicas=num_replicas, store=store
                ) as urls:
                    for users, found in measured(urls, options):
                        print(_line(num_items, num_replicas, users, found), flush=True)


def random_artifact(path: Path, num_items: int, *, dim: int) -> Path:
    """An artifact of untrained meta-parameters and random vectors."""
    experiment = ExperimentConfig(
        name="random",
        data=SHOP,
        model=FactorizationConfig(dim=dim, regularisation=100.0),
        algorithm=CaviaConfig(inner_lr=0.5, num_inner_steps=1),
    )
    split = load_task_split(write_grouped_shop(path.with_name("shop")), SHOP)
    generator = torch.Generator().manual_seed(0)
    tables = {
        "item_vectors": torch.randn(num_items, dim, generator=generator) / num_items**0.5,
        "spectrum": torch.linspace(1000.0, 1.0, dim),
        "item_prior": torch.randn(num_items, generator=generator),
        "log_total": torch.tensor(float(num_items)).log(),
        "log_num_items": torch.tensor(float(num_items)).log(),
    }
    algorithm = restore_algorithm(experiment, tables, item_vocab=NO_FEATURES, user_vocab=None)
    ids = pa.table({"item_id": [f"item-{n}" for n in range(num_items)]})
    catalogue = Catalogue(ids, {}, NO_FEATURES)
    return save_artifact(
        path,
        experiment=experiment,
        split=replace(split, catalogue=catalogue),
        algorithm=algorithm,
        meta_params=algorithm.init(generator),
        metrics={},
    )


def measured(
    urls: dict[str, str], options: argparse.Namespace
) -> Iterator[tuple[int, dict[str, Outcomes]]]:
    """Users at a time, and what each application did with them."""
    targets = [Target(name, url) for name, url in urls.items()]
    item_ids, event_type = discover(targets[0])
    requests = {t.name: _requests(t, Traffic(), item_ids, event_type) for t in targets}
    for users in options.users:
        found = {target.name: Outcomes() for target in targets}
        for _ in range(options.rounds):
            for target in targets:
                loop = closed_loop(
                    *_address(target),
                    requests[target.name],
                    concurrency=users,
                    duration_s=options.seconds,
                )
                outcomes, total = _run(loop), found[target.name]
                total.latencies_s += outcomes.latencies_s
                total.statuses += outcomes.statuses
                total.wall_s += outcomes.wall_s
        yield users, found


def _line(items: int, replicas: int, users: int, found: dict[str, Outcomes]) -> str:
    mine, noop = summary(found["recommend"]), summary(found["noop"])
    mine_ms, noop_ms = mine["latency_ms"], noop["latency_ms"]
    errors = f" errors {mine['errors']}" if mine["errors"] else ""
    return (
        f"{items:9,d} {replicas:3d} {users:4d} | {mine['throughput_per_s']:7.1f} "
        f"{mine_ms['p50']:7.2f} {mine_ms['p99']:7.2f} | {noop['throughput_per_s']:7.1f} "
        f"{noop_ms['p50']:5.2f} | {mine['throughput_per_s'] / noop['throughput_per_s']:.2f} "
        f"{mine_ms['p50'] / noop_ms['p50']:.1f}{errors}"
    )


if __name__ == "__main__":
    main()
