"""The datasets of a recipe's mix, opened as clips, or as latents if all of them have latents of the VAE in use.

Tested in tests/training/test_trainer.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from nextscene.common.errors import UsageError
from nextscene.common.storage import Storage
from nextscene.shards.format.manifest import Manifest
from nextscene.shards.format.sample import Sample
from nextscene.shards.loading.clip_transform import ClipTransform
from nextscene.shards.loading.dataset import ClipDataset
from nextscene.shards.loading.latent_dataset import LatentDataset
from nextscene.shards.loading.mixture import Mixture
from nextscene.shards.loading.reader import SplitReader
from nextscene.training.data.batches import check_fits
from nextscene.training.data.latent_cache import find_latents
from nextscene.training.data.mix_names import check_names
from nextscene.training.model.grid import Ratios
from nextscene.training.model.pretrained import PretrainedModels
from nextscene.training.recipe import Recipe


class MixDatasets:
    """The datasets of a recipe's mix."""

    def __init__(
        self,
        recipe: Recipe,
        data: Mapping[str, str],
        pretrained: PretrainedModels,
        note: Callable[[str], None],
        latents: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Raise UsageError for a dataset that is not given, or that the mix does not name, or for an invalid shape.

        `data` maps the name of each dataset to its location, `latents` the names of some to the location of their
        latents, which otherwise are looked for below the dataset. Raise UsageError if those do not fit. `note` is
        called with a line for the user.
        """
        names = [mix.name for mix in recipe.mix]
        check_names(recipe, data)
        self._recipe, self._note = recipe, note
        self._clips = [data[name] for name in names]
        size = (recipe.data.width, recipe.data.height)
        try:
            ClipTransform(recipe.data.max_frames, size)
        except ValueError as error:
            raise UsageError(f"data.max_frames, data.width, data.height: {error}") from error
        found = {
            name: find_latents(data[name], pretrained.ltx / "vae", recipe.data.max_frames, size, latents.get(name, ""))
            for name in names
        }
        for name, one in found.items():
            if one.reason and name in latents:
                raise UsageError(f"`latents` {latents[name]} do not fit the dataset {name!r}: {one.reason}")
            if one.reason:
                note(f"the latents of the dataset {name!r} do not fit: {one.reason}")
        self._latents = [one.location for one in found.values() if one.location]
        if len(self._latents) < len(names):
            if self._latents:
                note("some of the datasets have latents, others do not: all are encoded as they are read")
            self._latents = []

    @property
    def encoded(self) -> bool:
        """True if latents are read, not pixels."""
        return bool(self._latents)

    def training(self, ratios: Ratios) -> Mixture:
        """Return the training splits.

        Raise UsageError if there are too few samples, if the samples lack the text that the mix trains on, or if there
        are clips whose shape the VAE does not accept.
        """
        sets = [self._open(place, "train") for place in self._latents or self._clips]
        for mix, place, opened_set in zip(self._recipe.mix, self._clips, sets, strict=True):
            if mix.text == "scene" and not _has_scenes(place):
                raise UsageError(
                    f"the clips of the dataset {mix.name!r} have no scenes; give a dataset that was built with a judge"
                )
            if self.encoded:
                continue  # the VAE accepted their shapes when it encoded them
            try:
                check_fits(np.unique(opened_set.shapes, axis=0).tolist(), ratios, mix.name)
            except ValueError as error:
                raise UsageError(f"{error}; set data.width, data.height and data.max_frames") from error
        samples, batch = sum(map(len, sets)), self._recipe.data.global_batch
        if samples < batch:
            raise UsageError(f"{samples} samples do not fill one global batch of {batch}; lower data.global_batch")
        return Mixture(sets, [mix.weight or len(own) for mix, own in zip(self._recipe.mix, sets, strict=True)])

    def heldout(self) -> Mixture | None:
        """Return the test splits of the datasets that have one, or None if there is none."""
        places = self._latents or self._clips
        has_split = ["test" in Manifest.read(Storage.at(place)).splits for place in places]
        for mix, has in zip(self._recipe.mix, has_split, strict=True):
            if not has:
                self._note(
                    f"the dataset {mix.name!r} has no test split, so the held-out loss leaves it out; a dataset that is"
                    " built with a share for that split, such as `test` 0.01, has one"
                )
        sources = [number for number, has in enumerate(has_split) if has]
        if not sources:
            return None
        return Mixture([self._open(places[source], "test") for source in sources], [1.0] * len(sources), sources)

    def _open(self, location: str, split: str) -> ClipDataset | LatentDataset:
        if self._latents:
            return LatentDataset(location, split)
        data = self._recipe.data
        return ClipDataset(location, split, max_frames=data.max_frames, size=(data.width, data.height))


def _has_scenes(location: str) -> bool:
    """Return True if the samples of a dataset have scene descriptions.

    The first sample is enough: a judge was asked about all clips of a dataset, or about none.
    """
    reader = SplitReader(location, "train")
    return bool(Sample.of(reader.group(0), str(reader.shard_of(0))).record.scene_description)
