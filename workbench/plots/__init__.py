"""Plots: a frame of trials in, plain data, then a plotly figure out."""
