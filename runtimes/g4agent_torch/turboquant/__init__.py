"""Compressed keys and values: the codec, the page layout, and attention that reads pages as they are.

rotation.py   random signs and Hadamard            codebooks.py  Lloyd-Max and pair codes
layout.py     where each bit lies (the contract)   codec.py      vectors ↔ packed streams
formats.py    what a layer keeps of a page         cache.py      the layer in the model
whole_levels.py   codebooks in bytes, which products of integers read
attention.py  attention over pages, by the quickest path that there is:
    gpu/                    on a GPU, Triton kernels
    native_attention.py     on a CPU, the native kernel (cpp/) that native.py finds or compiles
    table_attention.py      on a CPU without one: PyTorch and tables (lookup.py)
    reference_attention.py  elsewhere, and what the others are held to
prod.py       the paper's two-stage form, to check its claims
"""
