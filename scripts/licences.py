"""Prints the licences of every crate that is linked into the programs, with their texts.

Usage: licences.py TARGET, from the repository's folder. Crates that only build scripts, procedural
macros or tests use are left out. Fails if a crate names no licence and has no text of one.
"""

import json
import pathlib
import subprocess
import sys

PREFIXES = ("license", "licence", "copying", "notice", "unlicense", "copyright")


def linked(metadata):
    """The packages that the workspace's members depend on at run time."""
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    members, seen = set(metadata["workspace_members"]), set()
    pending = list(members)
    while pending:
        current = pending.pop()
        if current in seen:
            continue
        seen.add(current)
        # A macro runs in the compiler, and so does all that it uses.
        if any("proc-macro" in target["kind"] for target in packages[current]["targets"]):
            seen.discard(current)
            continue
        for dependency in nodes[current]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                pending.append(dependency["pkg"])
    return sorted((packages[i] for i in seen - members), key=lambda p: (p["name"], p["version"]))


def texts(package):
    """The contents of the files in a package's folder that are named like licences."""
    folder = pathlib.Path(package["manifest_path"]).parent
    files = sorted(f for f in folder.iterdir() if f.is_file() and f.name.lower().startswith(PREFIXES))
    return [file.read_text(encoding="utf-8", errors="replace").strip() for file in files]


def main():
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", sys.argv[1]]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    users = {}
    print("gossamer is under the Apache License 2.0 (LICENSE). Its programs contain these crates:\n")
    for package in linked(metadata):
        name = f"{package['name']} {package['version']}"
        found = texts(package)
        if not (package["license"] or found):
            sys.exit(f"{name} names no licence")
        print(f"{name}: {package['license'] or 'see below'}  {package['repository'] or ''}".rstrip())
        for text in found:
            users.setdefault(text, []).append(name)
    for text, names in users.items():
        print(f"\n{'=' * 80}\n{', '.join(names)}\n{'=' * 80}\n\n{text}")


if __name__ == "__main__":
    main()
