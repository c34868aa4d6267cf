"""Pictures: the network as vessels of its own radius inside the tissue, each with its field.

The tissue's field lies on the walls behind the network and on translucent contours around it.
Only the sides that face away from the camera are drawn, so that little covers the vessels and
their colours match the colour bar.
"""

from mixeddim.results.plotting.animation import animate
from mixeddim.results.plotting.panels import plot_ensemble, plot_side_by_side
from mixeddim.results.plotting.pictures import plot, plot_network
from mixeddim.results.plotting.web_page import export_html

__all__ = [
    "animate",
    "export_html",
    "plot",
    "plot_ensemble",
    "plot_network",
    "plot_side_by_side",
]
