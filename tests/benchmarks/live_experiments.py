"""What the experiment machinery finds, on simulated shops whose truth is known.

    python tests/benchmarks/live_experiments.py

Users are dealt by `raymeta.serve.traffic`, shown lists, click by a cascade (each item looked at in
turn, clicked with the probability of its relevance), and are counted by `raymeta.evaluation.online`
as a service counts them. Printed: how often alarms are raised where nothing is wrong, how often a
split of 51 to 49 is found, and how many impressions it takes to find a variant that is better, by
two groups of users and by interleaved lists.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from raymeta.evaluation.online.attribution import DAY_MS, Act, Tally, Windows
from raymeta.evaluation.online.interleaving import team_draft
from raymeta.evaluation.online.statistics import difference, rate, sample_ratio_p
from raymeta.serve.traffic import assign, new_interleaved_id, new_list_id, origin_of

NUM_ITEMS, LENGTH = 200, 10
SHARES = {"old": 1.0, "new": 1.0}
AFTER_ALL_WINDOWS = 30 * DAY_MS


@dataclass(frozen=True)
class Shop:
    """Relevance of items differs by user; a ranking sees it through noise of its own.

    Attributes:
        noise: of each variant's scores: less is better.
        click: probability of a click on the most relevant item.
    """

    noise: dict[str, float]
    click: float = 0.08

    def relevance(self, generator: np.random.Generator) -> np.ndarray:
        return self.click * generator.beta(0.5, 3.0, NUM_ITEMS)

    def ranking(
        self, variant: str, relevance: np.ndarray, generator: np.random.Generator
    ) -> list[str]:
        scores = relevance + self.noise[variant] * self.click * generator.standard_normal(NUM_ITEMS)
        return [str(item) for item in np.argsort(-scores)[:LENGTH]]


def acts_on(
    items: list[str], list_id: str, relevance: np.ndarray, generator: np.random.Generator
) -> list[Act]:
    """Everything is shown; what is clicked is up to its relevance."""
    shown = [Act(item, "impression", 0, list_id, place) for place, item in enumerate(items)]
    clicked = [item for item in items if generator.random() < relevance[int(item)]]
    return shown + [Act(item, "view", 1, list_id) for item in clicked]


def tally() -> Tally:
    return Tally(origin_of, Windows(), AFTER_ALL_WINDOWS)


def two_groups(shop: Shop, num_users: int, generator: np.random.Generator, salt: str) -> Tally:
    """One list a user, of the variant that the user was dealt."""
    found = tally()
    for user in range(num_users):
        variant = assign(str(user), SHARES, default="old", salt=salt)
        relevance = shop.relevance(generator)
        items = shop.ranking(variant, relevance, generator)
        found.add(acts_on(items, new_list_id(variant), relevance, generator))
    return found


def interleaved(shop: Shop, num_users: int, generator: np.random.Generator) -> Tally:
    """One interleaved list a user."""
    found = tally()
    for _ in range(num_users):
        relevance = shop.relevance(generator)
        rankings = [shop.ranking(name, relevance, generator) for name in ("new", "old")]
        drafted = team_draft(*rankings, length=LENGTH, generator=generator)
        list_id = new_interleaved_id(("new", "old"), drafted.from_first)
        found.add(acts_on(drafted.items, list_id, relevance, generator))
    return found


def clear_by_groups(found: Tally) -> bool:
    """Whether the new variant is found better."""
    new, old = found.outcomes["new"], found.outcomes["old"]
    return difference(new.users_clicked_rate(), old.users_clicked_rate()).low > 0


def clear_by_interleaving(found: Tally) -> bool:
    preference = found.preferences["new", "old"]
    return preference.lead > 0 and preference.p < 0.05


def share(times: int, trials: int) -> str:
    """`5.1% (3.9% to 6.6%)`."""
    found = rate(times, trials)
    return f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%})"


def equals(num_experiments: int, num_users: int, table: Table) -> None:
    """A/A experiments: nothing is wrong and nothing is better."""
    shop = Shop({"old": 0.3, "new": 0.3})
    split = {0.05: 0, 0.01: 0, 0.001: 0}
    wrong = 0
    for number in track(range(num_experiments), "A/A experiments"):
        found = two_groups(shop, num_users, np.random.default_rng(number), f"salt{number}")
        counts = {name: outcome.users for name, outcome in found.outcomes.items()}
        p = sample_ratio_p(counts, SHARES)
        for level in split:
            split[level] += p < level
        new, old = found.outcomes["new"], found.outcomes["old"]
        wrong += difference(new.users_clicked_rate(), old.users_clicked_rate()).is_clear
    for level, times in split.items():
        table.add_row(
            f"A/A: split alarm at {level:g}", f"{level:.1%}", share(times, num_experiments)
        )
    table.add_row("A/A: a variant found better or worse", "5.0%", share(wrong, num_experiments))
    wrong = 0
    for number in track(range(num_experiments), "A/A interleaved"):
        found = interleaved(shop, num_users // 4, np.random.default_rng(number))
        wrong += found.preferences["new", "old"].p < 0.05
    table.add_row("A/A interleaved: one preferred", "at most 5%", share(wrong, num_experiments))


def uneven(num_experiments: int, table: Table) -> None:
    """Users dealt 51 to 49 where 50 to 50 was asked for."""
    dealt = {"old": 51.0, "new": 49.0}
    for num_users in (10_000, 40_000, 100_000):
        found = 0
        for number in track(range(num_experiments), f"51 to 49, {num_users:,} users"):
            generator = np.random.default_rng(number)
            old = int(generator.binomial(num_users, dealt["old"] / 100.0))
            p = sample_ratio_p({"old": old, "new": num_users - old}, SHARES)
            found += p < 0.001
        what = f"51 to 49 found among {num_users:,} users, at 0.001"
        table.add_row(what, "", share(found, num_experiments))


def needed(
    run: Callable[[int, np.random.Generator], Tally],
    is_clear: Callable[[Tally], bool],
    num_experiments: int,
) -> tuple[int, str]:
    """The least number of users, doubling, by which 80% of experiments find the better one."""
    num_users = 50
    while True:
        found = sum(
            is_clear(run(num_users, np.random.default_rng((number, num_users))))
            for number in range(num_experiments)
        )
        if found >= 0.8 * num_experiments or num_users > 100_000:
            return num_users, share(found, num_experiments)
        num_users *= 2


def better(num_experiments: int, table: Table) -> None:
    """A new variant that ranks with less noise."""
    shop = Shop({"old": 0.3, "new": 0.15})
    groups, power = needed(
        lambda users, generator: two_groups(shop, users, generator, str(users)),
        clear_by_groups,
        num_experiments,
    )
    table.add_row(f"better variant found by groups, {groups * LENGTH:,} impressions", "", power)
    lists, power = needed(
        lambda users, generator: interleaved(shop, users, generator),
        clear_by_interleaving,
        num_experiments,
    )
    table.add_row(f"found by interleaving, {lists * LENGTH:,} impressions", "", power)
    table.add_row("groups need so many times the impressions", "", f"{groups / lists:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=1000)
    parser.add_argument("--users", type=int, default=400, help="in each A/A experiment")
    parser.add_argument("--planted", type=int, default=60, help="experiments with a better variant")
    options = parser.parse_args()
    table = Table("what", "should be", "found (95% interval)")
    equals(options.experiments, options.users, table)
    uneven(options.experiments, table)
    better(options.planted, table)
    Console().print(table)


if __name__ == "__main__":
    main()
