"""The learners' promises as a table, read off the checks themselves; the README shows it.

    python -m tests.contract.test_algorithm_table        prints the table

A `+` is a check of `test_algorithms.py` that runs for the row; an empty cell is a promise that the
row does not make.
"""

import inspect
from pathlib import Path

from tests.contract import test_algorithms as checks

README = Path(__file__).parents[2] / "raymeta" / "algorithms" / "README.md"

COLUMNS = {
    "test_zero_steps_and_an_empty_support_are_the_start": "no step: the start",
    "test_adapting_lowers_a_smooth_support_loss": "loss falls",
    "test_the_meta_gradient_is_that_of_finite_differences": "gradient",
    "test_every_meta_parameter_gets_a_gradient_and_a_fixed_one_none": "reaches all",
    "test_adapting_leaves_the_meta_parameters_as_they_were": "pure",
    "test_a_batch_gives_each_task_what_it_gets_alone": "batch = alone",
    "test_bound_to_its_meta_parameters_it_gives_the_same_numbers": "as served",
    "test_padding_and_the_order_of_rows_and_tasks_do_not_matter": "padding, order",
    "test_parameters_and_state_survive_save_and_load": "save, load",
    "test_the_same_seed_gives_the_same_run": "seed",
    "test_it_learns_two_tribes": "two tribes",
    "test_it_gains_nothing_where_there_is_nothing_to_learn": "null world",
}


def rows_of_checks() -> dict[str, list[str]]:
    """The rows that each check of every row or some rows runs for."""
    found = {}
    for name, function in inspect.getmembers(checks, inspect.isfunction):
        for mark in getattr(function, "pytestmark", []):
            if mark.name == "parametrize" and mark.args[0] == "name":
                found[name] = list(mark.args[1])
    return found


def table() -> str:
    """The table in Markdown: a row a learner, a column a check."""
    ran = rows_of_checks()
    lines = [["", *COLUMNS.values()], ["---"] + ["---"] * len(COLUMNS)]
    for row in checks.TABLE:
        lines.append([f"`{row}`", *("+" if row in ran[check] else "" for check in COLUMNS)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def test_every_check_is_a_column() -> None:
    assert rows_of_checks().keys() == COLUMNS.keys()


def test_the_readme_shows_the_table_of_the_checks() -> None:
    assert table() in README.read_text(encoding="utf-8"), "print it anew (see this module's text)"


if __name__ == "__main__":
    print(table())
