"""Items: encoded images wherever they lie (folders, ImageNet, LSUN, Parquet), listed in one stable order."""
