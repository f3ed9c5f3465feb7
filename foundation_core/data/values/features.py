"""What turns a raw item into a model's input: `features.json` beside the samples, read again by a registered model.

    bytes --modality--> values --(x - mean) / std--> input (C, H, W)

Mean and standard deviation are those of the training split, one for each channel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from foundation_core.data.sources.modalities import Item, Modality, open_modality
from foundation_core.errors import DataError
from foundation_core.files import read_json, write_json
from foundation_core.shape import SampleShape
from foundation_core.specs import IngestSpec

FEATURES_FILE = "features.json"
FEATURES_VERSION = 1


@dataclass(frozen=True)
class Statistics:
    """Mean and standard deviation of each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Features:
    """How items become inputs.

    Args:
        name: of the modality.
        spec: the parts of the ingest spec that the modality reads, by name.
    """

    name: str
    spec: Mapping[str, Any]
    shape: SampleShape
    statistics: Statistics

    @cached_property
    def modality(self) -> Modality:
        """What reads raw items."""
        return open_modality(self.name, IngestSpec.model_validate(self.spec))

    def prepare(self, item: Item | Path) -> Tensor:
        """The input that a raw item becomes, (C, H, W) float32: what training saw of the same item.

        Args:
            item: a file or its bytes; or numbers, those of each channel, as many as a sample has.

        Raises:
            ValueError: it is no such item; the message is the reason.
            OSError: there is no such file.
        """
        if not isinstance(item, bytes | Path):
            return self.normalise(self._numbers(item))[0]
        content = self.modality.read(item if isinstance(item, bytes) else item.read_bytes())
        dtype = torch.uint8 if self.modality.values == pa.uint8() else torch.float32
        return self.normalise(torch.frombuffer(bytearray(content.values), dtype=dtype)[None])[0]

    def _numbers(self, item: Sequence[Sequence[float]]) -> Tensor:
        wanted = (self.shape.channels, self.shape.height * self.shape.width)
        found = torch.tensor([list(channel) for channel in item])
        if found.shape != wanted or not found.isfinite().all():
            raise ValueError(
                f"numbers of shape {tuple(found.shape)}; allowed: {wanted}, channels by places, all finite"
            )
        return found[None]

    def normalise(self, values: Tensor) -> Tensor:
        """Values as inputs: (N, C * H * W) of any type to (N, C, H, W) float32, each channel with mean 0 and std 1."""
        mean, std = (torch.tensor(figures)[:, None, None] for figures in (self.statistics.mean, self.statistics.std))
        shape = (len(values), self.shape.channels, self.shape.height, self.shape.width)
        return (values.float().reshape(shape) - mean) / std

    def save(self, folder: Path) -> None:
        """Write `features.json`."""
        write_json(
            folder / FEATURES_FILE,
            {
                "version": FEATURES_VERSION,
                "modality": self.name,
                "spec": self.spec,
                "shape": self.shape.to_json(),
                "mean": self.statistics.mean,
                "std": self.statistics.std,
            },
        )


def load_features(folder: Path) -> Features:
    """The features that lie in a folder.

    Raises:
        DataError: there are none, or a newer version wrote them.
    """
    path = folder / FEATURES_FILE
    body = read_json(path)
    if body["version"] > FEATURES_VERSION:
        raise DataError(
            f"{path} has version {body['version']}",
            allowed=f"versions up to {FEATURES_VERSION}",
            fix="upgrade foundation-pipeline, or run the ingest stage again with this version",
        )
    statistics = Statistics(tuple(body["mean"]), tuple(body["std"]))
    return Features(body["modality"], body["spec"], SampleShape.from_json(body["shape"]), statistics)


def values_of(table: pa.Table) -> Tensor:
    """The values of a table of one record batch or more, (N, C * H * W); memory-mapped where it is one."""
    column = table["values"].combine_chunks() if table["values"].num_chunks != 1 else table["values"].chunk(0)
    values: Tensor = from_dlpack(column.flatten())
    return values.reshape(len(table), -1)


def measure(tables: Iterable[pa.Table], shape: SampleShape) -> Statistics:
    """Mean and standard deviation of each channel over all rows; a channel that never changes has a deviation of 1.

    Each row gives its mean and its squared deviations from it, and rows are added exactly: the order of rows, and how
    they are cut into tables, cannot be seen in the sum.
    """
    means, squares = list[list[float]](), list[list[float]]()
    for table in tables:
        if len(table):
            values_NCP = values_of(table).double().reshape(len(table), shape.channels, -1)
            mean_NC1 = values_NCP.mean(-1, keepdim=True)
            means += mean_NC1.squeeze(-1).tolist()
            squares += (values_NCP - mean_NC1).square().sum(-1).tolist()
    places = shape.height * shape.width
    mean, std = list[float](), list[float]()
    for of_rows, squares_of_rows in zip(zip(*means, strict=True), zip(*squares, strict=True), strict=True):
        center = math.fsum(of_rows) / len(of_rows)
        between = places * math.fsum((of_row - center) ** 2 for of_row in of_rows)
        mean.append(center)
        std.append(math.sqrt((math.fsum(squares_of_rows) + between) / (places * len(of_rows))) or 1.0)
    return Statistics(tuple(mean), tuple(std))
