"""Image and label files: what is read, and the message for each way in which a file can be wrong."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from minifcn.data.files import FileError, label_mode, read_image
from minifcn.data.labels import LabelFormat, plain_codes, read_label, read_pair

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)
RGB = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)


def save(path, array, mode=None):
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path)
    return path


def test_images_of_many_modes_become_rgb(tmp_path):
    assert np.array_equal(read_image(save(tmp_path / "rgb.png", RGB)), RGB)
    assert np.array_equal(read_image(save(tmp_path / "grey.png", GREY)), np.stack([GREY] * 3, -1))
    rgba = np.dstack([RGB, np.zeros((3, 4), np.uint8)])  # fully transparent: dropped, not composited
    assert np.array_equal(read_image(save(tmp_path / "rgba.png", rgba)), RGB)
    assert np.array_equal(read_image(save(tmp_path / "one.png", GREY > 5)), np.stack([(GREY > 5) * 255] * 3, -1))
    palette = Image.fromarray(GREY % 2).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "p.png")
    expected = np.where((GREY % 2)[..., None], [40, 50, 60], [10, 20, 30])
    assert np.array_equal(read_image(tmp_path / "p.png"), expected)


def test_exif_orientation_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    Image.fromarray(RGB).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "turned.png"), RGB)


@settings(max_examples=30, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 255)), st.data())
def test_label_values_follow_the_rule(tmp_path_factory, values, data):
    classes = data.draw(st.integers(2, 255))
    void = data.draw(st.sampled_from([255, classes, 0]))
    path = save(tmp_path_factory.mktemp("label") / "label.png", values)
    bad = [
        (r, c)
        for r in range(values.shape[0])
        for c in range(values.shape[1])
        if values[r, c] >= classes and values[r, c] not in (void, 255)
    ]
    if bad:
        with pytest.raises(FileError) as caught:
            read_label(path, classes, void)
        assert caught.value.pixel == bad[0]
        message = str(caught.value)
        first, last = int(void == 0), classes - 1
        for part in (
            f"value {values[bad[0]]} at row {bad[0][0]}, column {bad[0][1]}",
            f"{first} .. {last} ({classes} classes)" if first < last else "allowed are 1 (2 classes)",
            str(path),
        ):
            assert part in message
    else:
        label = read_label(path, classes, void)
        for raw, read in zip(values.ravel().tolist(), label.ravel().tolist(), strict=True):
            assert read == (255 if raw == void else raw)


def test_palette_one_bit_and_deep_labels(tmp_path):
    palette = Image.fromarray(GREY % 3)
    palette.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    palette.save(tmp_path / "p.png")
    assert np.array_equal(read_label(tmp_path / "p.png", 3), GREY % 3)
    assert np.array_equal(read_label(save(tmp_path / "one.png", GREY > 5), 2), GREY > 5)
    deep = GREY.astype(np.uint16)
    assert np.array_equal(read_label(save(tmp_path / "deep.png", deep), 12), GREY)
    assert [label_mode(tmp_path / f"{n}.png") for n in ("p", "one", "deep")] == ["palette", "1 bit", "deep grey"]
    deep[1, 2] = 300
    path = save(tmp_path / "deep.png", deep)
    with pytest.raises(FileError, match=r"value 300 at row 1, column 2; allowed are 0 .. 11"):
        read_label(path, 12)


def truncated(path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    save(path, noise)
    path.write_bytes(path.read_bytes()[:3000])


def test_unreadable_files_are_named_with_the_rule(tmp_path):
    truncated(tmp_path / "cut.png")
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    save(tmp_path / "deep.png", GREY.astype(np.uint16))
    save(tmp_path / "float.tif", GREY.astype(np.float32))
    for name, rule in [
        ("cut.png", "cannot be decoded"),
        ("text.png", "not an image file"),
        ("empty.png", "not an image file"),
        ("absent.png", "no such file"),
        ("folder.png", "cannot be decoded"),
        ("deep.png", "more than 8 bits.*convert it to 8 bits"),
        ("float.tif", "more than 8 bits"),
    ]:
        with pytest.raises(FileError, match=rule) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(FileError, match="cannot be decoded"):
        read_label(tmp_path / "cut.png", 5)


@pytest.mark.parametrize("limit", [11, 5])  # Pillow warns above the limit and raises above twice the limit
def test_decompression_bombs_are_refused_with_count_and_limit(tmp_path, monkeypatch, limit):
    path = save(tmp_path / "bomb.png", GREY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    for action in ("ignore", "error"):
        with warnings.catch_warnings():
            warnings.simplefilter(action)
            with pytest.raises(FileError, match=f"bomb.png: 12 pixels; at most {limit} "):
                read_image(path)


def test_colour_labels_are_refused_with_their_colours(tmp_path):
    colours = np.zeros((3, 4, 3), np.uint8)
    colours[0, 0], colours[2, 3] = (255, 0, 0), (0, 0, 9)
    with pytest.raises(FileError, match=r"an RGB label with 3 distinct colours; .* one channel"):
        read_label(save(tmp_path / "rgb.png", colours), 2)
    with pytest.raises(FileError, match="an RGBA label with 3 distinct colours"):
        read_label(save(tmp_path / "rgba.png", colours, "RGBA"), 2)
    with pytest.raises(FileError, match="mode LA; labels must be"):
        read_label(save(tmp_path / "la.png", GREY, "LA"), 2)


def test_sizes_must_agree(tmp_path):
    image, label = save(tmp_path / "image.png", RGB), save(tmp_path / "label.png", GREY.T.copy())
    with pytest.raises(FileError, match=r"label.png: the label is 4x3 \(HxW\) but its image .*image.png is 3x4"):
        read_pair(image, label, LabelFormat(plain_codes(12)))
