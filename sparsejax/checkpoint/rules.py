"""Conversion as data: a table of rules that runs forward (file to params) and backward (params to file).

A rule names its source keys and target paths with ``{index}`` placeholders::

    RULES = (
        Rule("token_emb.weight", "token_embedding/embedding"),
        Rule("layers.{i}.in_proj.weight", "layer_{i}/in_proj/kernel", transpose),
        Rule("layers.{i}.ffn.neurons.{n}.w", "layer_{i}/ffn/w_in", stack="n"),
        Rule("layers.{i}.qkv.weight", ("layer_{i}/q", "layer_{i}/k", "layer_{i}/v"), split(3)),
        Rule("lm_head.weight", tied_to="token_emb.weight"),
        Rule("pos_ids", derive=lambda state: np.arange(len(state["pos_emb"]))),
    )

Rules know no model. What must come out is said by a template of shapes, so that a missing layer is
found although no rule could know how many there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

from sparsejax.checkpoint.errors import (
    CorruptFileError,
    MissingKeyError,
    ShapeError,
    UnexpectedKeyError,
    shown,
)
from sparsejax.checkpoint.transforms import Transform, identity
from sparsejax.checkpoint.tree import flatten, unflatten

State = Mapping[str, Any]  # arrays, and the quantised ones of files that have such
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_NUMBER = "0|[1-9][0-9]{0,8}"  # no leading zero, no foreign digit, nothing that is too long for an index


@dataclass(frozen=True)
class Rule:
    """How one group of file keys becomes one group of parameter paths, and back.

    Attributes:
      source: key pattern, or several that are converted together.
      target: path pattern(s) with ``/`` between levels; empty for a dropped key.
      transform: applied to the tuple of sources; its inverse runs on export.
      stack: placeholder of ``source`` that becomes a new leading axis of the target.
      optional: the file may lack it (and the model then lacks the target too).
      tied_to: the key is a second copy of this other key: dropped here, written again on export.
      derive: the key follows from the others (given all source arrays by key): checked and dropped
        here, computed again on export.
    """

    source: str | tuple[str, ...]
    target: str | tuple[str, ...] = ()
    transform: Transform = identity
    stack: str | None = None
    optional: bool = False
    tied_to: str | None = None
    derive: Callable[[State], np.ndarray] | None = None

    def __post_init__(self) -> None:
        """Refuse what no export could write again."""
        if self.derive is not None and _PLACEHOLDER.search("".join(self.sources)):
            raise ValueError(f"the derived key {self.source!r} has a placeholder; give one rule per key")

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Key patterns."""
        return (self.source,) if isinstance(self.source, str) else self.source

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """Path patterns."""
        return (self.target,) if isinstance(self.target, str) else self.target

    @cached_property
    def _source_matchers(self) -> tuple[re.Pattern[str], ...]:
        return tuple(_matcher(pattern) for pattern in self.sources)

    @cached_property
    def _target_matchers(self) -> tuple[re.Pattern[str], ...]:
        return tuple(_matcher(pattern) for pattern in self.targets)

    def match_source(self, key: str) -> tuple[int, dict[str, str]] | None:
        """Which of the sources ``key`` is, with its placeholders; None if it is none."""
        return _first_match(self._source_matchers, key)

    def match_target(self, path: str) -> tuple[int, dict[str, str]] | None:
        """Which of the targets ``path`` is, with its placeholders; None if it is none."""
        return _first_match(self._target_matchers, path)


def to_params(
    rules: Sequence[Rule], state: State, template: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Nested parameters from the arrays of a file.

    Args:
      rules: the layout.
      state: arrays by key.
      template: nested shapes of the model (`jax.eval_shape` of its init); None skips the comparison.

    Returns:
      nested dict of arrays, views of ``state`` where the transforms allow.

    Raises:
      UnexpectedKeyError: a key that no rule uses, or a second copy that differs from the first.
      MissingKeyError: a source of a rule, or of a template entry, that the file lacks.
      ShapeError: another shape than the template's.

    Example:
      >>> to_params((Rule("w", "dense/kernel"),), {"w": np.ones(2)})
      {'dense': {'kernel': array([1., 1.])}}
    """
    groups, unused = _group_sources(rules, state)
    if unused:
        raise UnexpectedKeyError(
            f"no rule uses the tensors {shown(unused)}; remove them, or save them beside the state dict"
        )
    if absent := [key for key in _implied_keys(rules, state) if key not in state]:
        raise _missing(absent)
    flat: dict[str, Any] = {}
    for rule, captures, members in groups:
        if rule.targets:
            flat |= _convert_group(rule, captures, members, state)
        else:
            _check_dropped(rules, next(iter(members.values())), state)
    if template is not None:
        compare_with_template(rules, flat, flatten(template))
    return unflatten(flat)


def to_state(
    rules: Sequence[Rule], params: Mapping[str, Any], dropped: Iterable[str] | None = None
) -> dict[str, Any]:
    """The file's arrays from nested parameters: the exact inverse of `to_params`.

    Args:
      rules: the layout.
      params: nested dict of arrays.
      dropped: which tied or derivable keys to write again; None writes all that are not optional.

    Raises:
      UnexpectedKeyError: a parameter that the layout has no key for.

    Example:
      >>> to_state((Rule("w", "dense/kernel"),), {"dense": {"kernel": np.ones(2)}})
      {'w': array([1., 1.])}
    """
    flat = {path: _on_host(leaf) for path, leaf in flatten(params).items()}
    groups, unused = _group_targets(rules, flat)
    if unused:
        raise UnexpectedKeyError(f"this layout has no key for the parameters {shown(unused)}")
    state: dict[str, Any] = {}
    for rule, captures, paths in groups:
        arrays = rule.transform.backward(tuple(flat[path] for path in paths))
        state |= _named_sources(rule, captures, arrays)
    for key in _implied_keys(rules, state) if dropped is None else dropped:
        state[key] = _restored(rules, key, state)
    place = {
        key: number
        for number, rule in reversed([*enumerate(rules)])
        for key in state
        if rule.match_source(key)
    }
    return dict(sorted(state.items(), key=lambda item: place[item[0]]))


def dropped_keys(rules: Sequence[Rule], state: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of ``state`` that import leaves out because they are tied or derivable."""
    copies = [rule for rule in rules if not rule.targets]
    return tuple(key for key in state if any(rule.match_source(key) for rule in copies))


def unused_keys(rules: Sequence[Rule], keys: Iterable[str]) -> tuple[str, ...]:
    """Those of a file's keys that no rule uses."""
    return tuple(key for key in keys if not any(rule.match_source(key) for rule in rules))


def compare_with_template(rules: Sequence[Rule], flat: State, expected: Mapping[str, Any]) -> None:
    """Raise unless the converted arrays have the template's paths and shapes.

    Raises:
      MissingKeyError: names the file's keys that would give the absent paths.
      UnexpectedKeyError: names the file's keys behind paths that the model lacks.
      ShapeError: names the key with the found and the needed shape.
    """
    missing = [path for path in expected if path not in flat]
    if missing:
        raise _missing(source_key(rules, path) for path in missing)
    extra = [path for path in flat if path not in expected]
    if extra:
        names = dict.fromkeys(source_key(rules, path) for path in extra)
        raise UnexpectedKeyError(f"the model has no place for {shown(names)}; remove them, or give overrides")
    for path, array in flat.items():
        if tuple(array.shape) != tuple(expected[path].shape):
            raise ShapeError(
                f"{source_key(rules, path)!r} gives shape {tuple(array.shape)} for {path}, "
                f"the config needs {tuple(expected[path].shape)}; correct the file, or give overrides"
            )


def source_key(rules: Sequence[Rule], path: str) -> str:
    """The file key behind a parameter path, with ``*`` where stacking hides an index."""
    for rule in rules:
        if found := rule.match_target(path):
            captures = found[1] | ({rule.stack: "*"} if rule.stack else {})
            source = rule.sources[found[0] if len(rule.sources) == len(rule.targets) else 0]
            return source.format(**captures)
    return path


def _on_host(leaf: Any) -> Any:
    """The NumPy array of a parameter; one that is quantised stays what it is."""
    return leaf if hasattr(leaf, "to_bytes") else np.asarray(leaf)


def _missing(names: Iterable[str]) -> MissingKeyError:
    names = dict.fromkeys(names)  # one key may feed several parameters
    return MissingKeyError(f"the tensors {shown(names)} are missing; save the whole state dict")


def _matcher(pattern: str) -> re.Pattern[str]:
    parts = _PLACEHOLDER.split(pattern)
    seen: set[str] = set()
    out = []
    for position, part in enumerate(parts):
        if position % 2 == 0:
            out.append(re.escape(part))
        else:
            out.append(rf"(?P={part})" if part in seen else rf"(?P<{part}>{_NUMBER})")
            seen.add(part)
    return re.compile("".join(out))


def _first_match(matchers: Sequence[re.Pattern[str]], text: str) -> tuple[int, dict[str, str]] | None:
    for position, matcher in enumerate(matchers):
        if match := matcher.fullmatch(text):
            return position, match.groupdict()
    return None


_Members = dict[tuple[int, int], str]  # (position in rule.sources, stack index) -> key


def _group_sources(
    rules: Sequence[Rule], state: State
) -> tuple[list[tuple[Rule, dict[str, str], _Members]], list[str]]:
    groups: dict[tuple[object, ...], tuple[Rule, dict[str, str], _Members]] = {}
    unused = []
    for key in state:
        for number, rule in enumerate(rules):
            if found := rule.match_source(key):
                position, captures = found
                layer = int(captures.pop(rule.stack)) if rule.stack else 0
                group = groups.setdefault((number, *sorted(captures.items())), (rule, captures, {}))
                group[2][position, layer] = key
                break
        else:
            unused.append(key)
    return list(groups.values()), unused


def _group_targets(
    rules: Sequence[Rule], flat: State
) -> tuple[list[tuple[Rule, dict[str, str], list[str]]], list[str]]:
    groups: dict[tuple[object, ...], tuple[int, Rule, dict[str, str]]] = {}
    unused = []
    for path in flat:
        for number, rule in enumerate(rules):
            if found := rule.match_target(path):
                groups[(number, *sorted(found[1].items()))] = (number, rule, found[1])
                break
        else:
            unused.append(path)
    result = []
    for _, rule, captures in sorted(groups.values(), key=lambda group: group[0]):
        paths = [pattern.format(**captures) for pattern in rule.targets]
        if absent := [path for path in paths if path not in flat]:
            raise MissingKeyError(f"the parameters {shown(absent)} are missing")
        result.append((rule, captures, paths))
    return result, unused


def _convert_group(rule: Rule, captures: dict[str, str], members: _Members, state: State) -> dict[str, Any]:
    count = 1 + max(layer for _, layer in members)
    if (
        len(members) < len(rule.sources) * count
    ):  # a forged index may be 10**9: look no further than what is shown
        wanted = ((position, layer) for position in range(len(rule.sources)) for layer in range(count))
        absent = islice((slot for slot in wanted if slot not in members), 5)
        raise _missing(_key(rule, captures, position, layer) for position, layer in absent)
    arrays = []
    for position in range(len(rule.sources)):
        layers = [state[members[position, layer]] for layer in range(count)]
        arrays.append(_stacked(rule, captures, layers) if rule.stack else layers[0])
    try:
        results = rule.transform.forward(tuple(arrays))
    except (ValueError, CorruptFileError) as error:
        raise ShapeError(f"{members[min(members)]!r} {error} ({rule.transform.name})") from error
    return {target.format(**captures): array for target, array in zip(rule.targets, results, strict=True)}


def _stacked(rule: Rule, captures: dict[str, str], layers: list[Any]) -> Any:
    shapes = [array.shape for array in layers]
    for layer, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ShapeError(
                f"{_key(rule, captures, 0, layer)!r} has shape {shape}, its first sibling {shapes[0]}"
            )
    return np.stack(layers)


def _named_sources(rule: Rule, captures: dict[str, str], arrays: Sequence[Any]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for position, array in enumerate(arrays):
        if rule.stack:
            named |= {_key(rule, captures, position, layer): part for layer, part in enumerate(array)}
        else:
            named[_key(rule, captures, position, 0)] = array
    return named


def _key(rule: Rule, captures: dict[str, str], position: int, layer: int) -> str:
    return rule.sources[position].format(**captures, **({rule.stack: layer} if rule.stack else {}))


def _implied_keys(rules: Sequence[Rule], state: State) -> list[str]:
    """Every tied or derivable key that a full file of this layout has."""
    keys = []
    for rule in rules:
        if rule.targets or rule.optional:
            continue
        if rule.tied_to is None:
            keys.append(rule.sources[0])
            continue
        twin = _matcher(rule.tied_to)
        matches = (twin.fullmatch(key) for key in state)
        keys += [rule.sources[0].format(**match.groupdict()) for match in matches if match]
    return keys


def _check_dropped(rules: Sequence[Rule], key: str, state: State) -> None:
    expected = np.asarray(_restored(rules, key, state))
    if not np.array_equal(expected, state[key], equal_nan=expected.dtype.kind in "fc"):
        raise UnexpectedKeyError(
            f"{key!r} differs from the tensors that it should copy; this layout cannot hold it"
        )


def _restored(rules: Sequence[Rule], key: str, state: State) -> Any:
    for rule in rules:
        found = None if rule.targets else rule.match_source(key)
        if found is None:
            continue
        if rule.derive is not None:
            try:
                return rule.derive(state)
            except KeyError as error:
                raise _missing(map(str, error.args)) from error
        twin = str(rule.tied_to).format(**found[1])
        if twin not in state:
            raise _missing([twin])
        return state[twin]
    raise UnexpectedKeyError(f"no rule of this layout restores {key!r}")
