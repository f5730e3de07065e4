"""Tables and plots of what `cold.py` has measured."""

import collections
import json
import statistics

MOUNTS = {"mountpoint", "rclone", "s3fs"}
COPIERS = {"s5cmd", "aws", "rclone copy"}
SIDES = ["dvcfs", *sorted(MOUNTS), *sorted(COPIERS), "dvc", "DVCFileSystem", "ext4", "md5sum"]

# What is aimed at: work, what of it, in proportion to the best of whom (or nobody), at most.
TARGETS = [
    *((f"1 GiB, {at}", "s", whom, most) for at in ("0 ms", "30 ms")
      for whom, most in ((COPIERS, 1.3), (MOUNTS, 0.8))),
    ("1 GiB, 30 ms, 90 MB/s a connection", "s", MOUNTS, 0.9),
    ("1 GiB, 0 ms", "s of processor beside hashing", None, 1.3),
    ("1 GiB, 0 ms", "MiB of memory", None, 200),
    ("1 GiB, 30 ms", "MiB of memory", None, 200),
    ("first 64 KiB", "s", MOUNTS | {"DVCFileSystem"}, 0.6),
    ("first 64 KiB", "MiB fetched", None, 1),
    ("behind the reader of 64 KiB", "MiB fetched", None, 0),
    ("64 random reads", "s", MOUNTS, 1.0),
    ("64 random reads", "MiB fetched", None, 24),
    ("500 clips, random", "requests", None, 501),
    ("500 clips, random", "s", MOUNTS, 0.5),
    ("500 clips, in order", "s", MOUNTS, 0.08),
    ("500 clips, random, 8 readers", "s", MOUNTS, 0.5),
    ("2,000 clips again", "s", {"ext4"}, 1.4),
    ("2,200 files", "s", {"s5cmd"}, 1.15),
    ("2,200 files", "s", {"dvc"}, 0.25),
    ("find, 100,000 files", "s", MOUNTS, 0.25),
    ("find, 100,000 files", "requests", None, 2),
    ("ls -lR again, 100,000 files", "s", {"ext4"}, 1.5),
    ("list -R, 100,000 files in one folder", "s", {"dvc"}, 1 / 40),
    ("list -R, 10,000 .dvc files", "s", {"dvc"}, 1 / 300),
    ("status, 10,000 .dvc files", "s", {"dvc"}, 1 / 100),
    ("ls -l of 2,000 files", "s", None, 2),
    ("ls -l of 2,000 files, no listing", "s", None, 2),
    ("ls -l of 2,000 files, no listing", "requests", None, 2001),
]

PLOTS = {
    "cold-large": ("1 GiB for the first time: seconds", "1 GiB, "),
    "cold-places": ("Parts of 1 GiB at 30 ms: seconds", ("first 64 KiB", "64 random reads")),
    "cold-clips": ("500 clips of 400 KiB at 30 ms: seconds", "500 clips"),
    "cold-fill": ("2,200 files of 400 KiB into the cache at 30 ms: seconds", "2,200 files"),
    "cold-walk": ("A folder of 100,000 files: seconds",
                  ("find,", "ls -lR, ", "ls -lR again", "du,")),
}


def write(results, plots):
    """Prints the tables of a file of results, and draws the plots."""
    medians = read(results)
    print_targets(medians)
    print_sides(medians)
    plots.mkdir(parents=True, exist_ok=True)
    for name, (title, works) in PLOTS.items():
        groups = [(work, {side: row["s"] for side, row in sides.items()})
                  for work, sides in medians.items()
                  if work.startswith(works) and "hashed" not in work]
        if groups:
            (plots / f"{name}.svg").write_text(plot(title, groups))


def read(results):
    """The medians of every work, side and figure."""
    figures = collections.defaultdict(lambda: collections.defaultdict(list))
    with open(results) as file:
        for row in map(json.loads, file):
            figures[row.pop("work")][row.pop("side")].append(row)
    return {work: {side: median(rows) for side, rows in sides.items()}
            for work, sides in figures.items()}


def median(rows):
    row = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    row["requests"] = sum(row[kind] for kind in ("gets", "heads", "lists"))
    row["MiB fetched"] = row["bytes"] / (1 << 20)
    row["MiB of memory"] = row.get("peak", 0) / (1 << 20)
    return row


def print_targets(medians):
    table("work", "what", "dvcfs", "beside", "of", "ratio", "aim", "")
    for work, what, whom, most in TARGETS:
        sides = medians.get(work, {})
        ours = sides.get("dvcfs")
        if not ours:
            continue
        value = ours.get(what)
        if what.endswith("beside hashing"):
            hashing = medians.get("1 GiB, hashed")
            if not hashing:
                continue
            value = ours["cpu"] - hashing["md5sum"]["cpu"]
        if whom is None:
            row(work, what, value, "", "", "", most, mark(value <= most))
            continue
        others = {side: sides[side]["s"] for side in whom if side in sides}
        if others:
            best = min(others, key=others.get)
            ratio = value / others[best]
            cut = "more than " * sides[best].get("is_cut", 0)
            row(work, what, value, f"{cut}{cell(others[best])}", best, ratio, most,
                mark(ratio <= most))


def mark(is_met):
    return "" if is_met else "**missed**"


def print_sides(medians):
    """What each side takes for each work."""
    sides = [side for side in SIDES if any(side in work for work in medians.values())]
    for title, told in (("s", seconds), ("s of processor, MiB of memory", means),
                        ("requests, MiB fetched", fetched)):
        cells = {work: [told(of[side]) if side in of else "" for side in sides]
                 for work, of in medians.items()}
        table(title, *sides)
        for work, told_of_sides in cells.items():
            if any(told_of_sides):
                row(work, *told_of_sides)


def seconds(it):
    return f"over {it['s']:.0f}" if it.get("is_cut") else cell(it["s"] or "")


def means(it):
    memory = it["MiB of memory"]
    return f"{cell(it['cpu'])}, {memory:.0f}" if memory else ""


def fetched(it):
    return f"{cell(it['requests'])}, {cell(it['MiB fetched'])}" if it["requests"] else ""


def table(*columns):
    print("\n| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))


def row(*cells):
    print("| " + " | ".join(map(cell, cells)) + " |", flush=True)


def cell(value):
    if not isinstance(value, (int, float)):
        return value
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.2g}" \
        if abs(value) < 1 else f"{value:.3g}"


# -- plots

WIDTH, LABEL, BAR, GAP = 760, 130, 18, 30
OURS, OTHER = "#1f6f8b", "#b8c4cc"


def plot(title, groups):
    """Bars of seconds, group by group, each group to its own scale."""
    parts, y = [], 34
    for work, seconds in groups:
        parts.append(words(8, y + 14, work, "font-weight='bold'"))
        y += 22
        longest = max(seconds.values())
        for side, value in sorted(seconds.items(), key=lambda pair: pair[1]):
            length = value / longest * (WIDTH - LABEL - 80)
            colour = OURS if side == "dvcfs" else OTHER
            parts.append(words(LABEL - 6, y + 13, side, "text-anchor='end'"))
            parts.append(f"<rect x='{LABEL}' y='{y}' width='{max(length, 1):.1f}' "
                         f"height='{BAR - 4}' fill='{colour}'/>")
            parts.append(words(LABEL + length + 6, y + 13, cell(value)))
            y += BAR
        y += GAP - BAR
    head = (f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{y}' "
            f"viewBox='0 0 {WIDTH} {y}' font-family='sans-serif' font-size='13'>")
    back = f"<rect width='{WIDTH}' height='{y}' fill='#ffffff'/>"
    heading = words(8, 22, title, "font-size='15' font-weight='bold'")
    return "\n".join([head, back, heading, *parts, "</svg>", ""])


def words(x, y, text, style=""):
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return f"<text x='{x:.1f}' y='{y}' fill='#222222' {style}>{text}</text>"
