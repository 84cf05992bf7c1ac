"""Inputs for a model from transformers, made from its forward's signature, its configuration and its
processor's; where those leave a choice, all of them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from torch import Tensor

from .processor import Processor
from .tokenizer import table_rows

BATCH, LENGTH, DECODER_LENGTH = 3, 11, 7
_PARTS = ("vision_config", "encoder", "audio_config", "text_config", "decoder")  # of a configuration
_BYTES = 256  # ids that no table looks up: characters or hashes of them


@dataclass
class Example:
    """Tensors by input, and for each its axes: an integer stays fixed, equal names are equal sizes.

    why: input -> why its sizes are fixed, in words. constants: what forward also takes, and the graph holds.
    left: a sentence on every input that the model doesn't take beside the others.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    axes: dict[str, tuple[int | str, ...]] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    constants: dict[str, Tensor] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)

    def without(self, name: str) -> Example:
        tensors = {key: tensor for key, tensor in self.tensors.items() if key != name}
        return Example(tensors, {key: self.axes[key] for key in tensors}, self.why, self.constants)

    def add(self, name: str, tensor: Tensor, axes: tuple[int | str, ...], why: str = "") -> None:
        self.tensors[name], self.axes[name] = tensor, axes
        if why:
            self.why[name] = why


class Maker:
    """Makes inputs for one model. length, decoder_length: of its texts."""

    def __init__(
        self, model: Any, made: Processor, length: int = LENGTH, decoder_length: int = DECODER_LENGTH
    ) -> None:
        self.model, self.config, self.made = model, model.config, made
        self.takes = inspect.signature(model.forward).parameters
        self.length, self.decoder_length = length, decoder_length
        self.random = torch.Generator().manual_seed(0)

    def stated(self, *names: str) -> Any:
        """The first of these settings that the configuration, or that of one of its parts, states."""
        parts = [self.config, *(getattr(self.config, name, None) for name in _PARTS)]
        found = (getattr(part, name, None) for name in names for part in parts)
        return next((value for value in found if value is not None), None)

    def ids(self, rows: int, *shape: int) -> Tensor:
        return torch.randint(0, rows, shape, generator=self.random)

    def floats(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.random)

    def texts(self, example: Example) -> None:
        """input_ids and what goes beside them, all (batch, length) and more."""
        if "input_ids" not in self.takes:
            return
        shape, axes = (BATCH, self.length), ("batch", "length")
        rows = table_rows(self.model) or self.stated("vocab_size") or _BYTES
        example.add("input_ids", self._ended(self.ids(rows, *shape), rows), axes)
        if "attention_mask" in self.takes:
            kept = self.length - torch.arange(BATCH)
            example.add("attention_mask", (torch.arange(self.length)[None] < kept[:, None]).long(), axes)
        types = self.stated("type_vocab_sizes")
        if "token_type_ids" in self.takes and isinstance(types, list | tuple) and types:  # of a table's cells
            columns = torch.stack([self.ids(size, *shape) for size in types], -1)
            example.add("token_type_ids", columns, (*axes, len(types)))
        elif "token_type_ids" in self.takes and (self.stated("type_vocab_size") or 0) > 1:
            example.add("token_type_ids", torch.zeros(shape, dtype=torch.long), axes)
        if "bbox" in self.takes:
            largest = min(self.stated("max_2d_position_embeddings") or 1000, 1001)
            corners = self.ids(largest, *shape, 2, 2).sort(dim=2).values  # (left, top) before (right, bottom)
            example.add("bbox", corners.flatten(2), (*axes, 4))
        for name, setting in (("xpath_tags_seq", "max_xpath_tag_unit_embeddings"),
                              ("xpath_subs_seq", "max_xpath_subs_unit_embeddings")):  # fmt: skip
            if name in self.takes and self.stated(setting):
                depth = self.stated("max_depth")
                example.add(name, self.ids(self.stated(setting), *shape, depth), (*axes, depth))

    def _ended(self, ids: Tensor, rows: int) -> Tensor:
        """One end of a text in each row, as classifiers of encoder-decoder models look for it."""
        end = self.stated("eos_token_id")
        if isinstance(end, int) and 0 < end < rows:
            ids = torch.where(ids == end, end - 1, ids)
            ids[:, 0] = end  # a place that shorter examples keep
        return ids

    def decoded(self, example: Example) -> None:
        """decoder_input_ids, where the model doesn't make them of input_ids by itself."""
        if "decoder_input_ids" in self.takes and self.config.is_encoder_decoder:
            shape = (BATCH, self.decoder_length)
            text = self.config.get_text_config(decoder=True)
            rows = getattr(text, "vocab_size", None) or table_rows(self.model) or _BYTES
            example.add("decoder_input_ids", self.ids(rows, *shape), ("batch", "decoder_length"))

    def images(self) -> Iterator[Example]:
        """Images, videos or patches, in every layout that the configuration allows."""
        size, why = self.made.image(), "the processor makes every image of this size"
        stated = self.stated("image_size", "input_size")
        if size is None and stated is not None and not self.made.free_images():
            size, why = (stated, stated) if isinstance(stated, int) else tuple(stated[-2:]), ""
        height, width = size or (64, 96)
        channels = self.stated("num_channels") or 3
        free: tuple[int | str, ...] = ("height", "width")
        layouts: list[tuple[int, ...]] = [(BATCH, channels, height, width)]
        frames = self.stated("num_frames")
        if isinstance(frames, int):
            pairs = ((frames, channels), (channels, frames))
            layouts = [*((BATCH, *pair, height, width) for pair in pairs), *layouts]
        for layout in layouts:
            example = Example()
            axes = ("batch", *layout[1:-2], *free)
            example.add(
                "pixel_values", self.floats(*layout), axes, why or "config.json states its image_size"
            )
            if "pixel_mask" in self.takes:
                mask = torch.ones(BATCH, height, width, dtype=torch.long)
                example.add("pixel_mask", mask, ("batch", *free), why)
                yield example
                example = example.without("pixel_mask")
            yield example
        if "spatial_shapes" in self.takes:
            patch, rows = (
                self.stated("patch_size"),
                self.made.number("max_num_patches") or self.stated("num_patches"),
            )
            if isinstance(patch, int) and isinstance(rows, int):
                side = int(rows**0.5)
                example, count = Example(), side * side
                patches = self.floats(1, count, channels * patch * patch)
                why = "the grid of patches is part of the graph"
                example.add("pixel_values", patches, tuple(patches.shape), why)
                mask = torch.ones(1, count, dtype=torch.long)
                example.add("pixel_attention_mask", mask, tuple(mask.shape), why)
                example.constants["spatial_shapes"] = torch.tensor([[side, side]])
                yield example

    def sounds(self, name: str) -> Iterator[Example]:
        """Samples, or spectrograms by frames and bins, in every layout that is described."""
        bins = [self.stated(n) for n in ("feature_projection_input_dim", "num_mel_bins")]
        bins.append((self.stated("input_feat_per_channel") or 0) * (self.stated("input_channels") or 1))
        bins += [self.made.number("num_mel_bins"), self.made.number("feature_size")]
        widths = dict.fromkeys(b for b in bins if isinstance(b, int) and b > 1)
        layouts: list[tuple[tuple[int, ...], tuple[int | str, ...], str]] = []
        window = self.stated("max_source_positions")
        for width in widths if name == "input_features" else ():
            if isinstance(window, int):
                why = "the table of positions is added whole"
                layouts.append(((BATCH, width, 2 * window), ("batch", width, 2 * window), why))
            layouts.append(((BATCH, 50, width), ("batch", "length", width), ""))
        if name == "input_values":
            longest = self.stated("max_length")
            for width in widths:
                if isinstance(longest, int):
                    why = "the table of positions is added whole"
                    layouts.append(((BATCH, longest, width), ("batch", longest, width), why))
            layouts.append(((BATCH, self._samples()), ("batch", "length"), ""))
        for shape, axes, why in layouts:
            example = Example()
            example.add(name, self.floats(*shape), axes, why)
            frames = [(shape[i], axes[i]) for i in (1,) if isinstance(axes[1], str)]
            if "attention_mask" in self.takes and frames and self.made.mask() is not False:
                length, axis = frames[0]
                kept = length - torch.arange(BATCH) * max(1, length // 10)
                mask = (torch.arange(length)[None] < kept[:, None]).long()
                if self.made.mask() or self.stated("feat_extract_norm") != "group":
                    example.add("attention_mask", mask, ("batch", axis))
                    yield example
                    example = example.without("attention_mask")
            yield example

    def _samples(self) -> int:
        """Enough for some forty frames of a stack of convolutions."""
        ratio = 1
        for stride in self.stated("conv_stride") or (400,):
            ratio *= stride
        return 40 * ratio + 2 * ratio // 2 + 1

    def tables(self, example: Example) -> None:
        """Regions of images and series, whose widths are stated."""
        if "visual_feats" in self.takes and self.stated("visual_feat_dim"):
            width, places = self.stated("visual_feat_dim"), self.stated("visual_pos_dim") or 4
            example.add("visual_feats", self.floats(BATCH, 5, width), ("batch", "regions", width))
            example.add("visual_pos", self.floats(BATCH, 5, places), ("batch", "regions", places))
        if "past_values" in self.takes and isinstance(self.stated("num_input_channels"), int):
            shape = (BATCH, self.stated("context_length"), self.stated("num_input_channels"))
            example.add("past_values", self.floats(*shape), ("batch", *shape[1:]))

    def examples(self) -> Iterator[Example]:
        """Every choice, the fullest first; inputs in the order of forward's."""
        for example in self._choices():
            order = [name for name in self.takes if name in example.tensors]
            tensors = {name: example.tensors[name] for name in order}
            axes = {name: example.axes[name] for name in order}
            yield Example(tensors, axes, example.why, example.constants)

    def _choices(self) -> Iterator[Example]:
        pixels = list(self._kinds("pixel_values", self.images()))
        sounds = [
            e for name in ("input_values", "input_features") for e in self._kinds(name, self.sounds(name))
        ]
        for image, sound in product(pixels or [Example()], sounds or [Example()]):
            example = Example()
            self.texts(example)
            self.decoded(example)
            self.tables(example)
            for part in (image, sound):
                for name, tensor in part.tensors.items():
                    example.add(name, tensor, part.axes[name], part.why.get(name, ""))
                example.constants |= part.constants
            if example.tensors:
                yield example
                for less in ("decoder_input_ids", "attention_mask"):
                    if less in example.tensors and "input_ids" in example.tensors:
                        yield example.without(less)

    def _kinds(self, name: str, made: Iterator[Example]) -> Iterator[Example]:
        if name in self.takes:
            yield from (Example(dict(e.tensors), dict(e.axes), dict(e.why), e.constants) for e in made)
