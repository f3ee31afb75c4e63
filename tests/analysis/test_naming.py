from typing import Any

import pandas as pd
import pytest

from analysis.kit import naming

LORA: dict[str, Any] = {
    "name": "lora", "r": 8, "alpha": 16, "dropout": 0.0, "weight_types": "q+v", "modules": [], "layers": None,
    "init": "gaussian", "scaling": "standard",
}  # fmt: skip


@pytest.mark.parametrize(
    ("method", "label", "settings"),
    [
        ({"name": "full"}, "full", ""),
        ({"name": "ft_top2", "layers": 2}, "ft_top2", "layers=2"),
        ({"name": "adapter_d", "drop": 3, "bottleneck": 16}, "adapter_d", "bottleneck=16, drop=3"),
        ({"name": "prefix_embed", "l_i": 0, "l_p": 32}, "prefix_embed", "l_p=32, l_i=0"),
        (LORA, "lora", "r=8, q+v"),
        (LORA | {"alpha": 32}, "lora", "r=8, alpha=32, q+v"),
        (LORA | {"r": {"q": 4, "v": 12}, "layers": [0, 2]}, "lora", "r=q:4/v:12, q+v, layers=0/2"),
        (LORA | {"weight_types": "", "modules": ["*.fc", "*.up"]}, "lora", "r=8, *.fc/*.up"),
        (LORA | {"scaling": "rslora"}, "rslora", "r=8, q+v"),
        (LORA | {"dora": True}, "dora", "r=8, q+v"),
        (LORA | {"dora": False, "lr_ratio": None}, "lora", "r=8, q+v"),
        (LORA | {"lr_ratio": 16}, "lora_plus", "r=8, q+v, lr_ratio=16"),
        (LORA | {"init": "pissa"}, "pissa", "r=8, q+v"),
        (LORA | {"init": "lora_ga", "dora": True}, "dora+lora_ga", "r=8, q+v"),
        (LORA | {"name": "lora+prefix_embed", "l_p": 8, "l_i": 4}, "lora+prefix_embed", "r=8, q+v, l_p=8, l_i=4"),
        (LORA | {"something": 0.5}, "lora", "r=8, q+v, something=0.5"),
    ],
)
def test_label_and_settings(method: dict[str, Any], label: str, settings: str) -> None:
    assert (naming.label(method), naming.settings(method)) == (label, settings)


def test_every_label_has_a_family_and_a_place() -> None:
    labels = ["new", "dora+lora_ga", "dora", "lora+prefix_layer", "adapter_h", "full", "lora", "pissa"]
    ordered = ["full", "adapter_h", "lora+prefix_layer", "lora", "dora", "dora+lora_ga", "pissa", "new"]
    assert sorted(labels, key=naming.order) == ordered
    assert naming.family("dora+lora_ga") == naming.family("lora")
    assert naming.family("new") == "others"


def test_arranged_by_task_then_method_then_size() -> None:
    rows = [("b", "full", 9), ("a", "lora", 64), ("a", "lora", 8), ("a", "full", 9)]
    runs = pd.DataFrame(rows, columns=["task", "label", "trainable_params"])
    runs = naming.arranged(runs.assign(model="m", settings="", lr=1e-3, seed=0))
    assert list(runs[["task", "label", "trainable_params"]].itertuples(index=False, name=None)) == [
        ("a", "full", 9), ("a", "lora", 8), ("a", "lora", 64), ("b", "full", 9),
    ]  # fmt: skip
