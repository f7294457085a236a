// gelu
