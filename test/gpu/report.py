"""Registers and spills of the kernels, from ptxas' reports NAME.cu.txt that `make -C native/cuda` leaves.

    report.py FOLDER        a line a kernel and compute capability; exit code 1 if one spills
"""

import pathlib
import re
import subprocess
import sys


def main(folder: str) -> int:
    rows = []
    for path in sorted(pathlib.Path(folder).glob("*.txt")):
        for entry in path.read_text().split("Compiling entry function ")[1:]:
            name, arch = re.match(r"'(\S+)' for 'sm_(\d+)a?'", entry).groups()
            registers = int(re.search(r"Used (\d+) registers", entry).group(1))
            stores, loads = map(int, re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", entry).groups())
            rows.append((path.name.removesuffix(".txt"), name, int(arch), registers, stores + loads))
    if not rows:
        print(f"{folder}: no report found")
        return 1
    names = subprocess.run(["c++filt", "-p"], input="\n".join(row[1] for row in rows), capture_output=True, text=True, check=True)
    kernels: dict[str, list[str]] = {}
    spilled = []
    for (file, _, arch, registers, spills), name in zip(rows, names.stdout.splitlines()):
        name = name.replace("parley::cuda::", "").replace("(anonymous namespace)::", "")
        kernels.setdefault(f"{file}: {name}", []).append(f"{arch}: {registers}" + (f" (spills {spills} bytes)" if spills else ""))
        if spills:
            spilled.append(f"{name} for {arch}")
    print("registers by compute capability")
    for name, figures in kernels.items():
        print(f"  {name}  {', '.join(figures)}")
    for name in spilled:
        print(f"spills: {name}")
    return 1 if spilled else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
