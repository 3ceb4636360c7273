"""Pool scoring on a GPU: the CPU kernels' selections on rows that stay on the device, in plain torch.

Runs on "cpu", too, where it is tested; needs neither Ray nor faiss nor numba. Importing this package imports no torch.
"""
