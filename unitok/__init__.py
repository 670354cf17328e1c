"""unitok: models that read pictures and paint them with one line of tokens.

    import unitok
    model = unitok.load()
    model.caption("scene.png").text
    model.draw("two apples on a blue background", seed=7).image.save("apples.png")
"""

from unitok.api import Caption, Chat, Draw, DrawResult, Info, Model, TextResult, load

__version__ = "0.1.0"
__all__ = ["Caption", "Chat", "Draw", "DrawResult", "Info", "Model", "TextResult", "load"]
