"""`python -m groupnorm_bench` is `gnbench`."""

from groupnorm_bench.cli import main

if __name__ == "__main__":
    main()
