"""Pictures: exact where a pixel has a meaning (colours, indices, contours), sane where the eye decides."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from minifcn import viz
from minifcn.errors import FileWriteError, MinifcnError

PALETTE = np.array([[0, 0, 0], [200, 10, 10], [10, 200, 10], [20, 20, 250]], np.uint8)
CLASSES = ["background", "cat", "dog", "a class with a rather long name"]
VOID = (224, 224, 192)  # of the PASCAL VOC label pictures

shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=8)
labels = hnp.arrays(np.uint8, shapes, elements=st.sampled_from([0, 1, 2, 3, 255]))


def ink(picture, box=None):
    """Number of pixels that are not white."""
    pixels = np.asarray(picture.convert("RGB").crop(box))
    return int((pixels != 255).any(axis=-1).sum())


# --- labels in colour ------------------------------------------------------------------------------


@given(labels)
def test_colorize_is_a_table_look_up(label):
    coloured = viz.colorize(label, PALETTE)
    assert coloured.dtype == np.uint8
    assert coloured.shape == (*label.shape, 3)
    for at, value in np.ndenumerate(label):
        assert tuple(coloured[at]) == (VOID if value == 255 else tuple(PALETTE[value]))


@settings(max_examples=30)
@given(label=labels)
def test_palette_png_keeps_index_void_and_colour(label, tmp_path_factory):
    path = tmp_path_factory.mktemp("png") / "label.png"
    viz.save_palette_png(path, label, PALETTE)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.array(picture), label)
        rgb = np.array(picture.convert("RGB"))
    for at, value in np.ndenumerate(label):
        assert tuple(rgb[at]) == (VOID if value == 255 else tuple(PALETTE[value]))


def test_palette_png_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "label.png"
    path.write_bytes(b"old")

    def broken(self, file, **_):
        file.write(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises(FileWriteError, match=r"label\.png: No space left"):
        viz.save_palette_png(path, np.zeros((2, 2), np.uint8), PALETTE)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["label.png"]


def test_overlay_worked_by_hand():
    # Image 100 everywhere, alpha 1/4: 3/4 * 100 + 1/4 * colour. Class 1 (200, 10, 10): 125, 77.5, 77.5, and
    # 77.5 rounds to even, 78. Void (224, 224, 192): 131, 131, 123. Class 0: 75.
    # The middle column of 1 differs from the 0 on its right: white. Void draws no line.
    image = np.full((1, 5, 3), 100, np.uint8)
    tinted = viz.overlay(image, np.array([[255, 1, 1, 0, 0]], np.uint8), PALETTE, alpha=0.25)
    assert tinted.dtype == np.uint8
    expected = [[131, 131, 123], [125, 78, 78], [255, 255, 255], [75, 75, 75], [75, 75, 75]]
    np.testing.assert_array_equal(tinted[0], expected)
    assert (image == 100).all()


@given(label=labels, alpha=st.sampled_from([0.0, 1.0]), data=st.data())
def test_overlay_without_contours_is_image_or_colours(label, alpha, data):
    image = data.draw(hnp.arrays(np.uint8, (*label.shape, 3)))
    tinted = viz.overlay(image, label, PALETTE, alpha)
    expected = image if alpha == 0 else viz.colorize(label, PALETTE)
    height, width = label.shape
    for y, x in np.ndindex(height, width):
        near = [label[v, u] for v, u in ((y + 1, x), (y, x + 1)) if v < height and u < width]
        border = label[y, x] != 255 and any(n not in (label[y, x], 255) for n in near)
        np.testing.assert_array_equal(tinted[y, x], (255, 255, 255) if border else expected[y, x])


# --- legend and contact sheet ----------------------------------------------------------------------


def test_legend_shows_each_colour_and_keeps_its_width():
    picture = viz.legend(CLASSES, PALETTE, width=300)
    assert picture.mode == "RGB"
    assert picture.width == 300
    pixels = {tuple(c) for c in np.asarray(picture).reshape(-1, 3)}
    assert {tuple(c) for c in PALETTE} <= pixels


def test_legend_text_never_leaves_the_picture():
    narrow = viz.legend(["n" * 300, "w"], PALETTE[:2], width=120)
    assert narrow.width == 120
    assert ink(narrow, (119, 0, 120, narrow.height)) == 0
    assert ink(narrow, (24, 0, 120, 24)) > ink(narrow, (24, 24, 120, 48)) > 0


def test_legend_grows_with_its_entries():
    names = [f"class {i}" for i in range(40)]
    palette = np.random.default_rng(0).integers(0, 255, (40, 3), dtype=np.uint8)
    assert viz.legend(names, palette, 400).height > viz.legend(names[:4], palette[:4], 400).height


def test_a_tiny_sample_is_enlarged_with_hard_pixels():
    # 8 wide: 160 / 8 = factor 20, so three tiles of 160 x 120.
    rng = np.random.default_rng(1)
    image = rng.integers(0, 250, (6, 8, 3), dtype=np.uint8)
    label = rng.choice(np.array([0, 1, 2, 255], np.uint8), (6, 8))
    prediction = rng.integers(0, 4, (6, 8), dtype=np.uint8)
    sheet = np.asarray(viz.sample_sheet([image], [label], [prediction], PALETTE, CLASSES))
    for pixels in (image, viz.colorize(label, PALETTE), viz.colorize(prediction, PALETTE)):
        tile = np.kron(pixels, np.ones((20, 20, 1), np.uint8))
        windows = np.lib.stride_tricks.sliding_window_view(sheet, tile.shape)[..., 0, :, :, :]
        # Compare corners first; a full comparison at each place would be slow.
        places = np.argwhere((windows[:, :, ::20, ::20] == pixels).all(axis=(2, 3, 4)))
        assert any((windows[y, x] == tile).all() for y, x in places)


@pytest.mark.parametrize("sizes", [[(1, 1)], [(16, 16), (40, 30)], [(30, 900)], [(700, 5)], [(600, 1000), (9, 9)]])
def test_sheet_of_any_sizes(sizes):
    rng = np.random.default_rng(2)
    images = [rng.integers(0, 255, (h, w, 3), dtype=np.uint8) for h, w in sizes]
    targets = [rng.integers(0, 4, size, dtype=np.uint8) for size in sizes]
    sheet = viz.sample_sheet(images, targets, targets, PALETTE, CLASSES)
    assert sheet.mode == "RGB"
    assert 3 * 160 <= sheet.width <= 3 * 480 + 60
    assert sheet.height <= len(sizes) * 490 + 200
    assert ink(sheet, (0, 0, sheet.width, 12)) == 0  # margin
    assert ink(sheet, (0, 12, sheet.width, 40)) > 100  # column titles


def test_sheet_names_only_classes_that_occur():
    image, empty = np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20), np.uint8)
    void = np.full((20, 20), 255, np.uint8)

    def strip(label):
        sheet = viz.sample_sheet([image], [label], [empty], PALETTE, CLASSES)
        return ink(sheet, (0, 16 + 26 + 160 + 4, sheet.width, sheet.height))

    assert 0 < strip(empty) < strip(void)


# --- figures ---------------------------------------------------------------------------------------


def rows(count):
    return [
        {
            "epoch": e,
            "loss": 2.0 / e,
            "lr": 1e-10,
            "mean_iu": 0.6 if e % 2 else None,
            "pixel_accuracy": 0.8 if e % 2 else float("nan"),
        }
        for e in range(1, count + 1)
    ]


def drawn_figure(monkeypatch, draw):
    """The matplotlib figure that `draw` would write."""
    figures = []
    monkeypatch.setattr(viz, "save_figure", lambda figure, path: figures.append(figure))
    draw()
    (figure,) = figures
    return figure


def test_curves_draw_the_values_that_exist(monkeypatch):
    figure = drawn_figure(monkeypatch, lambda: viz.curves("x.png", rows(5)))
    loss, validation, rate = figure.axes
    np.testing.assert_allclose(loss.lines[0].get_xydata(), [[1, 2], [2, 1], [3, 2 / 3], [4, 0.5], [5, 0.4]])
    lines = {line.get_label(): line.get_xydata().tolist() for line in validation.lines}
    assert lines == {
        "mean IU": [[1, 0.6], [3, 0.6], [5, 0.6]],
        "pixel accuracy": [[1, 0.8], [3, 0.8], [5, 0.8]],
    }
    np.testing.assert_array_equal(rate.lines[0].get_ydata(), [1e-10] * 5)
    assert [axes.get_xlabel() for axes in figure.axes] == ["epoch"] * 3
    for axes in figure.axes:
        assert axes.get_xlim() == (0.5, 5.5)
        assert axes.get_ylim()[0] == 0


def boxes(figure, texts):
    renderer = figure.canvas.get_renderer()
    return [t.get_window_extent(renderer) for t in texts if t.get_visible() and t.get_text().strip()]


@pytest.mark.parametrize("count", [1, 2, 40, 1000])
def test_curves_have_no_overlapping_text(monkeypatch, count):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = drawn_figure(monkeypatch, lambda: viz.curves("x.png", rows(count)))
    FigureCanvasAgg(figure).draw()
    texts = []
    for axes in figure.axes:
        legend = axes.get_legend()
        texts += [axes.title, axes._left_title, axes.xaxis.label, *(legend.get_texts() if legend else [])]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = axis.get_view_interval()  # matplotlib keeps a label beyond each end that it does not draw
            labels = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
            texts += [label for at, label in labels if low <= at <= high]
    found = boxes(figure, texts)
    assert len(found) >= 3 * 2 + 2 + 3 * 3  # titles and axes, the legend, some ticks
    legend_box = figure.axes[1].get_legend().get_window_extent()
    title_box = figure.axes[1]._left_title.get_window_extent()
    assert legend_box.x0 > title_box.x1
    assert_apart(found)


def assert_apart(found):
    for i, a in enumerate(found):
        for b in found[:i]:
            width = min(a.x1, b.x1) - max(a.x0, b.x0)
            height = min(a.y1, b.y1) - max(a.y0, b.y0)
            assert min(width, height) <= 1, (a, b)


def test_curves_without_validation_say_so(monkeypatch):
    figure = drawn_figure(monkeypatch, lambda: viz.curves("x.png", [{"epoch": 1, "loss": 1.0, "lr": 0.1}]))
    assert [t.get_text() for t in figure.axes[1].texts] == ["no values"]


def test_confusion_picture_shows_percent_of_each_row(monkeypatch):
    # Row 0: 150 of 200 and 50 of 200. Row 1: 1 of 1000 rounds to 0 and is left out. Row 2: no ground truth.
    counts = np.array([[150, 50, 0], [1, 999, 0], [0, 0, 0]])
    figure = drawn_figure(monkeypatch, lambda: viz.confusion_picture("x.png", counts, CLASSES[:3]))
    (axes,) = figure.axes
    shown = {(int(t.get_position()[1]), int(t.get_position()[0])): t.get_text() for t in axes.texts}
    assert shown == {(0, 0): "75", (0, 1): "25", (1, 1): "100"}
    heat = axes.images[0].get_array()
    np.testing.assert_allclose(heat[:2].filled(-1), [[0.75, 0.25, 0], [0.001, 0.999, 0]])
    assert heat.mask[2].all()
    assert [t.get_text() for t in axes.get_yticklabels()] == CLASSES[:3]


@pytest.mark.parametrize("count", [2, 21])
def test_confusion_values_fit_into_their_cells(monkeypatch, count):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    counts = np.eye(count, dtype=int) + np.ones((count, count), int)
    counts[0] = 0
    counts[0, 0] = 9  # the widest value, 100
    names = [f"a long class name {i}" for i in range(count)]
    figure = drawn_figure(monkeypatch, lambda: viz.confusion_picture("x.png", counts, names))
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    cell = axes.get_window_extent().width / count
    values = boxes(figure, axes.texts)
    assert len(values) == count**2 - count + 1
    assert all(box.width < cell and box.height < cell for box in values)
    assert_apart([*boxes(figure, axes.get_yticklabels()), axes.yaxis.label.get_window_extent()])


def test_figures_are_pngs_and_leave_pyplot_alone(tmp_path):
    code = (
        "import sys, numpy as np; from minifcn import viz;"
        "assert 'matplotlib' not in sys.modules;"
        "viz.curves('curves.png', [{'epoch': 1, 'loss': 1.0, 'lr': 0.1, 'mean_iu': 0.5, 'pixel_accuracy': 0.7}]);"
        "viz.confusion_picture('confusion.png', np.eye(3, dtype=int), ['a', 'b', 'c']);"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    root = Path(__file__).parents[1]
    code = f"import sys; sys.path.insert(0, {str(root)!r}); {code}"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["confusion.png", "curves.png"]
    for path in tmp_path.iterdir():
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 200
            assert ink(picture) > 1000


# --- bad input -------------------------------------------------------------------------------------

ZEROS = np.zeros((2, 2), np.uint8)
IMAGE = np.zeros((2, 2, 3), np.uint8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: viz.colorize(np.full((2, 2), 4, np.uint8), PALETTE), r"label holds 4, .* classes 0\.\.3"),
        (lambda: viz.colorize(np.zeros((2, 2), int), PALETTE), r"uint8 \[H, W\], got int64"),
        (lambda: viz.colorize(ZEROS, PALETTE.astype(float)), r"palette is uint8 \[C, 3\].*float64"),
        (lambda: viz.colorize(ZEROS, np.zeros((256, 3), np.uint8)), r"1\.\.255 classes"),
        (lambda: viz.save_palette_png("never.png", np.full((2, 2), 254, np.uint8), PALETTE), "label holds 254"),
        (lambda: viz.overlay(IMAGE, np.zeros((3, 2), np.uint8), PALETTE), r"size \(2, 2\), label \(3, 2\)"),
        (lambda: viz.overlay(IMAGE.astype(float), ZEROS, PALETTE), r"uint8 \[H, W, 3\], got float64"),
        (lambda: viz.overlay(IMAGE, ZEROS, PALETTE, alpha=1.5), r"alpha must lie in 0\.\.1, got 1\.5"),
        (lambda: viz.legend(CLASSES[:2], PALETTE), "2 class names for 4 classes of the palette"),
        (lambda: viz.sample_sheet([], [], [], PALETTE, CLASSES), "0 images, 0 labels, 0 predictions"),
        (lambda: viz.sample_sheet([IMAGE], [ZEROS], [], PALETTE, CLASSES), "1 labels, 0 predictions"),
        (lambda: viz.sample_sheet([IMAGE], [ZEROS], [ZEROS[:1]], PALETTE, CLASSES), r"\(1, 2\); must be equal"),
        (lambda: viz.curves("never.png", []), r"never\.png: no epochs"),
        (lambda: viz.curves("never.png", [{"loss": 1.0}]), r"never\.png: a row without 'epoch'"),
        (lambda: viz.confusion_picture("never.png", np.ones((2, 3)), CLASSES[:2]), r"square, got shape \(2, 3\)"),
        (lambda: viz.confusion_picture("never.png", np.eye(2, dtype=int), CLASSES), "4 class names for 2 classes"),
    ],
)
def test_bad_values_are_named(call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MinifcnError, match=message):
        call()
    assert list(tmp_path.iterdir()) == []
