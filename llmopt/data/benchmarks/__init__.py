"""The field's data sets: what there is, how it lies on disk, how it is fetched."""
