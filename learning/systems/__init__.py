"""Batches of reduced systems in torch: the product with S, sparse products and solves.

Imports no other room. Read `operators` (S of a batch), then `sparse`, `tissue` (what is kept of
K and M), `units`, `boxes` (a system on several processes), and `padded` and `resident` (many
systems that stay on an accelerator).
"""
