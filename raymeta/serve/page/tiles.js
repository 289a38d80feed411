// A picture for an item that has none: a package by its category, a label by its id.

import { sentence, svg, titleParts } from "./dom.js";

// Outlines on a square of 100, and where the label lies on them: [x, y, width, height].
const PACKAGES = {
  bottle: ["M42 8h16v13c0 7 11 10 11 24v39a8 8 0 0 1-8 8H39a8 8 0 0 1-8-8V45c0-14 11-17 11-24z",
    [31, 50, 38, 28]],
  box: ["M27 12h46a3 3 0 0 1 3 3v74a3 3 0 0 1-3 3H27a3 3 0 0 1-3-3V15a3 3 0 0 1 3-3z",
    [24, 34, 52, 34]],
  can: ["M28 20c0-8 44-8 44 0v62c0 8-44 8-44 0z", [28, 36, 44, 32]],
  bag: ["M28 14 34 9l5 5 5-5 6 5 6-5 5 5 5-5 6 5-3 10 5 60a6 6 0 0 1-6 6H32a6 6 0 0 1-6-6l5-60z",
    [30, 40, 40, 32]],
  jar: ["M35 10h30v11h-30zM33 25h34a9 9 0 0 1 9 9v48a9 9 0 0 1-9 9H33a9 9 0 0 1-9-9V34a9 9 0 0 1 9-9z",
    [24, 44, 52, 30]],
  carton: ["M36 9h28v8l10 17v55a3 3 0 0 1-3 3H29a3 3 0 0 1-3-3V34l10-17z", [26, 44, 48, 32]],
  fruit: ["M50 28c8-9 34-6 34 24 0 22-16 40-26 40-4 0-5-2-8-2s-4 2-8 2c-10 0-26-18-26-40 0-30 26-33 34-24z" +
    "M50 24c0-9 7-15 16-15 0 9-7 15-16 15z", [28, 46, 44, 28]],
  tray: ["M24 26h52a12 12 0 0 1 12 12v30a12 12 0 0 1-12 12H24a12 12 0 0 1-12-12V38a12 12 0 0 1 12-12z",
    [24, 36, 52, 34]],
};

// English words that tell a package; any other category gets one by chance, always the same.
const TOLD = [
  [/ice cream|sherb|gelato/i, "jar"],
  [/milk|cream|juice box|egg/i, "carton"],
  [/drink|water|beer|wine|juice|soda|sauce|dressing|oil|shampoo|soap|detergent/i, "bottle"],
  [/can|soup|bean|tuna|cat food|dog food/i, "can"],
  [/fruit|vegetable|produce|salad|apple|berries|banana|potato|citrus|pepper|onion|tomato|grape/i, "fruit"],
  [/meat|beef|pork|chicken|seafood|deli|cheese|frozen meal|pizza/i, "tray"],
  [/jam|pickle|spice|yogurt|dip|butter|baby food/i, "jar"],
  [/chip|snack|candy|bread|bun|roll|coffee|sugar|flour/i, "bag"],
  [/cereal|cookie|cracker|cake|paper|tea|mix|card/i, "box"],
];

/** A 32-bit number for a text (FNV-1a). */
export function hash(text) {
  let value = 0x811c9dc5;
  for (let at = 0; at < text.length; at += 1) {
    value = Math.imul(value ^ text.charCodeAt(at), 0x01000193);
  }
  return value >>> 0;
}

/** What groups items to the eye: the category, or the last word of a title without one. */
export const groupOf = (card) => card.category ?? titleParts(card.title).name.split(" ").at(-1);

export const hueOf = (group) => (hash(group.toLowerCase()) * 137.508) % 360;

/** The picture, for the eye only: a screen reader has the title. */
export function tile(card) {
  const group = groupOf(card);
  const seed = hash(card.item_id);
  const names = Object.keys(PACKAGES);
  const told = [group, card.title].map((text) => TOLD.find(([words]) => words.test(text)))
    .find(Boolean);
  const [outline, label] = PACKAGES[told ? told[1] : names[hash(group) % names.length]];
  const picture = svg("svg", { viewBox: "0 0 100 100", class: "tile", "aria-hidden": "true" },
    svg("path", { d: outline, class: "package", "fill-rule": "evenodd" }),
    svg("rect", { ...rect(label), class: "label" }),
    ...motif(label, seed),
    monogram(card, label),
  );
  picture.style.setProperty("--hue", hueOf(group).toFixed(0));
  picture.style.setProperty("--turn", `${(seed % 9) * 12 - 48}`);
  return picture;
}

const rect = ([x, y, width, height]) => ({ x, y, width, height });

function monogram(card, [x, y, width, height]) {
  const words = sentence(titleParts(card.title).name).split(/[^\p{L}]+/u).filter(Boolean);
  const letters = ((words[0] ?? "?").charAt(0) + (words[1] ?? "").charAt(0)).toUpperCase();
  return svg("text", { x: x + width / 2, y: y + height / 2 + 6, class: "monogram" }, letters);
}

/** A band of marks above and below the letters: which, and how many, by the item. */
function motif([x, y, width, height], seed) {
  const count = 3 + (seed % 5);
  const kind = (seed >>> 3) % 4;
  const gap = width / count;
  const marks = [];
  for (let n = 0; n < count; n += 1) {
    const middle = x + gap * (n + 0.5);
    for (const line of [y + 4, y + height - 4]) {
      marks.push(mark(kind, middle, line, Math.min(gap * 0.3, 2.6)));
    }
  }
  return marks;
}

function mark(kind, x, y, size) {
  const shape = { class: "mark" };
  if (kind === 0) return svg("circle", { ...shape, cx: x, cy: y, r: size });
  if (kind === 1) {
    return svg("rect", { ...shape, x: x - size, y: y - size / 2, width: 2 * size, height: size });
  }
  if (kind === 2) {
    return svg("path", { ...shape, d: `M${x} ${y - size}l${size} ${2 * size}h${-2 * size}z` });
  }
  return svg("path", { ...shape, d: `M${x} ${y - size}l${size} ${size}-${size} ${size}-${size}-${size}z` });
}
