"""ImageNet's layouts: the validation images by folder, or flat with each of the files that label them."""

import numpy as np
import pytest

from tests.data.listings import contents, faults, listed
from tests.data.picture_files import encoded

VAL = {f"ILSVRC2012_val_0000000{i}.JPEG": wnid for i, wnid in enumerate(["n02", "n01", "n02", "n03"], 1)}


def write_imagenet(root, flat):
    for wnid in ("n01", "n02", "n03"):
        (root / "train" / wnid).mkdir(parents=True)
        for i in range(2):
            (root / "train" / wnid / f"{wnid}_{i}.JPEG").write_bytes(encoded(int(wnid[1:]) * 10 + i, "jpeg"))
    for i, (name, wnid) in enumerate(VAL.items()):
        place = root / "val" / ("" if flat else wnid) / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(encoded(100 + i, "jpeg"))


def write_devkit(folder):
    from scipy.io import savemat

    kinds = [("ILSVRC2012_ID", float), ("WNID", object), ("words", object), ("num_children", float)]
    # Numbered in another order than the wnids, as the real ones are; the last is no leaf.
    rows = [(1.0, "n03", "c", 0.0), (2.0, "n02", "b", 0.0), (3.0, "n01", "a", 0.0), (4.0, "n99", "all", 3.0)]
    folder.mkdir(parents=True, exist_ok=True)
    savemat(folder / "meta.mat", {"synsets": np.array(rows, dtype=kinds)})
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("2\n3\n2\n1\n")


GROUND_TRUTHS = {
    "LOC_val_solution.csv": lambda root: (root / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\n" + "".join(f"{n[:-5]},{w} 1 2 3 4 n09 5 6 7 8 \n" for n, w in VAL.items())
    ),
    "val.txt": lambda root: (root / "val.txt").write_text("".join(f"{n} {int(w[1:]) - 1}\n" for n, w in VAL.items())),
    "val_labels.txt": lambda root: (root / "val_labels.txt").write_text("".join(f"{n} {w}\n" for n, w in VAL.items())),
    "devkit": lambda root: write_devkit(root / "ILSVRC2012_devkit_t12" / "data"),
}


@pytest.mark.parametrize("truth", GROUND_TRUTHS)
def test_imagenet_flat_and_by_folder_are_the_same_items(tmp_path, truth):
    write_imagenet(tmp_path / "flat", flat=True)
    GROUND_TRUTHS[truth](tmp_path / "flat")
    write_imagenet(tmp_path / "foldered" / "ILSVRC" / "Data" / "CLS-LOC", flat=False)
    flat, foldered = listed(f"imagenet:{tmp_path / 'flat'}"), listed(f"imagenet:{tmp_path / 'foldered'}")
    assert flat.class_names == foldered.class_names == ("n01", "n02", "n03")
    for split, labels in (("train", [0, 0, 1, 1, 2, 2]), ("test", [0, 1, 1, 2])):
        assert flat.splits[split].labels.tolist() == foldered.splits[split].labels.tolist() == labels
        assert contents(flat.splits[split]) == contents(foldered.splits[split])


def test_faults_of_imagenet(tmp_path):
    write_imagenet(tmp_path, flat=True)
    assert "none of these files has their labels: LOC_val_solution.csv, val.txt" in faults(f"imagenet:{tmp_path}")[0]
    (tmp_path / "val.txt").write_text("ILSVRC2012_val_00000001.JPEG 0\n")
    assert "has no label of 3 images" in faults(f"imagenet:{tmp_path}")[0]
    (tmp_path / "val.txt").write_text("".join(f"{name} n77\n" for name in VAL))
    assert "1 classes that train/ does not have, e.g. 'n77'" in faults(f"imagenet:{tmp_path}")[0]
    (tmp_path / "val.txt").write_text("".join(f"{name} 7\n" for name in VAL))
    assert "val.txt cannot be read as labels" in faults(f"imagenet:{tmp_path}")[0]
    assert "is not laid out as ImageNet is" in faults(f"imagenet:{tmp_path / 'train'}")[0]
