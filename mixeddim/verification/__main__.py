"""`python -m mixeddim.verification` prints the table of errors and rates."""

from mixeddim.verification.convergence import print_table

if __name__ == "__main__":
    print_table()
