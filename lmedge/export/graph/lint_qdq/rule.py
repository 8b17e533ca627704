"""What a rule of the linter is, and what it says about a node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import onnx

from lmedge.export.graph.qdq_graph import QdqGraph, label

# "refused": TensorRT's parser or builder says no, or takes the graph for another one than it is.
# "slow": it builds an engine, which is slower or less accurate than need be.
Effect = Literal["refused", "slow"]
REFUSED: Effect = "refused"
SLOW: Effect = "slow"

# Each node that breaks a rule, and what is wrong with it.
Search = Callable[[QdqGraph], Iterator[tuple[onnx.NodeProto, str]]]


@dataclass(frozen=True)
class Finding:
    """A node that breaks a rule.

    Attributes:
        rule: its name.
        effect: what TensorRT does with such a graph.
        node: name of the node; operator and output of one that has none.
        what: is wrong there.
        why: TensorRT refuses it, or is slow with it.
        cure: what to do.
    """

    rule: str
    effect: Effect
    node: str
    what: str
    why: str
    cure: str

    def __str__(self) -> str:
        return f"{self.node}: {self.what} ({self.rule}). {self.why} {self.cure}"

    def to_json(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True)
class Rule:
    """A named rule; the attributes are those of its findings."""

    name: str
    effect: Effect
    why: str
    cure: str
    search: Search

    def findings(self, graph: QdqGraph) -> list[Finding]:
        """What breaks it, in graph order."""
        return [Finding(self.name, self.effect, label(node), what, self.why, self.cure) for node, what in self.search(graph)]


def rule(name: str, effect: Effect, *, why: str, cure: str) -> Callable[[Search], Rule]:
    """Makes a rule of the function that searches for what breaks it."""
    return lambda search: Rule(name, effect, why, cure, search)
