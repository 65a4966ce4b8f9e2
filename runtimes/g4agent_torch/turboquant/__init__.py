"""Compressed keys and values: the codec, the page layout, and attention that reads pages as they are.

rotation.py   random signs and Hadamard            codebooks.py  Lloyd-Max and pair codes
layout.py     where each bit lies (the contract)   codec.py      vectors ↔ packed streams
attention.py  attention over pages              native.py    its native kernel (cpp/), if there is one
gpu/          the same on a GPU, by Triton kernels
prod.py       the paper's two-stage form, to check its claims
"""
