"""Which lesions are met by findings, and which findings are false."""

from __future__ import annotations

import numpy as np
import pytest

from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.evaluation.lesions import label_lesions, match_lesions, region_shares
from napari_dino_uad.core.evaluation.settings import EvaluationSettings, read_groups


@pytest.fixture
def scene():
    """A lesion of 16 voxels of which 3 are found, one of 4 that is missed, and a false finding."""
    lesion = np.zeros((2, 12, 12), dtype=bool)
    lesion[0, 1:5, 1:5] = True
    lesion[1, 8:10, 8:10] = True
    findings = np.zeros(lesion.shape, dtype=np.uint8)
    findings[0, 1, 2:8] = 1
    findings[1, 0, 0:3] = 2
    return lesion, findings


def test_a_shared_voxel_meets_a_lesion(scene):
    lesion, findings = scene
    match = match_lesions(label_lesions(lesion)[0], findings)
    assert match.met == (True, False)
    assert match.sizes == (16, 4)
    assert match.false == (2,)
    assert match.row() == {
        "lesions": 2, "lesions_met": 1, "largest_lesion_met": True, "false_findings": 1,
    }  # fmt: skip


def test_a_share_can_be_asked_for(scene):
    lesion, findings = scene
    labels, _ = label_lesions(lesion)
    assert match_lesions(labels, findings, overlap=3 / 16).met == (True, False)
    stricter = match_lesions(labels, findings, overlap=0.51)
    assert stricter.met == (False, False)
    assert stricter.false == (1, 2)


def test_without_lesions_every_finding_is_false(scene):
    _, findings = scene
    match = match_lesions(np.zeros(findings.shape, dtype=np.int32), findings)
    assert match.largest_met is None
    assert match.false == (1, 2)


def test_shares_of_regions_add_up_to_their_number(scene):
    lesion, _ = scene
    shares, counts = region_shares(lesion)
    assert shares.sum(axis=(1, 2)) == pytest.approx(counts)
    assert counts.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lesion_overlap": 1.5}, "from 0 to 1, got 1.5"),
        ({"rates": (0.0,)}, "between 0 and 1, got 0.0"),
        ({"bootstrap": -1}, "0 or more, got -1"),
    ],
)
def test_settings_out_of_range_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        EvaluationSettings(**values)


def test_groups_are_read_from_a_table(tmp_path):
    table = tmp_path / "groups.csv"
    table.write_text("case,site,scanner\na,north,1\nb,south,2\n", encoding="utf-8")
    assert read_groups(table) == {
        "site": {"a": "north", "b": "south"}, "scanner": {"a": "1", "b": "2"},
    }  # fmt: skip
    table.write_text("name,site\na,north\n", encoding="utf-8")
    with pytest.raises(InputError, match="needs a column case"):
        read_groups(table)
    table.write_text("case,site\na,north\na,south\n", encoding="utf-8")
    with pytest.raises(InputError, match="names the case a twice"):
        read_groups(table)
