"""Folders of embeddings, as `ray-al features` writes them: shards while it runs, then arrays that are memory-mapped."""
