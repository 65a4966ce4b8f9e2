"""KV pages that survive the process: what a session has computed lies in files and is mapped back, not computed again.

address.py     how a stretch of tokens is named      page_file.py   one file: header, tensors, checksum
page_store.py  the folder: writing, reading, sharing  pins.py        which files live processes use
quota.py       clean-up, least recently used first   state.py       a cache's parts, taken out and put back
keeper.py      one engine's side of it all

Segments
    A sequence is cut at fixed places: segment 0 is its first 144 tokens (16 sinks and a page), each further one is the
    next 128. A segment has an address: SHA-256 over the address before it and its token ids, and the first one over a
    root that names everything else its bytes depend on: model, precision, codec, codebooks, formats. So an address says
    all that the model had seen, equal prefixes have equal addresses whoever computed them, and a file of another model
    or version is never asked for.

Two kinds of files
    page   A full segment as the full-attention layers keep it for good: codes, or plain keys and values where the cache
           is not compressed. Immutable. Mapped, so that processes share its memory; sessions of a process share it too.
    rows   What is needed besides pages to go on exactly behind some length: keys and values in full precision of the
           sliding windows, and of the newest tokens, which no page holds yet. A full segment has rows, and so has the
           part of a segment (maybe none of it) before a *point*: a mark (the end of the system turn, the start of a
           turn), a checkpoint, the end of each pass over a prompt, and while tokens are sampled each segment's end.
           Those of a session's newest length and of its latest marks are kept; others go.

What is exact
    A cache that is put back at a length holds the very bytes that were there: every next logit is the same to the bit,
    for the same kernel and number of threads. A session is put back at points only, where a pass of the model ended:
    what follows is then cut into the same passes as before. A checkpoint is a point, and is on disk before the step is
    committed; so a process that is killed at any moment finds the state of its last commit again. Passes end at marks,
    so that a session that finds its system turn on disk computes what it would have computed without. Only where files
    are lost may tokens be computed in one go that had come one by one: equal up to rounding (about 1e-6 of a logit in
    float32). Where two sessions computed the same prefix in different passes, the files are of whoever was first.

What can go wrong
    Killed: files are renamed into place when they are whole; what was under way is a `.part` file, swept away later.
    Loss of power: nothing is synced, so files may be cut short; the checksum tells, as it tells of any other damage.
    Damaged, foreign or cut files are reported and removed, and their tokens are computed again from the last place
    before them. The disk is full: reported once, and the session goes on without.
"""
