// Elements by name, and the few words that the whole page shares. No state.

export const byId = (id) => document.getElementById(id);

/** An HTML element: properties set, `aria-*` and `data-*` as attributes, children appended. */
export function el(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** An SVG element; all properties are attributes. */
export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function filled(made, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** New rows for old; a button that had the focus keeps it, or the one where it was gets it. */
export function replaceRows(list, rows) {
  const old = document.activeElement?.closest("[data-id]");
  const held = old && list.contains(old) ? {
    id: old.dataset.id,
    row: [...list.children].indexOf(old),
    button: [...old.querySelectorAll("button")].indexOf(document.activeElement),
  } : null;
  list.replaceChildren(...rows);
  if (!held || !rows.length) return;
  const row = rows.find(({ dataset }) => dataset.id === held.id) ?? rows[Math.min(held.row, rows.length - 1)];
  row.querySelectorAll("button")[held.button]?.focus({ preventScroll: true });
}

/** "COLD CEREAL" as "Cold cereal"; what has small letters stays as the shop wrote it. */
export function sentence(text) {
  if (text !== text.toUpperCase()) return text;
  return text.charAt(0) + text.slice(1).toLowerCase();
}

/** A title in two parts: what it is, and the rest after the first comma. */
export function titleParts(title) {
  const [name, ...rest] = title.split(", ");
  return { name, rest: rest.join(", ") };
}

export const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;

export const counted = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;

export const percent = (share) => (share === null ? "–" : `${(100 * share).toFixed(1)}%`);

/** A table with a head a column; `rows` are its `tr`. */
export const table = (heads, rows) => el("table", {},
  el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col", textContent: head })))),
  el("tbody", {}, ...rows));

/** Says what happened, to the eye and to a screen reader. */
export function say(text, { wrong = false } = {}) {
  const toast = byId("toast");
  toast.textContent = text;
  toast.classList.toggle("wrong", wrong);
  toast.classList.add("shown");
  clearTimeout(say.timer);
  say.timer = setTimeout(() => toast.classList.remove("shown"), wrong ? 9000 : 5000);
}
