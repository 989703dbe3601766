"""Whole builds against a real Milvus Lite: first, again, changed, killed anywhere."""

import pytest

from flotilla_runtime.contract import BuildReason, DocumentCounts, MilvusConnection
from flotilla_runtime.indexing.errors import BuildError
from flotilla_runtime.indexing.store import Store
from indexing_support.builds import INDEX_UID, Deaths, Index, Killed
from indexing_support.embedder import REFUSED_WORD, EmbedderState
from indexing_support.milvus import MilvusServer

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("milvus")]

LONG = "\n\n".join(f"Paragraph {number} speaks of harbours, tides and ships." for number in range(40))


def small_library(index: Index) -> None:
    index.write("tides.md", "# Tides\n\nThe moon moves the sea twice a day.\n")
    index.write(
        "ships/sails.html", "<html><title>Sails</title><body><h1>Sails</h1><p>Wind fills them.</p></body>"
    )
    index.write("log.txt", LONG)


@pytest.mark.holds(
    "decisions/0005-indexed-jobs.md", "The operator sequences the steps and swaps the alias last"
)
async def test_a_first_build_indexes_every_document_and_swaps_the_alias(index: Index) -> None:
    small_library(index)
    report = await index.build("b1")
    assert report.documents == DocumentCounts(discovered=3, indexed=3)
    assert report.count_parity is True
    assert report.chunks == len(index.rows())
    assert index.live() == index.collection


@pytest.mark.holds(
    "decisions/0007-index-builds.md", "Another build of the same generation embeds only what changed"
)
async def test_building_again_embeds_nothing(index: Index, embedder: EmbedderState) -> None:
    small_library(index)
    await index.build("b1")
    before = index.rows()
    embedder.texts.clear()
    report = await index.build("b2")
    assert report.documents == DocumentCounts(discovered=3, indexed=3)
    assert index.rows() == before
    assert embedder.texts == ["flotilla"]


@pytest.mark.holds(
    "decisions/0007-index-builds.md", "Another build of the same generation embeds only what changed"
)
async def test_a_shortened_document_loses_its_tail_and_a_deleted_one_everything(index: Index) -> None:
    small_library(index)
    await index.build("b1")
    index.write("log.txt", "Nothing happened.")
    (index.documents / "tides.md").unlink()
    report = await index.build("b2")
    assert report.documents == DocumentCounts(discovered=2, indexed=2, removed=1)
    assert sorted(index.rows().values()) == [
        "log.txt: Nothing happened.",
        "ships/sails.html: Wind fills them.",
    ]


@pytest.mark.holds(
    "decisions/0007-index-builds.md",
    "Documents that cannot be read are counted and named, and too many keep the live index",
)
async def test_dead_letters_are_counted_and_explained_and_the_rest_is_indexed(index: Index) -> None:
    small_library(index)
    index.settings["max_failed_percent"] = 90.0
    index.write("empty.html", "")
    index.write("broken.pdf", b"%PDF-1.7 this is not a PDF")
    index.write("latin1.txt", "caf\xe9".encode("latin-1"))
    index.write("refused.txt", REFUSED_WORD)
    with (index.documents / "huge.txt").open("wb") as huge:
        huge.truncate(100 * 1024 * 1024)
    report = await index.build("b1")
    assert report.documents == DocumentCounts(discovered=8, indexed=3, dead_lettered=5)
    assert {letter.document: letter.reason for letter in report.dead_letters} == {
        "broken.pdf": "Broken",
        "empty.html": "Empty",
        "huge.txt": "TooLarge",
        "latin1.txt": "WrongEncoding",
        "refused.txt": "EmbedderRefused",
    }


@pytest.mark.holds(
    "decisions/0007-index-builds.md",
    "Documents that cannot be read are counted and named, and too many keep the live index",
)
async def test_too_many_dead_letters_keep_the_live_index_as_it_was(index: Index) -> None:
    small_library(index)
    await index.build("b1")
    before = index.rows()
    index.write("tides.md", "")
    with pytest.raises(BuildError) as refused:
        await index.build("b2")
    assert refused.value.reason is BuildReason.TOO_MANY_DEAD_LETTERS
    assert "tides.md: Empty" in refused.value.message
    assert index.rows() == before


@pytest.mark.holds("README.md", "An index is served one immutable generation at a time")
async def test_a_new_generation_is_built_aside_and_the_oldest_is_dropped(index: Index) -> None:
    small_library(index)
    for generation in ("g-one", "g-two", "g-three"):
        index.generation = generation
        index.now += 60
        await index.plan(generation)
        assert index.live() != index.collection
        await index.build(generation)
    assert index.live() == index.prefix + "g_three"
    assert index.collections() == [index.prefix + "g_three", index.prefix + "g_two"]


@pytest.mark.holds(
    "decisions/0007-index-builds.md", "A build that is killed anywhere and run again gives the same index"
)
async def test_a_build_that_is_killed_at_every_point_and_run_again_gives_the_same_index(
    index: Index,
) -> None:
    small_library(index)
    await index.build("b0")
    index.write("log.txt", LONG + "\n\nThe last line.")
    (index.documents / "tides.md").unlink()
    index.write("new.md", "# Fog\n\nFog hides the lighthouse.")
    index.generation = "g-two"
    await index.build("expected")
    expected = index.rows()
    index.generation = "g-killed"
    points = await index.build_dying("killed")
    assert index.live() == index.collection
    assert index.rows() == expected
    assert set(points) == EVERY_POINT_OF_A_NEW_GENERATION


EVERY_POINT_OF_A_NEW_GENERATION = {
    *("before_clear", "after_clear", "before_create_collection", "after_create_collection"),
    *("before_write_plan", "after_write_plan"),
    *("before_upsert", "after_upsert"),
    *("before_verify_shard", "before_finish_shard", "after_finish_shard"),
    *("before_swap", "after_swap", "after_drop"),
}


@pytest.mark.holds(
    "decisions/0007-index-builds.md", "A build that is killed anywhere and run again gives the same index"
)
async def test_an_update_in_place_that_is_killed_at_every_point_ends_the_same(index: Index) -> None:
    index.write("log.txt", LONG)
    index.write("old.txt", "Old news.")
    await index.build("before")
    index.write("log.txt", "Short now.")
    (index.documents / "old.txt").unlink()
    points = await index.build_dying("update")
    assert list(index.rows().values()) == ["log.txt: Short now."]
    assert {"after_upsert", "after_delete_tail", "before_remove_gone", "after_remove_gone"} <= set(points)


@pytest.mark.holds("decisions/0007-index-builds.md", "A run that returns under its old name starts over")
async def test_a_build_that_returns_under_its_old_name_reads_the_documents_anew(index: Index) -> None:
    small_library(index)
    await index.build("a")
    index.write("tides.md", "# Tides\n\nThe sun moves the sea as well.\n")
    (index.documents / "log.txt").unlink()
    index.job = "job-2"
    report = await index.build("a")
    assert report.documents == DocumentCounts(discovered=2, indexed=2, removed=1)
    assert "tides.md: The sun moves the sea as well." in index.rows().values()


@pytest.mark.holds("decisions/0007-index-builds.md", "A run that returns under its old name starts over")
async def test_another_pod_of_the_plans_job_keeps_the_plan_and_what_is_done(index: Index) -> None:
    small_library(index)
    await index.plan("a")
    await index.shard("a", 0)
    index.write("late.txt", "This came too late.")
    await index.plan("a")
    await index.shard("a", 1)
    report = await index.promote("a")
    assert report.documents == DocumentCounts(discovered=3, indexed=3)


async def test_a_plan_that_is_killed_while_it_clears_leaves_nothing_of_the_old_one(index: Index) -> None:
    small_library(index)
    index.job = "old"
    await index.build("a")
    index.write("new.txt", "Only the new plan has this.")
    index.job = "new"
    deaths, ended = Deaths(), False
    while not ended:
        try:
            await index.plan("a", deaths.life(index.count()))
            ended = True
        except Killed:
            pass
    with pytest.raises(BuildError, match="2 of 2 shards are not complete"):
        await index.promote("a")
    assert len(deaths.points) == 6


async def test_the_index_survives_a_kill_of_milvus(index: Index, milvus: MilvusServer) -> None:
    small_library(index)
    await index.build("b1")
    before = index.rows()
    milvus.kill()
    milvus.start()
    assert index.rows() == before
    store = Store(MilvusConnection(uri=milvus.uri))
    about = store.describe(index.live() or "")
    assert about is not None
    assert about.build == "b1"
    assert (about.promoted_at, about.index_uid) == (index.now, INDEX_UID)


async def test_a_slow_start_of_the_embedder_is_waited_for(index: Index, embedder: EmbedderState) -> None:
    small_library(index)
    embedder.failures += [503, 429]
    report = await index.build("b1")
    assert report.documents.indexed == 3


@pytest.mark.parametrize(
    ("spoil", "reason", "part"),
    [
        pytest.param("path", BuildReason.PATH_MISSING, "no folder at pvc://docs", id="the path is not there"),
        pytest.param("empty", BuildReason.SOURCE_EMPTY, "no file below pvc://docs", id="the path is empty"),
        pytest.param(
            "dimension", BuildReason.DIMENSION_MISMATCH, "set it to 64", id="the dimension is another"
        ),
        pytest.param("tokens", BuildReason.CHUNKS_TOO_LONG, "set it to 16 or less", id="chunks are too long"),
    ],
)
async def test_a_plan_that_cannot_be_says_what_to_do(
    index: Index, embedder: EmbedderState, spoil: str, reason: BuildReason, part: str
) -> None:
    if spoil != "empty":
        small_library(index)
    if spoil == "path":
        index.documents.rename(index.folder / "elsewhere")
    if spoil == "dimension":
        index.dimension = 384
    if spoil == "tokens":
        embedder.longest_tokens = 50
    with pytest.raises(BuildError) as refused:
        await index.plan("b1")
    assert refused.value.reason is reason
    assert refused.value.permanent
    assert part in refused.value.message


@pytest.mark.holds(
    "decisions/0005-indexed-jobs.md", "The operator sequences the steps and swaps the alias last"
)
async def test_a_promotion_without_all_markers_is_refused(index: Index) -> None:
    small_library(index)
    await index.plan("b1")
    await index.shard("b1", 0)
    with pytest.raises(BuildError, match="1 of 2 shards are not complete"):
        await index.promote("b1")
    assert index.live() is None
