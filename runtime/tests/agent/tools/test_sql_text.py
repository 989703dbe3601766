"""Arguments in statements, and URLs of databases; no server."""

import pytest

from flotilla_runtime.agent.tools.http_tool import HttpTools
from flotilla_runtime.agent.tools.references import ProgramError
from flotilla_runtime.agent.tools.sql_text import read_statement
from flotilla_runtime.agent.worker.loading import load_tools
from flotilla_runtime.contract import SqlQuery, ToolConfig, read_database_url
from leaks.planted import MARK, planted


@pytest.mark.holds("tools.md", "A query is one read-only statement with bound arguments, and gives rows")
@pytest.mark.parametrize(
    ("query", "within", "names"),
    [
        pytest.param("select 1", "select 1", set(), id="no argument"),
        pytest.param("select :a, :b, :a;", "select %(a)s, %(b)s, %(a)s", {"a", "b"}, id="arguments"),
        pytest.param("select x::text", "select x::text", set(), id="a cast"),
        pytest.param("select ':a ''; :b' , :c", "select ':a ''; :b' , %(c)s", {"c"}, id="a string"),
        pytest.param(r"select e'\':a', :b", r"select e'\':a', %(b)s", {"b"}, id="a string with escapes"),
        pytest.param('select ":a;" from t', 'select ":a;" from t', set(), id="a quoted name"),
        pytest.param("select 1 -- :a;\n, :b", "select 1 -- :a;\n, %(b)s", {"b"}, id="a comment"),
        pytest.param("select /* :a; */ :b", "select /* :a; */ %(b)s", {"b"}, id="another comment"),
        pytest.param("select $x$ :a; $x$, :b", "select $x$ :a; $x$, %(b)s", {"b"}, id="dollars"),
        pytest.param("select 7 % 2, '%s'", "select 7 %% 2, '%%s'", set(), id="the driver's own mark"),
    ],
)
def test_arguments_are_found_outside_of_strings_and_comments(
    query: str, within: str, names: set[str]
) -> None:
    statement = read_statement(query)
    assert f"\n{within}\n" in statement.text
    assert statement.names == names


@pytest.mark.holds("tools.md", "A query is one read-only statement with bound arguments, and gives rows")
@pytest.mark.attack("SQL that writes, or that is more than one statement")
@pytest.mark.parametrize(
    ("query", "says"),
    [
        pytest.param("select 1; delete from cities", "more than one statement", id="two"),
        pytest.param("select 1) as x; delete from cities; --", "more than one statement", id="out of ours"),
        pytest.param("select :flotilla_rows", "is reserved", id="a name of ours"),
        pytest.param("select :city", "the argument :city is not in parameters.properties", id="unknown"),
    ],
)
def test_a_statement_that_cannot_be_a_tool_ends_the_worker_with_words(query: str, says: str) -> None:
    config = ToolConfig(name="t", sql=SqlQuery(url_path="/none", query=query))
    with pytest.raises(ProgramError) as raised:
        load_tools([config], HttpTools())
    assert raised.value.field == "spec.tools[0].sql.query"
    assert says in raised.value.problem


def test_a_url_names_one_host() -> None:
    url = read_database_url("postgresql://me:p%40ss@[fd00::7]/shop?sslmode=verify-full&sslrootcert=system\n")
    assert (url.address, url.user, url.password, url.name) == (
        "postgresql://[fd00::7]:5432",
        "me",
        "p@ss",
        "shop",
    )
    assert url.options == (("sslmode", "verify-full"), ("sslrootcert", "system"))
    assert "p@ss" not in repr(url)


@pytest.mark.attack("The URL of a database has an option that leads to another host, or reads a file")
@pytest.mark.parametrize(
    "url",
    [
        pytest.param(f"mysql://me:{planted('me')}@a/shop", id="another database"),
        pytest.param(f"postgresql://me:{planted('me')}@a/shop?host=b", id="another host"),
        pytest.param(
            f"postgresql://me:{planted('me')}@a/shop?hostaddr=169.254.169.254", id="another address"
        ),
        pytest.param(f"postgresql://me:{planted('me')}@a/shop?service=x", id="a service"),
        pytest.param(f"postgresql://me:{planted('me')}@a/shop?passfile=/etc/passwd", id="a file"),
        pytest.param(f"postgresql://me:{planted('me')}@a/shop?sslrootcert=/etc/passwd", id="a certificate"),
        pytest.param(
            f"postgresql://me:{planted('me')}@a/shop?options=-c%20statement_timeout=0", id="settings"
        ),
        pytest.param(f"postgresql://me:{planted('me')}@a,b/shop", id="two hosts"),
        pytest.param(f"postgresql://me:{planted('me')}@%2Fvar%2Frun/shop", id="a socket"),
        pytest.param(f"postgresql://me:{planted('me')}@a:70000/shop", id="a port"),
        pytest.param("postgresql://a/shop", id="no user"),
        pytest.param(f"postgresql://me:{planted('me')}@a", id="no database"),
        pytest.param(f"host=a password={planted('me')}", id="no URL"),
    ],
)
def test_a_url_that_leads_elsewhere_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011
        read_database_url(url)
    assert MARK not in str(raised.value)
