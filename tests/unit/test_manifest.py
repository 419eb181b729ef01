"""The manifest's life on the level of functions: missing, created, matching, different, stale."""

from __future__ import annotations

import errno
import io
import os
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from pytest_paramcheck import ParamCheckError, ParamCheckUsageError, assert_manifest
from pytest_paramcheck.manifest.paths import manifest_request, stale_files
from pytest_paramcheck.plugin.manifests import ManifestRun

from .messages import failure, usage

UPDATE = "\n\n  hint: if intended: assert_manifest(..., update=True) rewrites lm.txt; commit it"
LOAD = "checkpoints saved before this change will not load"
POSITION = "optimizer checkpoints map parameters by position"


class LM(nn.Module):
    def __init__(self, vocab: int = 11, head: str = "head", tied: bool = True) -> None:
        super().__init__()
        self.emb = nn.Embedding(vocab, 6)
        self.blocks = nn.ModuleList(nn.Linear(6, 6, bias=False) for _ in range(3))
        self.norm = nn.LayerNorm(6)
        self.add_module(head, nn.Linear(6, vocab, bias=False))
        if tied:
            getattr(self, head).weight = self.emb.weight
        self.register_buffer("mask", torch.ones(6, 6, dtype=torch.bool), persistent=False)


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("lm.txt")
    assert_manifest(LM(), path=path, update=True)
    return path


def _failure(path: Path, model: nn.Module) -> str:
    before = path.read_bytes()
    said = failure(assert_manifest, model, path=path)
    assert path.read_bytes() == before
    return said


def test_missing_then_created_then_matching(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("params", "lm.txt")
    assert failure(assert_manifest, LM(), path=path) == (
        "no manifest: params/lm.txt (LM)\n"
        "\n"
        "  params/lm.txt  the file does not exist yet\n"
        "\n"
        "  hint: create it: assert_manifest(..., update=True), then review and commit it"
    )
    assert not path.exists()

    assert_manifest(LM(), path=path, update=True)
    assert path.read_text() == (
        "# pytest-paramcheck manifest, format 1\n"
        "# Registration order: optimizer checkpoints map by position. Written by --param-update.\n"
        "mask 6x6 bool buffer not-persistent\n"
        "emb.weight 11x6 float32 trainable\n"
        "blocks.0.weight 6x6 float32 trainable\n"
        "blocks.1.weight 6x6 float32 trainable\n"
        "blocks.2.weight 6x6 float32 trainable\n"
        "norm.weight 6 float32 trainable\n"
        "norm.bias 6 float32 trainable\n"
        "head.weight 11x6 float32 trainable tied-to emb.weight\n"
    )
    assert_manifest(LM(), path=path)


def test_values_device_and_mode_are_no_difference(file) -> None:
    with torch.device("meta"):
        model = LM().eval()
    assert_manifest(model, path=file)


def test_a_matching_file_is_not_written_again(file) -> None:
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    before = file.stat().st_mtime_ns, file.read_bytes()
    assert_manifest(LM(), path=file, update=True)
    assert (file.stat().st_mtime_ns, file.read_bytes()) == before


def test_reshaped_names_all_names_of_the_parameter_once(file) -> None:
    assert _failure(file, LM(vocab=12)) == (
        "reshaped: emb.weight, head.weight (LM)\n"
        "\n"
        f"  emb.weight, head.weight  expected 11x6, found 12x6: {LOAD}{UPDATE}"
    )


def test_renamed(file) -> None:
    assert _failure(file, LM(head="out")) == (
        f"probably renamed: head.weight (LM)\n\n  head.weight  'head' became 'out': {LOAD}{UPDATE}"
    )


def test_renamed_everywhere_folds(file) -> None:
    assert _failure(file, nn.ModuleDict({"lm": LM()})) == (
        "probably renamed: mask, emb.weight, blocks.{0..2}.weight, norm.weight "
        "and 2 more (ModuleDict)\n"
        "\n"
        "  mask                  prefix 'lm.' added\n"
        f"  emb.weight            prefix 'lm.' added: {LOAD}\n"
        f"  blocks.{{0..2}}.weight  prefix 'lm.' added: {LOAD}\n"
        f"  norm.weight           prefix 'lm.' added: {LOAD}\n"
        f"  norm.bias             prefix 'lm.' added: {LOAD}\n"
        f"  head.weight           prefix 'lm.' added: {LOAD}{UPDATE}"
    )


def test_gone_and_added(file) -> None:
    model = LM()
    del model.norm
    model.emb.register_parameter("scale", nn.Parameter(torch.ones(())))
    model.scale = nn.Linear(2, 1)
    assert _failure(file, model) == (
        "removed from the model: norm.weight, norm.bias; "
        "not in the manifest: emb.scale, scale.weight, scale.bias (LM)\n"
        "\n"
        "  removed from the model:\n"
        f"    norm.weight  expected 6 float32 trainable: {LOAD}\n"
        f"    norm.bias    expected 6 float32 trainable: {LOAD}\n"
        "  not in the manifest:\n"
        f"    emb.scale     scalar float32 trainable: not at the end, and {POSITION}\n"
        "    scale.weight  1x2 float32 trainable\n"
        f"    scale.bias    1 float32 trainable{UPDATE}"
    )


def test_retied(file) -> None:
    assert _failure(file, LM(tied=False)) == (
        "tie changed: head.weight (LM)\n"
        "\n"
        f"  head.weight  expected tied to emb.weight, found not tied{UPDATE}"
    )
    model = LM()
    model.blocks[2] = model.blocks[0]
    assert _failure(file, model) == (
        "tie changed: blocks.2.weight (LM)\n"
        "\n"
        f"  blocks.2.weight  expected not tied, found tied to blocks.0.weight{UPDATE}"
    )


def test_dtype_and_role(file) -> None:
    model = LM()
    model.blocks.bfloat16()
    model.emb.requires_grad_(False)
    model.register_buffer("mask", model.mask)
    assert _failure(file, model) == (
        "dtype changed: blocks.{0..2}.weight; "
        "role changed: mask, emb.weight, head.weight (LM)\n"
        "\n"
        "  dtype changed:\n"
        "    blocks.{0..2}.weight  expected float32, found bfloat16\n"
        "  role changed:\n"
        "    mask                     expected buffer not-persistent, found buffer: "
        "a strict load of checkpoints saved before fails\n"
        f"    emb.weight, head.weight  expected trainable, found frozen{UPDATE}"
    )


def test_moved_names_the_fewest_that_explain_the_order(file) -> None:
    model = LM()
    blocks = model.blocks
    del model.blocks
    model.blocks = blocks
    assert _failure(file, model) == (
        "order changed: blocks.{0..2}.weight (LM)\n"
        "\n"
        f"  blocks.0.weight  after head.weight: {POSITION}\n"
        f"  blocks.1.weight  after blocks.0.weight: {POSITION}\n"
        f"  blocks.2.weight  after blocks.1.weight: {POSITION}{UPDATE}"
    )


def test_another_first_name_of_one_tie_group_is_a_move_only(tmp_path) -> None:
    def build(*order: str) -> nn.Module:
        shared, model = nn.Parameter(torch.ones(2)), nn.Module()
        for name in order:
            model.register_parameter(name, shared)
        return model

    path = tmp_path / "m.txt"
    assert_manifest(build("a", "b", "c"), path=path, update=True)
    with pytest.raises(ParamCheckError) as error:
        assert_manifest(build("b", "c", "a"), path=path)
    assert [(f.problem, f.names) for f in error.value.findings] == [("order changed", ("a",))]


def test_lazy_parameters(tmp_path) -> None:
    path = tmp_path / "m.txt"
    assert_manifest(nn.LazyLinear(2), path=path, update=True)
    assert path.read_text().split("\n")[2:-1] == [
        "weight uninitialized float32 trainable",
        "bias uninitialized float32 trainable",
    ]
    assert_manifest(nn.LazyLinear(2), path=path)
    materialized = nn.LazyLinear(2)
    materialized(torch.ones(1, 3))
    with pytest.raises(ParamCheckError) as error:
        assert_manifest(materialized, path=path)
    assert [(f.names, f.text()) for f in error.value.findings] == [
        (
            ("weight",),
            (
                "expected uninitialized, found 2x3: "
                "a lazy parameter gets its shape in the first forward"
            ),
        ),
        (
            ("bias",),
            "expected uninitialized, found 2: a lazy parameter gets its shape in the first forward",
        ),
    ]


def test_update_mends_a_damaged_line_and_never_writes_over_what_is_not_ours(file) -> None:
    good = file.read_bytes()
    file.write_bytes(good + b">>>>>>> theirs\n")
    with pytest.raises(ParamCheckUsageError, match=r"^lm\.txt, line 11: >>>>>>> theirs\n"):
        assert_manifest(LM(), path=file)
    assert file.read_bytes() == good + b">>>>>>> theirs\n"
    assert_manifest(LM(), path=file, update=True)
    assert file.read_bytes() == good

    for foreign in (good.replace(b"format 1", b"format 2"), b"import torch\n", b""):
        file.write_bytes(foreign)
        for update in (False, True):
            with pytest.raises(ParamCheckUsageError, match=r"^lm\.txt, line 1: "):
                assert_manifest(LM(), path=file, update=update)
            assert file.read_bytes() == foreign


def test_an_older_format_is_compared_and_written_anew_by_an_update(file) -> None:
    newest = file.read_bytes()
    older = newest.replace(b"format 1", b"format 0")
    file.write_bytes(older)
    assert_manifest(LM(), path=file)
    assert _failure(file, LM(tied=False)).startswith("tie changed: head.weight (LM)\n")
    assert file.read_bytes() == older
    assert_manifest(LM(), path=file, update=True)
    assert file.read_bytes() == newest


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reasons are Linux's")
def test_what_cannot_be_written_says_so_and_loses_nothing(file, monkeypatch) -> None:
    before = file.read_bytes()
    for path, said in (
        ("/proc/no/m.txt", "/proc/no/m.txt cannot be written: No such file or directory"),
        ("x" * 300, "x" * 300 + " cannot be read: File name too long"),
    ):
        assert usage(assert_manifest, LM(), path=path, update=True) == said
    # Python 3.13 names the call as well: "stat: embedded null character in path".
    found = usage(assert_manifest, LM(), path="a\0b", update=True)
    assert re.search(r"cannot be read: (\w+: )?embedded null", found)

    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fdopen(handle: int, mode: str) -> Full:
        os.close(handle)
        return Full()

    monkeypatch.setattr(os, "fdopen", fdopen)
    assert usage(assert_manifest, LM(vocab=12), path=file, update=True) == (
        "lm.txt cannot be written: No space left on device"
    )
    assert file.read_bytes() == before
    assert [path.name for path in Path().iterdir()] == ["lm.txt"]


def test_wrong_calls(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    for call, text in (
        (
            lambda: assert_manifest(LM()),
            (
                "assert_manifest needs path= here; in a test, request the fixture assert_manifest: "
                "it finds the file beside the test"
            ),
        ),
        (
            lambda: assert_manifest(LM(), "a/b", path="m.txt", update=True),
            (
                "a manifest's name becomes part of a file name: 'a/b' must be at most 56 letters, "
                "digits, '_' and '-'"
            ),
        ),
        (
            lambda: assert_manifest(nn.ReLU(), path="m.txt", update=True),
            "ReLU has no parameters and no buffers: there is nothing to check",
        ),
        (lambda: assert_manifest(LM(), path="folder"), "folder cannot be read: Is a directory"),
    ):
        assert usage(call) == text
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_70b_model_on_meta(tmp_path) -> None:
    with torch.device("meta"):
        model = nn.Sequential(*[nn.Linear(8192, 28672 * 3, bias=False) for _ in range(100)])
    assert sum(p.numel() for p in model.parameters()) > 70e9
    path = tmp_path / "m.txt"
    assert_manifest(model, path=path, update=True)
    assert_manifest(model, path=path)
    assert path.read_text().count("\n") == 102


# where the files lie


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ((None, "test_a", None, None), "test_a.txt"),
        (("TestLM", "test_a", None, None), "TestLM.test_a.txt"),
        (("TestLM", "test_a", "big-2", "enc"), "TestLM.test_a-big-2.enc.txt"),
        ((None, "test_a", "0.5", None), "test_a-0.5.txt"),
        ((None, "test_a", "a/b", None), "test_a-a_b-82badf67.txt"),
        ((None, "test_a", "a\\b", None), "test_a-a_b-abfba85d.txt"),
        ((None, "test_größe", None, None), "test_gr_e-ab11a535.txt"),
        (("Con", "test_a", None, None), "116ac6f4.Con.test_a.txt"),
        ((None, "test_a", "x" * 300, None), "test_a-" + "x" * 47 + "-b12499e1.txt"),
    ],
)
def test_path(parts, name: str) -> None:
    *test, call = parts
    path = manifest_request(Path("tests/test_lm.py"), *test).path(call)
    assert path.as_posix() == f"tests/__params__/test_lm/{name}"
    assert len(path.name) < 255


def test_distinct_ids_have_distinct_files() -> None:
    ids = ["a b", "a_b", "a/b", "a:b", "a b ", ".a", "a.", "", "x" * 57, "x" * 58, "ä", "ö"]
    paths = {manifest_request(Path("test_a.py"), None, "test", callspec).path() for callspec in ids}
    assert len(paths) == len(ids)


# the run


def _run(folder: Path) -> ManifestRun:
    return ManifestRun(folder, update=False, selected=False)


def _bound(run: ManifestRun, folder: Path, function: str, **options):
    request = manifest_request(folder / "test_lm.py", None, function, **options)
    return run.bind_request(request)


def test_fixture_reads_and_writes_the_file_of_the_test(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = _run(tmp_path)
    assert failure(_bound(run, tmp_path, "test_a"), LM()) == (
        "no manifest: __params__/test_lm/test_a.txt (LM)\n"
        "\n"
        "  __params__/test_lm/test_a.txt  the file does not exist yet\n"
        "\n"
        "  hint: create it: pytest --param-update, then review and commit it"
    )
    file = tmp_path / "__params__" / "test_lm" / "test_a.txt"
    assert run.visited == [str(file)]
    assert run.written == []

    run = _run(tmp_path)
    _bound(run, tmp_path, "test_a", update=True)(LM())
    assert run.visited == run.written == [str(file)]
    _bound(run, tmp_path, "test_a")(LM())

    again = _run(tmp_path)
    _bound(again, tmp_path, "test_a", update=True)(LM())
    assert again.written == []


def test_several_manifests_in_one_test_need_names(tmp_path) -> None:
    run = _run(tmp_path)
    check = _bound(run, tmp_path, "test_a", update=True)
    check(LM())
    check(nn.Linear(3, 2), "linear")
    assert usage(check, LM()) == (
        "a second manifest without name in one test: give each its own, "
        "assert_manifest(model, 'encoder')"
    )
    assert usage(check, LM(), "linear") == (
        "a second manifest named 'linear' in one test: give each its own, "
        "assert_manifest(model, 'encoder')"
    )
    assert [Path(path).name for path in run.written] == ["test_a.txt", "test_a.linear.txt"]
    # The same test runs again (on another device, or by a rerun plugin): the same files.
    _bound(run, tmp_path, "test_a")(LM())


def test_two_tests_that_mean_one_file_are_refused(tmp_path) -> None:
    run = _run(tmp_path)
    _bound(run, tmp_path, "test_a", update=True)(LM())
    assert usage(_bound(run, tmp_path, "test_A", update=True), LM()) == (
        "test_A.txt: another test's manifest has this file name, on file systems that ignore "
        "case at least: rename one of the tests, or give a name"
    )


def test_path_and_update_can_be_given_to_the_fixture(tmp_path) -> None:
    run = _run(tmp_path)
    check = _bound(run, tmp_path, "test_a")
    check(LM(), path=tmp_path / "own.txt", update=True)
    check(LM(), path=tmp_path / "own.txt")
    assert run.written == [str(tmp_path / "own.txt")]


def test_stale_files(tmp_path) -> None:
    for name in ("test_lm.py", "test_other.py"):
        (tmp_path / name).touch()
    run = _run(tmp_path)
    for file, function in (
        ("test_lm.py", "test_kept"),
        ("test_lm.py", "test_gone"),
        ("test_other.py", "test_gone"),
        ("test_deleted.py", "test_gone"),
    ):
        run.bind_request(manifest_request(tmp_path / file, None, function, update=True))(LM())
    folder = tmp_path / "__params__"
    (folder / "test_lm" / "notes.txt").write_text("not ours")
    worker = _run(tmp_path)
    worker.bind_request(manifest_request(tmp_path / "test_lm.py", None, "test_kept"))(LM())
    controller = _run(tmp_path)
    controller.merge(worker.output())
    assert stale_files([tmp_path / "test_lm.py"], controller.visited) == [
        folder / "test_deleted" / "test_gone.txt",
        folder / "test_lm" / "test_gone.txt",
    ]
    assert stale_files([tmp_path / "test_lm.py"], run.visited) == []
    assert stale_files([tmp_path / "elsewhere" / "test_x.py"], []) == []


def test_slices_of_parameters_are_no_model_to_write_down(two_ranks: object, tmp_path: Path) -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = FullyShardedDataParallel(
        nn.Sequential(nn.Linear(2, 2)), use_orig_params=True, device_id=torch.device("cpu")
    )

    with pytest.raises(ParamCheckUsageError) as caught:
        assert_manifest(model, path=tmp_path / "net.txt", update=True)
    assert str(caught.value).startswith("FullyShardedDataParallel keeps a slice of each parameter ")
    assert not [*tmp_path.iterdir()]


def test_what_is_none_hides_nothing_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "m.txt"
    with_none = {"none": None, "w": torch.ones(2), "last": torch.ones(3)}
    assert_manifest(with_none, path=path, update=True)

    rows = path.read_text(encoding="utf-8").splitlines()[2:]
    assert [row.split()[0] for row in rows] == ["w", "last"]
