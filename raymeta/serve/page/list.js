// The list for the visitor: what moved, by how much, why, and what the answer was made from.

import { byId, el, percent, replaceRows, sentence, signed, svg, titleParts } from "./dom.js";
import { cardsOf } from "./cards.js";
import { groupOf, tile } from "./tiles.js";

const SHOWN = 10;
const MAX_BARS = 6;
const VERBS = { purchase: "bought", view: "viewed", cart: "put in the cart", click: "clicked" };

let before = null; // the list before: item id -> place
let anybody = null; // of the list for anybody: category -> share
let run = 0; // lists are drawn in order; a late one is not drawn over a newer

/** Forgets what came before: the next list is the first. */
export function forgetMoves() {
  before = null;
}

/** Draws an answer of the service; gives what moved, in words. */
export async function showList(answer, took, act) {
  run += 1;
  const mine = run;
  const ids = answer.items.map((item) => item.id);
  const reasons = answer.items.flatMap((item) => (item.reasons ?? []).map((r) => r.item_id));
  const gone = [...(before ?? new Map()).keys()].slice(0, SHOWN)
    .filter((id) => !ids.slice(0, SHOWN).includes(id));
  const cards = new Map();
  const all = [...ids, ...reasons, ...gone];
  (await cardsOf(all)).forEach((card, at) => cards.set(all[at], card));
  if (mine !== run) return "";
  const shown = answer.items.slice(0, SHOWN);
  const scale = scaleOf(shown);
  const rows = shown.map((item, place) => {
    const row = rowOf(item, place, cards, scale);
    row.querySelectorAll("[data-act]").forEach((button) => button.addEventListener("click", () =>
      act(button.dataset.act, cards.get(item.id),
        { ranking_id: answer.recommendation_id, position: place })));
    return row;
  });
  moved(byId("list"), rows);
  showGone(gone, cards);
  showFacts(answer, took);
  showTaste(answer, ids.map((id) => cards.get(id)));
  const changed = before === null ? 0 : shown.filter((item, at) => before.get(item.id) !== at).length;
  before = new Map(ids.map((id, place) => [id, place]));
  return changed ? `${changed} of ${shown.length} places changed.` : "No place changed.";
}

function rowOf(item, place, cards, scale) {
  const card = cards.get(item.id);
  const { name, rest } = titleParts(card.title);
  const why = (item.reasons ?? []).filter((reason) => reason.effect !== 0);
  return el("li", { className: "row", "data-id": item.id, "data-category": card.category ?? "" },
    el("span", { className: "place", textContent: place + 1 }),
    moveOf(item.id, place),
    tile(card),
    el("div", { className: "what" },
      el("button", {
        className: "title", type: "button", textContent: name, "data-act": "view",
        "aria-label": `View ${card.title}`,
      }),
      el("p", { className: "rest", textContent: rest || (card.category ? sentence(card.category) : "") }),
      chancesOf(item),
    ),
    scoresOf(item, scale),
    el("div", { className: "row-acts" },
      actButton("cart", "Add", `Add ${card.title} to the cart`),
      actButton("purchase", "Buy", `Buy ${card.title}`)),
    why.length ? el("p", { className: "why" }, ...whyParts(why, cards)) : null,
  );
}

const actButton = (type, text, label) => el("button", {
  type: "button", textContent: text, "data-act": type, "aria-label": label, className: type,
});

function whyParts(reasons, cards) {
  const verb = ({ event_type: type }) => VERBS[type] ?? type;
  return reasons.slice(0, 2).flatMap((reason, at) => [
    at === 0 ? "You " : ", ",
    at > 0 && verb(reason) === verb(reasons[at - 1]) ? "" : `${verb(reason)} `,
    el("em", { textContent: titleParts(cards.get(reason.item_id).title).name }),
    el("span", {
      className: reason.effect < 0 ? "effect down" : "effect up", textContent: ` ${signed(reason.effect)}`,
    }),
  ]);
}

/** The probabilities that the model gives, of one that gives some. */
function chancesOf({ probabilities }) {
  const found = Object.entries(probabilities ?? {});
  return found.length ? el("p", {
    className: "chances",
    textContent: found.map(([what, p]) => `${sentence(what.replaceAll("_", " "))} ${percent(p)}`).join(" · "),
  }) : null;
}

/** How far an item came since the list before. */
function moveOf(id, place) {
  if (before === null) return el("span", { className: "move" });
  const then = before.get(id);
  if (then === undefined) {
    return el("span", { className: "move up", textContent: "new", title: "From below the first 50" });
  }
  if (then === place) return el("span", { className: "move same", "aria-label": "unmoved" });
  const up = then > place;
  const far = Math.abs(then - place);
  return el("span", { className: `move ${up ? "up" : "down"}` },
    el("span", { "aria-hidden": "true", textContent: `${up ? "▲" : "▼"} ${far}` }),
    el("span", { className: "hidden", textContent: `${up ? "up" : "down"} by ${far}` }));
}

function scaleOf(items) {
  const values = items.flatMap((item) => [item.score, item.prior_score]);
  const low = Math.min(...values);
  const span = Math.max(...values) - low || 1;
  return (value) => 4 + (92 * (value - low)) / span;
}

/** The score for anybody as a ring, the visitor's as a dot, and the way from one to the other. */
function scoresOf(item, at) {
  const [prior, score] = [at(item.prior_score), at(item.score)];
  const gain = item.score - item.prior_score;
  const moved = Math.abs(gain) >= 0.005;
  return el("div", { className: "scores" },
    svg("svg", { viewBox: "0 0 100 14", class: "dumbbell", "aria-hidden": "true" },
      svg("line", { x1: 0, x2: 100, y1: 7, y2: 7, class: "track" }),
      svg("line", { x1: prior, x2: score, y1: 7, y2: 7, class: gain < 0 ? "way down" : "way up" }),
      svg("circle", { cx: prior, cy: 7, r: 3.2, class: "prior" }),
      svg("circle", { cx: score, cy: 7, r: 4, class: "score" })),
    el("p", { className: "numbers" },
      el("span", { className: "hidden", textContent: "Score " }),
      el("b", { textContent: item.score.toFixed(2).replace("-", "−") }),
      el("span", {
        className: moved ? (gain < 0 ? "down" : "up") : "same",
        textContent: moved ? ` ${signed(gain)}` : " unmoved",
      })));
}

/** Replaces the rows; each slides from where it was, unless the visitor wants no motion. */
function moved(list, rows) {
  const tops = new Map([...list.children].map((row) => [row.dataset.id, row.offsetTop]));
  replaceRows(list, rows);
  if (!tops.size || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  for (const row of rows) {
    const from = tops.get(row.dataset.id);
    const way = from === undefined ? 40 : from - row.offsetTop;
    if (way === 0) continue;
    row.animate(
      [{ transform: `translateY(${way}px)`, opacity: from === undefined ? 0 : 1 }, { transform: "none" }],
      { duration: 450, easing: "cubic-bezier(.2,.8,.2,1)" });
  }
}

function showGone(ids, cards) {
  byId("gone").replaceChildren(...(ids.length ? ["Left the ten: ", ids.map((id) =>
    `${titleParts(cards.get(id).title).name} (was ${before.get(id) + 1})`).join(", ")] : []));
}

function showFacts(answer, took) {
  const facts = [
    ["Round trip", `${took.toFixed(0)} ms`],
    ["In the server", `${answer.took_ms.toFixed(1)} ms`],
    ["State version", answer.state_version],
    ["Support size", answer.n_support],
  ];
  byId("facts").replaceChildren(...facts.map(([name, value]) =>
    el("div", {}, el("dt", { textContent: name }), el("dd", { textContent: value }))));
  const state = byId("list-state");
  state.textContent = answer.fallback === "store" ? "store is down"
    : answer.fallback === "prior" ? "for anybody" : "adapted to you";
  state.classList.toggle("on", answer.fallback === null);
  byId("list-note").textContent = answer.fallback === "prior"
    ? "Nothing is known of you: what anybody would be shown. Buy something and watch."
    : "The ring is an item's score for anybody, the dot its score for you.";
  byId("model").textContent = `Model ${answer.model_version}, catalogue version ${answer.catalogue_version}.`;
}

/** What share of the list each category has, beside its share of the list for anybody. */
function showTaste(answer, cards) {
  const now = shares(cards.map(groupOf));
  if (answer.fallback === "prior") anybody = now;
  const box = byId("taste-box");
  box.hidden = anybody === null || answer.fallback !== null;
  if (box.hidden) return;
  const names = [...new Set([...now.keys(), ...anybody.keys()])];
  const change = (name) => (now.get(name) ?? 0) - (anybody.get(name) ?? 0);
  names.sort((a, b) => Math.abs(change(b)) - Math.abs(change(a)));
  const shown = names.slice(0, MAX_BARS).sort((a, b) => change(b) - change(a));
  const most = Math.max(...shown.flatMap((n) => [now.get(n) ?? 0, anybody.get(n) ?? 0]));
  byId("taste").replaceChildren(...shown.map((name) =>
    bar(sentence(name), now.get(name) ?? 0, anybody.get(name) ?? 0, most)));
}

function bar(name, now, then, most) {
  const wide = (share) => (100 * share) / most;
  const percent = (share) => `${(100 * share).toFixed(0)}%`;
  return el("li", {},
    el("span", { className: "bar-name", textContent: name }),
    svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true", class: "bar" },
      svg("rect", { x: 0, y: 0.5, width: wide(now), height: 5, class: "now" }),
      svg("rect", { x: 0, y: 6.5, width: wide(then), height: 3, class: "then" })),
    el("span", { className: "bar-count", textContent: percent(now) },
      el("span", { className: "hidden", textContent: ` now, ${percent(then)} for anybody` })));
}

/** Value -> its share of the places, each worth 1 / log2(place + 1), as nDCG has it. */
function shares(values) {
  const worth = values.map((_, at) => 1 / Math.log2(at + 2));
  const all = worth.reduce((sum, one) => sum + one, 0);
  const found = new Map();
  values.forEach((value, at) => found.set(value, (found.get(value) ?? 0) + worth[at] / all));
  return found;
}
