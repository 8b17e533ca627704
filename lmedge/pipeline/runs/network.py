"""What later stages need to know of a trained network without torch: `network.json`, beside the checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmedge.bundle import write_atomically
from lmedge.preprocess import PreprocessSpec
from lmedge.schemas import LandmarkSchema

NETWORK = "network.json"


@dataclass(frozen=True)
class NetworkFacts:
    """Points, crops, and the facts of training: parameters, MACs, epochs, validation NME, photo keys seen."""

    schema: LandmarkSchema
    preprocess: PreprocessSpec
    architecture: Mapping[str, Any]
    training: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...]

    @property
    def confident(self) -> bool:
        """Whether the network says how sure it is of each point."""
        return bool(self.architecture.get("confidence", False))

    def write(self, folder: Path) -> None:
        document = {
            "schema": self.schema.to_json(),
            "preprocess": self.preprocess.to_json(),
            "architecture": dict(self.architecture),
            "training": dict(self.training),
            "history": list(self.history),
        }
        write_atomically(folder / NETWORK, json.dumps(document, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, folder: Path) -> NetworkFacts:
        document = json.loads((folder / NETWORK).read_text(encoding="utf-8"))
        return cls(
            schema=LandmarkSchema.from_json(document["schema"]),
            preprocess=PreprocessSpec.from_json(document["preprocess"]),
            architecture=document["architecture"],
            training=document["training"],
            history=tuple(document["history"]),
        )
