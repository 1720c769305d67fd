"""darknet's description of a network: compared with Darknet-19, line by line."""

import pytest

from darknet_face.console import UserError
from darknet_face.weights import darknet_cfg

# Kernel size, channels in and filters of each convolution: the YOLO9000 paper's Table 6.
TABLE = [(3, 3, 32), (3, 32, 64), (3, 64, 128), (1, 128, 64), (3, 64, 128), (3, 128, 256),
         (1, 256, 128), (3, 128, 256), (3, 256, 512), (1, 512, 256), (3, 256, 512), (1, 512, 256),
         (3, 256, 512), (3, 512, 1024), (1, 1024, 512), (3, 512, 1024), (1, 1024, 512),
         (3, 512, 1024)]

PUBLIC_CFG = """[net]
# Training
batch=128
subdivisions=1
height=224
width=224
channels=3
momentum=0.9
policy=poly
max_batches=800000

""" + "\n".join(
    ("[convolutional]\nbatch_normalize=1\nfilters={}\nsize={}\nstride=1\npad=1\n"
     "activation=leaky\n").format(filters, size)
    + ("\n[maxpool]\nsize=2\nstride=2\n" if index in (0, 1, 4, 7, 12) else "")
    for index, (size, _, filters) in enumerate(TABLE)) + """
[convolutional]
filters = 1000
size=1
stride=1
pad=1
activation=linear

[avgpool]

[softmax]
groups=1

; older files end so
[cost]
type=sse
"""


def test_cfg_as_the_public_one(tmp_path):
    path = tmp_path / "darknet19.cfg"
    path.write_text(PUBLIC_CFG)
    assert darknet_cfg.read_cfg(str(path)).num_classes == 1000
    path.write_bytes(b"\xef\xbb\xbf" + PUBLIC_CFG.replace("\n", "\r\n").encode())
    assert darknet_cfg.read_cfg(str(path)).num_classes == 1000


def test_cfg_written_and_read(tmp_path):
    path = str(tmp_path / "own.cfg")
    darknet_cfg.write_cfg(path, 224, 5)
    assert darknet_cfg.read_cfg(path).num_classes == 5
    with open(path) as stream:
        lines = stream.read().splitlines()
    assert lines[0] == "[net]" and "height=224" in lines and "channels=3" in lines
    assert lines.count("[convolutional]") == 19 and lines.count("[maxpool]") == 5


@pytest.mark.parametrize("old, new, cause", [
    ("[avgpool]", "[region]", "unknown section '.region.'"),
    ("[avgpool]", "[route]\nlayers=-4", "unknown section"),
    ("[avgpool]", "[avgpool", "unknown section"),
    ("[avgpool]", "[maxpool]\nsize=2\nstride=2\n[avgpool]", "expected .avgpool., found .maxpool."),
    ("filters=32\n", "filters=33\n", "line 12: .*expected filters=32, found '33'"),
    ("size=3", "size=5", "expected size=3, found '5'"),
    ("stride=1", "stride=2", "expected stride=1, found '2'"),
    ("activation=leaky", "activation=relu", "expected activation=leaky"),
    ("activation=leaky\n", "", "expected activation=leaky, found none"),
    ("batch_normalize=1\n", "", "expected batch_normalize=1, found none"),
    ("activation=leaky", "activation=leaky\ngroups=2", "'groups'='2', which Darknet-19 does not"),
    ("filters = 1000", "filters=999999999", "no number of classes"),
    ("filters = 1000", "filters=-1", "no number of classes"),
    ("filters = 1000", "filters=1e3", "no number of classes"),
    ("size=1\nstride=1\npad=1\n", "", "expected pad=1, found none"),  # the others are defaults
    ("[net]", "[maxpool]", r"does not begin with \[net\]"),
    ("channels=3", "channels=1", "channels='1' is not what"),
    ("height=224", "height=-224", "height='-224' is not what"),
    ("width=224", "width=" + "9" * 5000, "width='9{40}' is not what"),
    ("filters=32\n", "filters=32\nfilters=99\n", "line 15: 'filters' again in the same section"),
    ("batch=128", "batch 128", "line 3: .* is neither"),
    ("batch=128", "\0\xff", "is neither"),
    ("[softmax]\ngroups=1", "[softmax]\ngroups=1\n[softmax]\ngroups=1", "after the end"),
])
def test_cfg_of_another_network(tmp_path, old, new, cause):
    assert old in PUBLIC_CFG
    path = tmp_path / "other.cfg"
    path.write_text(PUBLIC_CFG.replace(old, new, 1), encoding="latin-1")
    with pytest.raises(UserError, match=cause) as caught:
        darknet_cfg.read_cfg(str(path))
    assert "\n" not in str(caught.value)


def test_the_image_size_that_a_cfg_tells(tmp_path):
    path = tmp_path / "sized.cfg"
    for old, new, size in (("", "", 224), ("height=224\nwidth=224", "height=96\nwidth=96", 96),
                           ("height=224", "height=96", None), ("224", "100", None),
                           ("height=224\nwidth=224\n", "", None), ("224", "0", None)):
        path.write_text(PUBLIC_CFG.replace(old, new))
        assert darknet_cfg.read_cfg(str(path)).image_size == size, new


def test_cfg_cut_off_or_no_text(tmp_path):
    path = tmp_path / "cut.cfg"
    path.write_text(PUBLIC_CFG[:PUBLIC_CFG.rindex("[convolutional]")])
    with pytest.raises(UserError, match="convolutions, Darknet-19 has 19"):
        darknet_cfg.read_cfg(str(path))
    path.write_text("")
    with pytest.raises(UserError, match="does not begin"):
        darknet_cfg.read_cfg(str(path))
    with open(str(path), "wb") as stream:
        stream.truncate(3 << 30)  # sparse: reading it all would take 3 GiB
    with pytest.raises(UserError, match="are no .cfg"):
        darknet_cfg.read_cfg(str(path))


@pytest.mark.parametrize("old, new", [
    ("[avgpool]", "[dropout]\nprobability=.5\n\n[avgpool]"),
    ("max_batches=800000\n", "max_batches=800000\n\n[crop]\nflip=1\nangle=0\nnoadjust=1\n"),
    ("activation=leaky\n", "activation=leaky\nstopbackward=1\n"),
    ("filters=32\n", "filters=32 # the stem\n"), ("[softmax]", "[softmax] ; the end"),
    ("height=224\n", "height=224   ;pixels\n"),
])
def test_what_matters_in_training_alone(tmp_path, old, new):
    assert old in PUBLIC_CFG
    path = tmp_path / "training.cfg"
    path.write_text(PUBLIC_CFG.replace(old, new))
    assert darknet_cfg.read_cfg(str(path)).num_classes == 1000
    assert darknet_cfg.read_cfg(str(path)).image_size == 224


def test_a_crop_that_changes_the_range_of_pixels(tmp_path):
    path = tmp_path / "crop.cfg"
    path.write_text(PUBLIC_CFG.replace("max_batches=800000\n", "\n[crop]\nflip=1\n"))
    with pytest.raises(UserError, match="crop.: expected noadjust=1, found none"):
        darknet_cfg.read_cfg(str(path))
