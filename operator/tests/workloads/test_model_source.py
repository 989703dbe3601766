"""Where the engine finds a model; that it gets there is shown with the pods of a set."""

import pytest

from flotilla_operator.workloads.model_source import parse_source


@pytest.mark.parametrize(
    ("source", "revision", "path"),
    [
        pytest.param("hf://org/model", None, "/models/org--model", id="from the hub"),
        pytest.param("hf://org/model", "v1", "/models/org--model@v1", id="a revision beside the others"),
        pytest.param("pvc://claim/a/b/", None, "/claims/claim/a/b", id="a folder on a claim"),
        pytest.param("pvc://claim", None, "/claims/claim", id="a whole claim"),
        pytest.param("hf://org/a..b", "v1..2", "/models/org--a..b@v1..2", id="two dots within a name"),
    ],
)
def test_a_source_has_a_path(source: str, revision: str | None, path: str) -> None:
    assert parse_source(source, revision).path == path


@pytest.mark.parametrize(
    ("source", "revision"),
    [
        pytest.param("hf://../..", None, id="two folders up"),
        pytest.param("hf://org/..", None, id="one folder up"),
        pytest.param("hf://org/model", "../../other--model", id="a revision that leads to another model"),
        pytest.param("pvc://claim/a/../b", None, id="a claim's folder beside the one named"),
        pytest.param("pvc://claim/..", None, id="beside the claim"),
    ],
)
def test_a_source_never_leads_upwards(source: str, revision: str | None) -> None:
    with pytest.raises(ValueError, match="leads upwards"):
        parse_source(source, revision)
