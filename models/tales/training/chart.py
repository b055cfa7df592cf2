"""Draw the loss curve of a training log as an SVG file."""

import argparse
import csv

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 720, 360, 50, 40, 20
LINES = (("train_loss", "#888", "training"), ("held_out_loss", "#c33", "held out"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log")
    parser.add_argument("out")
    options = parser.parse_args()
    with open(options.log, newline="") as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    most = rows[-1]["tokens"]
    values = [row[name] for row in rows for name, _, _ in LINES]
    low, high = int(min(values)), int(max(values)) + 1

    def x(tokens):
        return LEFT + tokens / most * (WIDTH - LEFT - 20)

    def y(loss):
        return TOP + (high - loss) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
    ]
    for loss in range(low, high + 1):
        parts.append(f'<path d="M{LEFT} {y(loss):.1f}H{WIDTH - 20}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 20}" y="{y(loss) + 4:.1f}">{loss}</text>')
    for million in range(0, int(most / 1e6) + 1, 5):
        parts.append(f'<text x="{x(million * 1e6):.1f}" y="{HEIGHT - 20}">{million}</text>')
    parts.append(f'<text x="{WIDTH // 2 - 60}" y="{HEIGHT - 5}">million tokens</text>')
    for i, (name, colour, label) in enumerate(LINES):
        points = " ".join(f"{x(r['tokens']):.1f},{y(r[name]):.1f}" for r in rows)
        stroke = f'fill="none" stroke="{colour}" stroke-width="2"'
        parts.append(f'<polyline points="{points}" {stroke}/>')
        place = f'x="{WIDTH - 220}" y="{TOP + 20 + 18 * i}" fill="{colour}"'
        parts.append(f"<text {place}>{label} loss, nats per token</text>")
    with open(options.out, "w", encoding="utf-8") as file:
        file.write("\n".join(parts) + "\n</svg>\n")


if __name__ == "__main__":
    main()
