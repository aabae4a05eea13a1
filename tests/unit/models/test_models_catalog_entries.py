from __future__ import annotations

import re

import pytest

from llamalite.models.names.catalog import CATALOG
from llamalite.models.names.families import FAMILIES, Family
from llamalite.models.names.quantization import is_model, parse_quantization, read_quantization
from llamalite.models.names.reference import HubReference, parse_reference, pick_file
from llamalite.models.names.repository import RepoFile, choose_model, group_models

SPDX = {"Apache-2.0", "MIT"}

each = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def test_names_and_repositories_are_unique() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES) >= 25
    assert len({family.repo.lower() for family in FAMILIES}) == len(FAMILIES)


def test_the_catalog_s_own_models_are_among_them() -> None:
    known = {family.name: family for family in FAMILIES}
    for entry in CATALOG:
        family = known[entry.name]
        assert (family.repo, family.licence) == (entry.repo, entry.licence)
        assert entry.file in family.files.values()


@each
def test_an_entry_is_well_formed(family: Family) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9.-]*:[a-z0-9.-]+", family.name)
    assert family.licence in SPDX or re.fullmatch(r"LicenseRef-[a-z0-9.-]+", family.licence)
    assert 2048 <= family.n_ctx <= 1 << 20
    assert family.n_ctx % 1024 == 0
    assert family.files


@each
def test_its_files_are_the_models_that_their_quantizations_name(family: Family) -> None:
    for quant, file in family.files.items():
        assert parse_reference(f"hf:{family.repo}/{file}") == HubReference(
            family.repo, file=file, explicit=True
        )
        assert is_model(file)
        assert read_quantization(file) == parse_quantization(quant)
        assert parse_reference(f"{family.repo}:{quant}") == HubReference(family.repo, quant)
        assert pick_file(family.files.values(), HubReference(family.repo, quant)) == file
    files = list(family.files.values())
    assert [m.file for m in group_models(RepoFile(file) for file in files)] == files


@each
def test_a_default_is_there(family: Family) -> None:
    models = group_models(RepoFile(file) for file in family.files.values())
    assert choose_model(models, None, family.repo).model.file in family.files.values()
    assert "Q4_K_M" in family.files or len(models) == 1
