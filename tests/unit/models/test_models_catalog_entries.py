from __future__ import annotations

import re

import pytest

from llamalite.models.names.catalog import CATALOG
from llamalite.models.names.families import FAMILIES, Family
from llamalite.models.names.quantization import is_model, parse_quantization, read_quantization
from llamalite.models.names.reference import HubReference, parse_reference
from llamalite.models.names.repository import RepoFile, choose_model, group_models

SPDX = {"Apache-2.0", "MIT"}

each = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def test_names_and_repositories_are_unique() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES) >= 25
    assert len({family.repo.lower() for family in FAMILIES}) == len(FAMILIES)


def test_the_catalog_has_each_of_their_files() -> None:
    files = {(entry.repo, entry.file): entry for entry in CATALOG}
    assert len(files) == sum(len(family.files) for family in FAMILIES)
    for family in FAMILIES:
        for quant, file in family.files.items():
            entry = files[family.repo, file]
            assert (entry.quant, entry.licence, entry.n_ctx) == (
                quant.replace("FP16", "F16"),
                family.licence,
                family.n_ctx,
            )


@each
def test_an_entry_is_well_formed(family: Family) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9.-]*:[a-z0-9.-]+", family.name)
    assert family.licence in SPDX or re.fullmatch(r"LicenseRef-[a-z0-9.-]+", family.licence)
    assert 2048 <= family.n_ctx <= 1 << 20
    assert family.n_ctx % 1024 == 0
    assert family.files


@each
def test_its_files_are_the_models_that_their_quantizations_name(family: Family) -> None:
    models = group_models(RepoFile(file) for file in family.files.values())
    for quant, file in family.files.items():
        assert parse_reference(f"hf:{family.repo}/{file}") == HubReference(
            family.repo, file=file, explicit=True
        )
        assert is_model(file)
        assert read_quantization(file) == parse_quantization(quant)
        assert parse_reference(f"{family.repo}:{quant}") == HubReference(family.repo, quant)
        assert choose_model(models, quant, family.repo).model.file == file
    assert [model.file for model in models] == list(family.files.values())


@each
def test_a_default_is_there(family: Family) -> None:
    models = group_models(RepoFile(file) for file in family.files.values())
    assert choose_model(models, None, family.repo).model.file in family.files.values()
    assert "Q4_K_M" in family.files or len(models) == 1
