from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from search.doctor import Status
from search.doctor.places import check_database
from search.errors import ArtifactError, SearchError, StoreError
from search.names import known_names
from search.workspace import find_places, open_store, open_workspace


@pytest.fixture(autouse=True)
def _clean(monkeypatch, tmp_path):
    for name in ("NETCARVE_DB", "NETCARVE_ARTIFACTS", "NETCARVE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_what_is_given_goes_before_the_environment_and_that_before_the_default(
    monkeypatch, tmp_path
):
    places = find_places()
    assert places.home == tmp_path / "netcarve-home"
    assert places.database_file == places.home / "netcarve.db"
    assert places.artifacts == str(places.home / "artifacts")
    monkeypatch.setenv("NETCARVE_HOME", "/env")
    monkeypatch.setenv("NETCARVE_DB", "postgresql://env/db")
    monkeypatch.setenv("NETCARVE_ARTIFACTS", "s3://env")
    assert find_places().home == Path("/env")
    assert find_places().database_file is None
    assert find_places().database_url.drivername == "postgresql+psycopg"
    given = find_places(Path("here"), "sqlite:///given.db", "memory://given")
    assert given.home == tmp_path / "here"
    assert (given.database, given.artifacts) == ("sqlite:///given.db", "memory://given")


def test_a_workspace_is_created_where_it_was_asked_for(tmp_path):
    (tmp_path / "a" / "folder").mkdir(parents=True)
    with open_workspace(tmp_path / "a" / "home") as work:
        assert work.store.jobs.jobs() == []
        work.artifacts.put_folder(tmp_path / "a" / "folder")
    assert (tmp_path / "a" / "home" / "netcarve.db").exists()
    assert any((tmp_path / "a" / "home" / "artifacts").rglob("*"))
    assert not (tmp_path / "netcarve-home").exists()


def test_a_home_may_have_any_name(tmp_path):
    home = tmp_path / "a?b=%20 #c{d}"
    with open_store(home) as store:
        record = store.jobs.record_job("job", {}, "space", 0)[0]
        study = optuna.create_study(storage=store.optuna_storage(), study_name="one")
        study.add_trial(optuna.trial.create_trial(value=1.0))
    assert {path.name for path in tmp_path.iterdir()} == {home.name}
    assert (home / "netcarve.db").is_file()
    with open_store(home) as store:
        assert [job.id for job in store.jobs.jobs()] == [record.id]
        assert len(optuna.load_study(storage=store.optuna_storage(), study_name="one").trials) == 1
    assert known_names("job", home) == [record.id]
    found = check_database(find_places(home))
    assert (found.status, "revision 0" in found.found) == (Status.OK, True)


def test_a_database_elsewhere_does_not_need_the_home(tmp_path):
    with open_store(tmp_path / "home", f"sqlite:///{tmp_path / 'jobs.db'}"):
        pass
    assert not (tmp_path / "home").exists()


def test_places_that_cannot_be_used(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SearchError, match="--home"), open_store(tmp_path / "file" / "home"):
        pass
    with pytest.raises(StoreError), open_store(tmp_path, "sqlite:////no/such/folder/x.db"):
        pass
    with pytest.raises(ArtifactError), open_workspace(tmp_path, artifacts="nosuch://x"):
        pass
