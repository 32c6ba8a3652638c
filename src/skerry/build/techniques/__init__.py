"""The built-in techniques: one file each; the files whose names are no technique's hold what several of them share."""
