"""Tables, BIDS, MVTec AD and VisA: the same scans and masks from each."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from napari_dino_uad import find_cases
from napari_dino_uad.core.errors import InputError


def image(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(40, 200, (64, 96)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(path))
    return path


def mask(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((64, 96), np.uint8)
    values[10:20, 30:40] = 255
    sitk.WriteImage(sitk.GetImageFromArray(values), str(path))
    return path


def found(cases, root):
    """Scan, mask and health of cases, as text."""
    return [
        (
            str(case.scan.relative_to(root)),
            case.mask and str(case.mask.relative_to(root)),
            case.healthy,
        )
        for case in cases
    ]


def mvtec(root):
    image(root / "brain/train/good/000.png", 1)
    image(root / "brain/train/good/001.png", 2)
    image(root / "brain/test/good/000.png", 3)
    image(root / "brain/test/tumour/000.png", 4)
    mask(root / "brain/ground_truth/tumour/000_mask.png")
    return root


TRAIN = [("brain/train/good/000.png", None, True), ("brain/train/good/001.png", None, True)]
TEST = [
    ("brain/test/good/000.png", None, True),
    ("brain/test/tumour/000.png", "brain/ground_truth/tumour/000_mask.png", False),
]


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("", TRAIN + TEST),
        ("brain", TRAIN + TEST),
        ("brain/train", TRAIN),
        ("brain/train/good", TRAIN),
        ("brain/test", TEST),
        ("brain/test/tumour", TEST[1:]),
    ],
)
def test_mvtec(tmp_path, place, expected):
    assert found(find_cases([mvtec(tmp_path) / place], require_masks=True), tmp_path) == expected


def test_mvtec_image_without_its_mask(tmp_path):
    image(mvtec(tmp_path) / "brain/test/tumour/001.png", 5)
    with pytest.raises(InputError, match="001 has none"):
        find_cases([tmp_path], require_masks=True)


@pytest.mark.parametrize("place", ["", "eye", "eye/Data", "eye/Data/Images"])
def test_visa(tmp_path, place):
    image(tmp_path / "eye/Data/Images/Normal/0.png", 1)
    image(tmp_path / "eye/Data/Images/Anomaly/0.png", 2)
    mask(tmp_path / "eye/Data/Masks/Anomaly/0.png")
    healthy = ("eye/Data/Images/Normal/0.png", None, True)
    ill = ("eye/Data/Images/Anomaly/0.png", "eye/Data/Masks/Anomaly/0.png", False)
    assert found(find_cases([tmp_path / place], require_masks=True), tmp_path) == [healthy, ill]
    normal = find_cases([tmp_path / "eye/Data/Images/Normal"])
    assert found(normal, tmp_path) == [healthy]


def test_visa_split_table(tmp_path):
    image(tmp_path / "eye/a.png", 1)
    image(tmp_path / "eye/b.png", 2)
    mask(tmp_path / "masks/b.png")
    (tmp_path / "split").mkdir()
    table = tmp_path / "split" / "1cls.csv"
    table.write_text(
        "object,split,label,image,mask\n"
        "eye,train,normal,../eye/a.png,\n"
        "eye,test,anomaly,../eye/b.png,../masks/b.png\n"
    )
    assert found(find_cases([table], "split=train"), tmp_path) == [("eye/a.png", None, True)]
    ill = [("eye/b.png", "masks/b.png", False)]
    assert found(find_cases([table], "split=test, object=eye", require_masks=True), tmp_path) == ill
    assert len(find_cases([table], require_masks=True)) == 2


@pytest.mark.parametrize(
    ("text", "pattern", "message"),
    [
        ("path\na.png\n", None, "needs a column scan .* has path"),
        ("scan\nb.png\n", None, "Line 2 of .*column scan: there is no .*b.png"),
        ("scan,mask\na.png,c.png\n", None, "column mask: there is no .*c.png"),
        ("scan,healthy\na.png,perhaps\n", None, "expected yes or no, got 'perhaps'"),
        ("scan,healthy,mask\na.png,yes,b_mask.png\n", None, "is healthy, but has a mask"),
        ("scan\na.png\na.png\n", None, "twice"),
        ("scan\na.png,b\n", None, "more cells in line 2"),
        ("scan\n", None, "no row"),
        ("scan,site\na.png,x\n", "site=y", "no row with site=y"),
        ("scan,site\na.png,x\n", "town=y", "its columns are scan, site"),
        ("scan,site\n,x\n", None, "Line 2 .* has no scan"),
    ],
)
def test_tables_that_do_not_fit(tmp_path, text, pattern, message):
    image(tmp_path / "a.png")
    mask(tmp_path / "b_mask.png")
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        find_cases([tmp_path / "table.csv"], pattern)


@pytest.mark.parametrize(
    ("name", "comma"), [("table.csv", ","), ("table.csv", ";"), ("table.tsv", "\t")]
)
def test_tables_of_spreadsheets(tmp_path, name, comma):
    image(tmp_path / "a, first.png")
    row = ["scan", "site"], ["a, first.png" if comma != "," else '"a, first.png"', "Zürich"]
    text = "\r\n".join(comma.join(cells) for cells in row)
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [case.name for case in find_cases([tmp_path / name], "site=Zürich")] == ["a, first"]


def test_a_table_in_another_encoding_names_the_way_out(tmp_path):
    (tmp_path / "table.csv").write_bytes("scan,site\na.png,Zürich\n".encode("cp1252"))
    with pytest.raises(InputError, match="save it as CSV UTF-8"):
        find_cases([tmp_path / "table.csv"])


@pytest.fixture
def bids(tmp_path):
    def scan(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.random.default_rng(0).normal(100, 10, (4, 8, 8)).astype(np.float32)
        sitk.WriteImage(sitk.GetImageFromArray(values), str(path))

    (tmp_path / "dataset_description.json").write_text(json.dumps({"BIDSVersion": "1.9.0"}))
    for subject in ("01", "02"):
        for session in ("1", "2"):
            for kind in ("FLAIR", "T1w"):
                name = f"sub-{subject}_ses-{session}_{kind}.nii.gz"
                scan(tmp_path / f"sub-{subject}/ses-{session}/anat/{name}")
    anat = tmp_path / "derivatives/manual/sub-01/ses-1/anat"
    scan(anat / "sub-01_ses-1_space-orig_label-lesion_mask.nii.gz")
    scan(anat / "sub-01_ses-1_label-brain_mask.nii.gz")
    # A scan in the derivatives is no scan of the data set.
    scan(anat / "sub-01_ses-1_desc-denoised_FLAIR.nii.gz")
    return tmp_path


def test_bids(bids):
    names = [case.name for case in find_cases([bids], "FLAIR")]
    assert names == [
        f"sub-{subject}_ses-{session}_FLAIR" for subject in ("01", "02") for session in ("1", "2")
    ]
    cases = find_cases([bids], "ses-1_FLAIR", "label-lesion_mask")
    masks = [case.mask and case.mask.name for case in cases]
    assert masks == ["sub-01_ses-1_space-orig_label-lesion_mask.nii.gz", None]
    # Names of files serve there too.
    assert len(find_cases([bids], "*_T1w.nii.gz")) == 4


def test_bids_that_does_not_fit(bids):
    with pytest.raises(InputError, match="several kinds of scans, FLAIR, T1w"):
        find_cases([bids])
    with pytest.raises(InputError, match="no scan bold; it has FLAIR, T1w"):
        find_cases([bids], "bold")
    with pytest.raises(InputError, match=r"sub-01_ses-1_FLAIR\.nii\.gz has several masks"):
        find_cases([bids], "FLAIR", "mask")
    with pytest.raises(InputError, match="None of the 4 scans has a mask"):
        find_cases([bids], "FLAIR", "label-tumour_mask")
    with pytest.raises(InputError, match="a suffix with entities in front"):
        find_cases([bids], "FLAIR.nii.gz")
    (bids / "dataset_description.json").unlink()
    with pytest.raises(InputError, match=r"needs one \* for the case name, got 'FLAIR'"):
        find_cases([bids], "FLAIR")


def test_bids_of_one_kind_needs_no_pattern(bids):
    for path in bids.glob("sub-*/ses-*/anat/*_T1w.nii.gz"):
        path.unlink()
    shutil.rmtree(bids / "sub-02")
    assert [case.name for case in find_cases([bids])] == [
        "sub-01_ses-1_FLAIR",
        "sub-01_ses-2_FLAIR",
    ]
