"""The Python library: what `import agebench` offers. The command line is a thin layer over it."""
