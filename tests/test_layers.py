"""Imports run one way: a module may import only from layers to the left of its own, or its own."""

import ast
from pathlib import Path

import mednovelty

LAYERS = [
    "errors types papers seeds settings text scratch voxel_arrays devices interpolation "
    "postprocess memory_ladder capabilities sample_places",
    "scan protocols plugins metrics maps calibration synthetic_anomalies",
    "io preprocess views nn anomalies neighbours reference voxel_cache outlier_exposure coreset checkpoint "
    "curve live_curve schedule averaging initial_weights",
    # Of arrays alone; what it does to folders is further right.
    "segment",
    # The loop knows no method; a method may train a part of its own, as autoencoders that others start from.
    "batch train",
    "methods",
    "map_settings annotation_settings held_out_examples score_names scoring store candidates searches tuning",
    "fitting recipes",
    "annotations",
    "holding_out signal_scale gathering image_gathering outlier_sources mapping",
    "detector abnormality detector_settings model_folder model_card origin record_checks",
    "voxel_fitting explaining words calibrate combine",
    "evaluation outputs testing",
    "pvalue_maps told_calibrations told_sources quality lesion_masks",
    "output_folder run_record scan_table segment_files segment_labelled segment_ways combine_files",
    "cohort segment_folder combine_folder report viewers notebook explain_cohort explain_maps explain_voxels "
    "cross_validation benchmarks",
    "console live_training page_server discovery fit_knowledge",
    "commands fit_command calibrate_command combine_command explain_command threshold_command words_commands "
    "preview_command report_command slicer_command view_command bench_command demo",
    "cli_options",
    "cli_bench cli_decisions cli_looking",
    "cli",
    "__main__",
]
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer.split()}
ROOT = Path(mednovelty.__file__).parent

# The public entrance of a lower layer may hand over to a higher one at the last moment.
HANDOVERS = {("maps.py", "io"), ("maps.py", "notebook"), ("detector.py", "notebook"), ("__init__.py", "*")}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mednovelty"):
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from [
                alias.name.split(".")[1] for alias in node.names if alias.name.startswith("mednovelty.")
            ]


def type_checking_lines(path):
    """Imports that only the type checker sees bind nobody."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            yield from (child for child in node.body)


def run_time_imports(path):
    checked = [name for node in type_checking_lines(path) for name in names_of(node)]
    found = list(imports(path))
    for name in checked:
        found.remove(name)
    return found


def names_of(node):
    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mednovelty"):
        parts = node.module.split(".")
        return [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
    return []


def home(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def modules():
    return [path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts != ("__init__.py",)]


def test_no_module_imports_upwards():
    upward = [
        f"{path.relative_to(ROOT)} imports {target}"
        for path in modules()
        for target in run_time_imports(path)
        if RANK[target] > RANK[home(path)] and (path.name, target) not in HANDOVERS
    ]
    assert not upward, "\n".join(upward)


def test_every_module_has_a_layer():
    assert {home(path) for path in modules()} == set(RANK)


def test_methods_import_each_other_only_where_they_share_a_model():
    shared = {
        "sample_scorers",
        "input_gradients",
        "vae",
        "vae_settings",
        "vae_start",
        "vae_comparison",
        "ppca",
        "image_vae",
        "image_vae_settings",
        "image_vae_comparison",
        "autoencoder",
        "autoencoder_settings",
        "hyperspherical",
        "hyperspherical_settings",
        "hyperspherical_loss",
        "hyperspherical_vae",
        "hypersphere",
        "hypersphere_settings",
        "hypersphere_model",
        "fcdd",
        "fcdd_settings",
        "fcdd_model",
        "synthetic_lesions",
        "synthetic_lesions_settings",
        "synthetic_lesions_model",
        "synthetic_lesions_augmentation",
        "synthetic_lesions_found",
        "cvdd",
        "cvdd_kept",
        "cvdd_settings",
        "cvdd_training",
    }
    found = []
    for path in (ROOT / "methods").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mednovelty.methods."):
                target = node.module.rsplit(".", 1)[1]
                if target not in shared and path.stem not in shared:
                    found.append(f"{path.stem} imports {target}")
    assert not found, "\n".join(found)


def test_nn_knows_no_method():
    assert not [p for p in (ROOT / "nn").glob("*.py") if "methods" in run_time_imports(p)]


def test_nothing_runs_what_it_reads():
    # RELIABILITY S1: no way from a file's content to running code.
    forbidden = {"eval", "exec", "pickle", "shelve", "marshal", "extractall", "unsafe_load"}
    found = []
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "id", getattr(node, "attr", getattr(node, "module", None)))
            if name in forbidden and not _is_torch_eval(node):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} {name}")
            if isinstance(node, ast.Import):
                found += [f"{path.name} imports {a.name}" for a in node.names if a.name in forbidden]
            if isinstance(node, ast.Call):
                found += [f"{path.name}:{node.lineno} {word}" for word in _risky_call(node)]
    assert not found, "\n".join(found)


def _is_torch_eval(node):
    # module.eval() of a network is a method call, not the builtin.
    return isinstance(node, ast.Attribute) and node.attr == "eval"


def _risky_call(node):
    text = ast.unparse(node.func)
    if text in ("torch.load", "yaml.load"):
        yield text
    for keyword in node.keywords:
        if keyword.arg in ("shell", "allow_pickle") and getattr(keyword.value, "value", True) is not False:
            yield f"{text}({keyword.arg}=...)"
