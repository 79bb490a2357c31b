"""Several processes: the same results as one, also if one of them is killed."""

from __future__ import annotations

import os
import signal

import pytest

import crew_work
from napari_dino_uad import Case, drain, evaluate, fit, load_backbone, load_model, save_model
from napari_dino_uad.core.backbones.recipe import BackboneRecipe
from napari_dino_uad.core.crew import DaskCrew, LocalCrew
from napari_dino_uad.core.errors import InputError
from napari_dino_uad.core.evaluation.settings import EvaluationSettings
from napari_dino_uad.core.features.cache import FeatureCache

QUICK = EvaluationSettings(bootstrap=0, froc_rates=(0.05,))
SMALL = {"components": 30, "epochs": 1, "max_patches": 5000}


def results(running):
    return dict(one for one in running if one is not None)


@pytest.fixture(autouse=True)
def one_thread():
    """As in the processes of a crew on two cores: torch rounds by its number of threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cluster():
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as running:
        yield running


@pytest.fixture
def dask_crew(cluster):
    crew = DaskCrew(cluster.scheduler_address)
    yield crew
    crew.close()


@pytest.fixture(params=["local", "dask"])
def crew(request):
    return (
        LocalCrew(os.cpu_count() or 1)
        if request.param == "local"
        else request.getfixturevalue("dask_crew")
    )


def test_every_item_has_its_result(crew):
    assert results(crew.run(crew_work.times, 3, range(5))) == {n: 3 * n for n in range(5)}


def test_an_error_of_the_work_is_raised_here(crew):
    with pytest.raises(InputError, match="leave it out"):
        results(crew.run(crew_work.refuse_three, None, range(5)))


def test_a_killed_process_is_replaced(crew, tmp_path):
    found = results(crew.run(crew_work.die_once, tmp_path, range(5)))
    assert found == {n: n for n in range(5)}
    assert (tmp_path / "died").exists()


def test_processes_that_die_again_and_again():
    with pytest.raises(InputError, match=r"ended 3 times .* ask for fewer jobs"):
        results(LocalCrew(2).run(crew_work.die, None, range(3)))


def test_a_cancelled_crew_ends_its_processes(tmp_path):
    running = LocalCrew(2).run(crew_work.sleep, tmp_path, range(4))
    while len(list(tmp_path.iterdir())) < 2:
        assert next(running) is None
    running.close()
    for path in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.name), 0)


def test_no_scheduler(monkeypatch):
    monkeypatch.setattr("napari_dino_uad.core.crew._ANSWER_S", 1)
    with pytest.raises(InputError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        DaskCrew("tcp://127.0.0.1:9")
    with pytest.raises(InputError, match="No Dask scheduler answers at nonsense"):
        DaskCrew("nonsense")


def test_jobs_are_counted_from_one():
    with pytest.raises(InputError, match="1 or more jobs, got 0"):
        LocalCrew(0)


def test_a_backbone_is_loaded_again_with_its_weights():
    backbone = load_backbone()
    recipe = BackboneRecipe.of(backbone)
    assert recipe.load().sha256 == backbone.sha256
    other = BackboneRecipe(recipe.key, recipe.weights, "0" * 64, recipe.engine)
    with pytest.raises(InputError, match="not those used here"):
        other.load()


def cases(heads):
    return [
        Case(heads / "ill" / "p_flair.nii.gz", heads / "ill" / "p_lesion.nii.gz"),
        Case(heads / "healthy" / "h0_flair.nii.gz", healthy=True),
        # No such scan: it is named, and the others are done.
        Case(heads / "healthy" / "absent_flair.nii.gz", healthy=True),
        Case(heads / "healthy" / "h1_flair.nii.gz", healthy=True),
    ]


def test_an_evaluation_is_that_of_one_process(crew, heads, model, tmp_path):
    alone = drain(evaluate(cases(heads), model, settings=QUICK, out=tmp_path / "one", cache=False))
    shared = drain(
        evaluate(cases(heads), model, settings=QUICK, out=tmp_path / "two", cache=False, crew=crew)
    )
    assert shared.cases == alone.cases
    assert shared.curves == alone.curves
    assert shared.failed == alone.failed
    assert list(shared.failed) == [str(heads / "healthy" / "absent_flair.nii.gz")]
    for path in sorted((tmp_path / "one" / "maps").glob("*.nii.gz")):
        assert (tmp_path / "two" / "maps" / path.name).read_bytes() == path.read_bytes()


def test_an_evaluation_shares_a_folder(heads, model):
    with pytest.raises(InputError, match="share results through a folder"):
        drain(evaluate(cases(heads), model, crew=LocalCrew(2)))


def fitted(heads, folder, crew=None, on_progress=None, cache=True):
    healthy = [Case(path) for path in sorted((heads / "healthy").glob("*_flair.nii.gz"))]
    store = FeatureCache(folder / "cache") if cache else False
    model = drain(fit(healthy, settings=SMALL, cache=store, crew=crew), on_progress)
    save_model(model, folder / "model.safetensors")
    return load_model(folder / "model.safetensors")


def tensors_of(model):
    return {name: one.numpy().tobytes() for name, one in model.views[0].normative.tensors().items()}


def test_a_fit_is_that_of_one_process_with_a_worker_killed(cluster, dask_crew, heads, tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    killed = []

    def kill_one(progress):
        if progress.step == "Embedding scans" and progress.done == 1 and not killed:
            killed.append(next(iter(cluster.workers.values())).process.pid)
            os.kill(killed[0], signal.SIGKILL)

    shared = fitted(heads, tmp_path / "two", dask_crew, kill_one)
    assert killed
    alone = fitted(heads, tmp_path / "one")
    assert tensors_of(shared) == tensors_of(alone)
    assert shared.calibration.threshold(0.05) == alone.calibration.threshold(0.05)


def test_a_fit_by_several_processes_needs_the_cache(heads, tmp_path):
    with pytest.raises(InputError, match="leave out --no-cache"):
        fitted(heads, tmp_path, LocalCrew(2), cache=False)
