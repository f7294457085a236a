// count_nonzero
