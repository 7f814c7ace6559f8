"""The torch file format: pickles, storages and the zip container; `torch_file` is the way in."""
