"""What a parsed grammar would cost libllama: recursion, depth, and ways to match nothing.

Works on rules by number, without text or positions. libllama expands leftmost rules recursively,
in older builds without remembering what it has seen: left recursion never ends there, and a chain
or a choice of empty items overflows the stack or takes exponential time. Imports
`llamalite.errors`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from llamalite.errors import ConstraintError

MAX_DEPTH = 2000
"""Longest chain of rules that start with one another; each is a native stack frame."""
MAX_PATHS = 1_000_000
"""Most steps from a rule to the characters it can start with."""
MAX_TOTAL_PATHS = 10 * MAX_PATHS
"""The same over all rules: what libllama's search for left recursion may walk."""


@dataclass(frozen=True)
class Item:
    """One element of a sequence: characters (`rule` is None) or a rule, and how often."""

    rule: int | None = None
    low: int = 1
    high: int | None = 1


@dataclass
class Rule:
    """A named rule, or a group inside the rule of that name."""

    name: str
    alternatives: list[list[Item]] = field(default_factory=list)


def check_recursion(rules: list[Rule]) -> None:
    """Raise ConstraintError if a rule is left-recursive or too costly to expand."""
    nullable = find_nullable(rules)
    for rule in rules:
        for item in (item for items in rule.alternatives for item in items):
            # libllama writes x* as a rule that is x and then itself: left recursion if x is empty.
            if item.high is None and item.rule is not None and nullable[item.rule]:
                raise _error(rule.name, "repeats without limit something that can be empty")
    left = [_left_items(rule, nullable) for rule in rules]
    _check_cost(rules, left, _leaves_first(rules, left))


def _error(name: str, message: str) -> ConstraintError:
    return ConstraintError(f"grammar rule {name!r} {message}", param="grammar")


def find_nullable(rules: list[Rule]) -> list[bool]:
    """Say for each rule whether it can match the empty text."""
    nullable = [False] * len(rules)
    waiting: list[tuple[int, int]] = []  # (rule, index into `missing`) of an alternative
    missing: list[int] = []
    users: list[list[int]] = [[] for _ in rules]
    ready: list[int] = []
    for number, rule in enumerate(rules):
        for items in rule.alternatives:
            needed = [item for item in items if item.low > 0]
            if any(item.rule is None for item in needed):
                continue
            for item in needed:
                assert item.rule is not None
                users[item.rule].append(len(waiting))
            if not needed:
                ready.append(number)
            waiting.append((number, len(missing)))
            missing.append(len(needed))
    while ready:
        number = ready.pop()
        if nullable[number]:
            continue
        nullable[number] = True
        for index in users[number]:
            missing[index] -= 1
            if not missing[index]:
                ready.append(waiting[index][0])
    return nullable


def _left_items(rule: Rule, nullable: list[bool]) -> list[list[Item]]:
    """Keep of each alternative the items that can stand first: up to one that can't be empty."""
    kept = []
    for items in rule.alternatives:
        n_first = 0
        for item in items:
            n_first += 1
            if item.low > 0 and (item.rule is None or not nullable[item.rule]):
                break
        kept.append(items[:n_first])
    return kept


def _leaves_first(rules: list[Rule], left: list[list[list[Item]]]) -> list[int]:
    """Order rules so that each comes after those it can start with; raise at a cycle."""
    targets = [
        list(dict.fromkeys(i.rule for items in alts for i in items if i.rule is not None))
        for alts in left
    ]
    order: list[int] = []
    entered = [False] * len(rules)
    finished = [False] * len(rules)
    for start in range(len(rules)):
        path = [] if entered[start] else [start]
        while path:
            number = path[-1]
            entered[number] = True
            if not targets[number]:
                finished[number] = True
                order.append(path.pop())
                continue
            follow = targets[number].pop()
            if finished[follow]:
                continue
            if entered[follow]:
                cycle = [rules[n].name for n in [*path[path.index(follow) :], follow]]
                raise _left_recursion(cycle)
            path.append(follow)
    return order


def _left_recursion(cycle: list[str]) -> ConstraintError:
    names = [name for i, name in enumerate(cycle) if i == 0 or name != cycle[i - 1]]
    if len(names) == 1:
        names *= 2
    shown = names if len(names) <= 8 else [*names[:6], "…", names[-1]]
    return _error(
        names[0],
        f"is left-recursive ({' → '.join(shown)}): write it so that something is matched first",
    )


def _check_cost(rules: list[Rule], left: list[list[list[Item]]], order: list[int]) -> None:
    """Bound depth and number of expansion paths, from the leaves up (no cycles are left)."""
    depth = [1] * len(rules)
    paths = [1] * len(rules)
    ways = [0] * len(rules)  # in which the rule can match the empty text
    for number in order:
        for items in left[number]:
            chain, before = 1, 1
            for item in items:
                inner = _item_cost(item, depth, paths, ways)
                chain += inner[0]
                paths[number] += before * inner[1]
                before = min(before * inner[2], MAX_PATHS)
            depth[number] = max(depth[number], chain)
            ways[number] += before
        name = rules[number].name
        if depth[number] > MAX_DEPTH:
            raise _error(name, f"starts with a chain of more than {MAX_DEPTH} rules: shorten it")
        if paths[number] > MAX_PATHS or ways[number] > MAX_PATHS:
            raise _error(name, "can start in too many ways: make fewer of its items optional")
    if sum(paths) > MAX_TOTAL_PATHS:
        raise ConstraintError(
            "the grammar's rules can start in too many ways: shorten chains of rules that only "
            "name one another",
            param="grammar",
        )


def _item_cost(
    item: Item, depth: list[int], paths: list[int], ways: list[int]
) -> tuple[int, int, int]:
    """Return depth, paths, and ways to be empty of an item with its repetitions."""
    optional = int(item.low == 0)
    if item.rule is None:
        return 1 + optional, 1 + optional, optional
    inner_depth, inner_paths, empty = depth[item.rule], paths[item.rule], ways[item.rule]
    if not empty or item.high is None:
        return inner_depth + 1 + optional, inner_paths + 1 + optional, optional
    # Copies that can all be empty: the k-th is reached in empty**(k-1) ways.
    n_reached, n_empty, power = 0, int(item.low == 0), 1
    for k in range(1, item.high + 1):
        n_reached += power
        power = min(power * empty, MAX_PATHS)
        n_empty += power if k >= item.low else 0
    n_empty = min(n_empty, MAX_PATHS)
    return item.high * (inner_depth + 1), n_reached * (inner_paths + 1), n_empty
