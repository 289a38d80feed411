"""Choosing a list from scores: against slow definitions and enumerated probabilities."""

import itertools
import math

import numpy as np
import pytest
import torch

from raymeta.serve.policy import Slot, Wish, best, choose, diversify, draw


def test_the_best_are_the_highest_without_those_that_may_not_be_shown() -> None:
    scores = torch.tensor([0.1, -torch.inf, 3.0, 2.0])
    assert best(scores, 2) == [2, 3]
    assert best(scores, 10) == [2, 3, 0]
    assert best(torch.full((3,), -torch.inf), 2) == []


def probability_of(order: tuple[int, ...], weights: list[float]) -> float:
    """Of a Plackett-Luce list, by its definition."""
    probability, left = 1.0, sum(weights)
    for index in order:
        probability *= weights[index] / left
        left -= weights[index]
    return probability


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_propensities_are_those_of_plackett_luce(temperature: float) -> None:
    scores = torch.tensor([0.3, -1.0, 2.0, 0.0, -torch.inf])
    weights = [math.exp(s / temperature) for s in scores.tolist()]
    generator = np.random.default_rng(0)
    for _ in range(20):
        slots = draw(scores, 3, temperature=temperature, generator=generator)
        order = tuple(slot.index for slot in slots)
        product = math.prod(slot.propensity or 0.0 for slot in slots)
        assert product == pytest.approx(probability_of(order, weights), rel=1e-12)
        assert len(set(order)) == 3
        assert 4 not in order


def test_lists_are_drawn_as_often_as_their_propensity_says() -> None:
    scores = torch.tensor([1.0, 0.0, -0.5])
    weights = [math.exp(s) for s in scores.tolist()]
    generator = np.random.default_rng(1)
    num_draws = 6000
    counts = dict.fromkeys(itertools.permutations(range(3), 2), 0)
    for _ in range(num_draws):
        slots = draw(scores, 2, temperature=1.0, generator=generator)
        counts[slots[0].index, slots[1].index] += 1
    for order, count in counts.items():
        expected = probability_of(order, weights)
        error = math.sqrt(expected * (1 - expected) / num_draws)
        assert count / num_draws == pytest.approx(expected, abs=5 * error), order


def test_propensities_stay_exact_where_one_score_towers_over_the_rest() -> None:
    scores = torch.tensor([800.0, 0.0, -1.0])
    slots = draw(scores, 3, temperature=1.0, generator=np.random.default_rng(0))
    by_index = {slot.index: slot.propensity for slot in slots}
    assert by_index[0] == pytest.approx(1.0)
    second = slots[1]
    expected = 1 / (1 + math.exp(-1.0)) if second.index == 1 else 1 / (1 + math.exp(1.0))
    assert second.propensity == pytest.approx(expected, rel=1e-9)
    assert slots[2].propensity == pytest.approx(1.0)


def test_drawing_all_or_none() -> None:
    generator = np.random.default_rng(0)
    assert draw(torch.tensor([1.0]), 0, temperature=1.0, generator=generator) == []
    nothing = torch.full((3,), -torch.inf)
    assert draw(nothing, 2, temperature=1.0, generator=generator) == []
    assert len(draw(torch.zeros(3), 9, temperature=1.0, generator=generator)) == 3


def slow_mmr(scores: list[float], vectors: np.ndarray, n: int, weight: float) -> list[int]:
    low, high = min(scores), max(scores)
    relevance = [(s - low) / (high - low) for s in scores]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    chosen: list[int] = []
    while len(chosen) < n:
        worth = {
            i: (1 - weight) * relevance[i]
            - weight * max((float(unit[i] @ unit[j]) for j in chosen), default=0.0)
            for i in range(len(scores))
            if i not in chosen
        }
        chosen.append(max(worth, key=lambda i: (worth[i], -i)))
    return chosen


@pytest.mark.parametrize("weight", [0.1, 0.5, 0.9])
def test_diversity_is_maximal_marginal_relevance(weight: float) -> None:
    generator = np.random.default_rng(3)
    scores, vectors = generator.normal(size=12), generator.normal(size=(12, 4))
    fast = diversify(torch.from_numpy(scores), 6, torch.from_numpy(vectors), weight=weight)
    assert fast == slow_mmr(scores.tolist(), vectors, 6, weight)


def test_diversity_never_shows_what_may_not_be_shown() -> None:
    scores = torch.tensor([1.0, -torch.inf, 0.5])
    assert diversify(scores, 3, torch.eye(3), weight=1.0) == [0, 2]


def test_pins_keep_their_places_and_are_shown_once() -> None:
    scores = torch.tensor([5.0, 4.0, 3.0, 2.0, -torch.inf])
    slots = choose(scores, Wish(n=4, pins=((1, 4), (3, 0), (9, 2))))
    assert [(slot.index, slot.pinned) for slot in slots] == [
        (1, False),
        (4, True),
        (3, False),
        (0, True),
    ]


def test_a_pin_beyond_the_list_is_not_shown_and_short_lists_close_up() -> None:
    scores = torch.tensor([5.0, -torch.inf, -torch.inf])
    assert [s.index for s in choose(scores, Wish(n=3, pins=((2, 1),)))] == [0, 1]


def test_a_pinned_slot_of_a_drawn_list_was_certain() -> None:
    generator = np.random.default_rng(0)
    slots = choose(torch.zeros(4), Wish(n=3, pins=((0, 2),), temperature=1.0), generator=generator)
    assert slots[0] == Slot(2, propensity=1.0, pinned=True)
    assert [slot.propensity for slot in slots[1:]] == pytest.approx([1 / 3, 1 / 2])


@pytest.mark.parametrize("num_items", [49_999, 50_000, 50_001, 70_003])
@pytest.mark.parametrize("n", [1, 10, 100, 500])
def test_the_best_of_many_items_are_those_of_a_full_sort(num_items: int, n: int) -> None:
    generator = torch.Generator().manual_seed(num_items)
    scores = torch.randperm(num_items, generator=generator).float()
    scores[torch.randint(num_items, (num_items // 2,), generator=generator)] = -torch.inf
    expected = scores.argsort(descending=True)[:n].tolist()
    assert best(scores, n) == expected


def test_where_few_items_may_be_shown_no_other_is() -> None:
    scores = torch.full((60_000,), -torch.inf)
    scores[[5, 59_999]] = torch.tensor([1.0, 2.0])
    assert best(scores, 10) == [59_999, 5]
