"""The memory that a picture takes while it is opened: so many bytes a pixel, in every format."""

import json
import os
import subprocess
import sys

# docs/guide/pictures.md says what this makes of the largest picture. The picture and its RGB copy
# take four bytes a pixel each. Some decoders hold whole frames beside them.
MOST = 16
MOST_OF_FRAMES = {"WEBP": 22, "AVIF": 22}

MEASURE = """
import io, json, os, resource, sys
import numpy as np
from PIL import Image
from unitok.pictures import FORMATS, open_picture

SIDE = 1200

def encoded(mode, format, **options):
    image, file = Image.new(mode, (SIDE, SIDE), 0), io.BytesIO()
    if options.get("save_all"):
        options["append_images"] = [Image.new(mode, image.size, 255)]
    image.save(file, format, **options)
    return file.getvalue()

def peak(data):
    ours, theirs = os.pipe()
    if child := os.fork():
        os.close(theirs)
        grown = os.read(ours, 99)
        assert os.waitpid(child, 0)[1] == 0
        return int(grown) / SIDE**2
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    open_picture(data)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    os.write(theirs, str(grown).encode())
    os._exit(0)

exif = Image.Exif()
exif[0x0112] = 6
frames = {"save_all": True}
kinds = [(mode, "PNG", {}) for mode in ("RGB", "RGBA", "P", "L", "LA", "I;16", "1")]
kinds += [("P", "PNG", {"transparency": 0}), ("RGBA", "PNG", frames)]
kinds += [("RGB", "PNG", {"exif": exif}), ("RGB", "JPEG", {"exif": exif}), ("L", "JPEG", {})]
kinds += [("CMYK", "JPEG", {"progressive": True})]
kinds += [("P", "GIF", frames), ("RGB", "BMP", {}), ("L", "BMP", {})]
kinds += [(mode, "TIFF", {}) for mode in ("RGBA", "CMYK", "F", "I", "I;16")]
kinds += [("RGBA", "WEBP", {"lossless": True, "method": 0, "quality": 0})]
kinds += [("RGB", "WEBP", {"method": 0}), ("RGB", "WEBP", frames | {"method": 0})]
if "AVIF" in FORMATS:
    kinds += [("RGBA", "AVIF", {"speed": 10})]
open_picture(encoded("RGB", "PNG"))  # what is loaded only once
print(json.dumps([[f"{mode} {format} {options}", format, peak(encoded(mode, format, **options))]
                  for mode, format, options in kinds]))
"""


def test_the_memory_of_every_format_is_bounded():
    # What was freed goes back to the system at once, and is counted again when it is taken again.
    settings = {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | settings
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], env=env, capture_output=True, text=True, check=True
    )
    measured = json.loads(done.stdout)
    assert len(measured) > 20
    most = {kind: MOST_OF_FRAMES.get(format, MOST) for kind, format, _ in measured}
    assert {kind: peak for kind, _, peak in measured if peak > most[kind]} == {}
    assert min(peak for _, _, peak in measured) > 4, "an RGB copy takes four bytes"
