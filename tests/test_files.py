"""Files are written whole or not at all, whatever fails on the way."""

import errno
import json
import os
import stat
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifcn.errors import FileWriteError, MinifcnError
from minifcn.files import write_atomically, write_json, write_text

OLD = b"the old content"


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "result.bin"
    path.write_bytes(OLD)
    return path


def assert_untouched(target):
    assert target.read_bytes() == OLD
    assert [p.name for p in target.parent.iterdir()] == [target.name]


def full_disk(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@given(content=st.binary(max_size=300))
def test_bytes_and_writer_give_the_same_file(content, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    write_atomically(folder / "a", content)
    write_atomically(str(folder / "b"), lambda file: file.writelines([content[:7], content[7:]]))
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes() == content
    assert sorted(os.listdir(folder)) == ["a", "b"]


def test_replaces_the_old_file(target):
    write_atomically(target, b"new")
    assert target.read_bytes() == b"new"
    assert os.listdir(target.parent) == [target.name]


def test_old_content_stays_visible_until_the_end(target):
    def writer(file):
        file.write(b"n" * 100_000)
        file.flush()
        assert target.read_bytes() == OLD

    write_atomically(target, writer)
    assert target.read_bytes() == b"n" * 100_000


@pytest.mark.parametrize("failure", [RuntimeError("boom"), KeyboardInterrupt()])
def test_a_writer_that_fails_midway_leaves_the_old_file(target, failure):
    def writer(file):
        file.write(b"half of the new")
        file.flush()
        raise failure

    with pytest.raises(type(failure)) as caught:
        write_atomically(target, writer)
    assert caught.value is failure
    assert_untouched(target)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(target, monkeypatch, call):
    monkeypatch.setattr(os, call, full_disk)
    with pytest.raises(FileWriteError, match=r"cannot write .*result\.bin: No space left on device") as caught:
        write_atomically(target, b"new")
    monkeypatch.undo()
    assert isinstance(caught.value, MinifcnError)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert_untouched(target)


def test_a_disk_that_fills_up_inside_the_writer(target):
    def writer(file):
        file.write(b"half")
        full_disk()

    with pytest.raises(FileWriteError, match=r"result\.bin: No space left"):
        write_atomically(target, writer)
    assert_untouched(target)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_real_enospc_from_the_kernel(target, monkeypatch):
    """The temporary name leads to a device on which each write fails, as on a full disk."""
    import builtins

    real = builtins.open

    def opened(path, mode="r", *args, **kwargs):
        return real("/dev/full", "wb") if mode == "xb" else real(path, mode, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", opened)
    with pytest.raises(FileWriteError, match="No space left"):
        write_atomically(target, b"new" * 100_000)
    monkeypatch.undo()
    assert_untouched(target)


def test_file_is_synced_before_it_is_renamed_and_the_folder_after(target, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(descriptor):
        calls.append("sync folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        fsync(descriptor)

    def spy_replace(source, destination):
        assert os.path.dirname(source) == os.path.dirname(destination)
        calls.append("rename")
        replace(source, destination)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    write_atomically(target, b"new")
    assert calls == ["sync file", "rename", "sync folder"]


def test_a_folder_that_cannot_be_synced_is_no_error(target, monkeypatch):
    fsync = os.fsync

    def no_folder_sync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", no_folder_sync)
    write_atomically(target, b"new")
    assert target.read_bytes() == b"new"


def test_missing_folder(tmp_path):
    with pytest.raises(FileWriteError, match=r"absent/x\.txt: No such file or directory"):
        write_text(tmp_path / "absent" / "x.txt", "x")
    assert os.listdir(tmp_path) == []


def test_a_target_that_is_no_regular_file_is_refused(tmp_path):
    with pytest.raises(FileWriteError, match="not a regular file"):
        write_text(tmp_path, "x")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(FileWriteError, match="not a regular file"):
        write_text(pipe, "x")
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_symbolic_link_stays_a_link(target):
    link = target.with_name("link")
    link.symlink_to(target)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_permissions_are_those_of_an_ordinary_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_atomically(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_longest_file_name_is_possible(tmp_path):
    write_text(tmp_path / ("n" * 255), "x")
    assert (tmp_path / ("n" * 255)).read_text() == "x"


def test_text_is_utf8_as_it_is(tmp_path):
    write_text(tmp_path / "t", "grün\r\n∂\n")
    assert (tmp_path / "t").read_bytes() == b"gr\xc3\xbcn\r\n\xe2\x88\x82\n"


def test_json(tmp_path):
    value = {"mean_iu": 0.25, "classes": ["Kätzchen"], "best": None}
    write_json(tmp_path / "j", value)
    text = (tmp_path / "j").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert "Kätzchen" in text
    assert text.endswith("}\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), BytesIO()])
def test_json_refuses_what_it_cannot_hold(target, value):
    with pytest.raises(FileWriteError, match=r"result\.bin as JSON"):
        write_json(target, {"loss": value})
    assert_untouched(target)
