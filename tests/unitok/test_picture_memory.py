"""The memory that a picture takes while it is opened: so many bytes a pixel, in every format."""

import json
import os
import subprocess
import sys

# As `unitok/pictures.py` says. A decoder holds whole frames beside the picture and its RGB copy.
MOST = {"PNG": 14, "JPEG": 12, "GIF": 14, "BMP": 14, "TIFF": 16, "WEBP": 26, "AVIF": 30}

MEASURE = """
import io, json, os, resource, sys
import numpy as np
from PIL import Image
from unitok.pictures import FORMATS, open_picture

SIDE = 2000

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
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], env=env, capture_output=True, text=True, check=True
    )
    measured = json.loads(done.stdout)
    assert len(measured) > 20
    over = {kind: peak for kind, format, peak in measured if peak > MOST[format]}
    assert over == {}
    assert max(peak for _, _, peak in measured) > 3, "nothing was measured"
