// The shelf: items to view, put in the cart and buy, by category or by a search's words.

import { get } from "./api.js";
import { cardsOf, remember } from "./cards.js";
import { byId, counted, el, replaceRows, sentence, titleParts } from "./dom.js";
import { hueOf, tile } from "./tiles.js";
import { ranked, wasShown } from "./visitor.js";

const A_PAGE = 12;
const NUM_CHIPS = 7;
const MAX_HITS = 96; // that a search ranks; the service gives no more at once

const shelf = { category: null, words: "", offset: 0 };
let shop; // what the service says of its items
let setup; // {act, guarded, variant(), scenarios()}

/** Fills the shelf and its controls. */
export async function openShop(facts, wiring) {
  shop = facts;
  setup = wiring;
  byId("shelf-note").textContent =
    `${counted(shop.num_items, "item")}, the most liked first. ${learnsFrom(shop.adapts_to)}`;
  drawCategories();
  byId("category").onchange = setup.guarded((event) => choose(event.target.value || null));
  byId("more").onclick = setup.guarded(() => show({ more: true }));
  const submitted = setup.guarded(() => search(byId("words").value.trim()));
  byId("search").onsubmit = (event) => {
    event.preventDefault();
    submitted();
  };
  await show();
}

function learnsFrom(types) {
  const others = ["view", "cart", "purchase"].filter((type) => !types.includes(type));
  const known = `The model learns from: ${types.join(", ")}.`;
  return others.length ? `${known} Any ${others.join(" or ")} is kept for later training.` : known;
}

function drawCategories() {
  const { categories } = shop;
  document.querySelector(".filters").hidden = categories.length === 0;
  const chip = (name, text) => {
    const made = el("button", {
      type: "button", className: "chip", textContent: text, "data-category": name ?? "",
      "aria-pressed": String(name === shelf.category), onclick: setup.guarded(() => choose(name)),
    });
    if (name) made.style.setProperty("--hue", hueOf(name).toFixed(0));
    return made;
  };
  byId("chips").replaceChildren(chip(null, "Everything"),
    ...categories.slice(0, NUM_CHIPS).map(({ name }) => chip(name, sentence(name))));
  byId("category").replaceChildren(el("option", { value: "", textContent: "All categories" }),
    ...[...categories].sort((a, b) => a.name.localeCompare(b.name)).map(({ name, num_items: n }) =>
      el("option", { value: name, textContent: `${sentence(name)} (${n})` })));
}

async function choose(category) {
  shelf.category = category;
  shelf.words = "";
  byId("words").value = "";
  for (const chip of byId("chips").children) {
    chip.setAttribute("aria-pressed", String((chip.dataset.category || null) === category));
  }
  byId("category").value = category ?? "";
  await show();
}

async function show({ more = false } = {}) {
  shelf.offset = more ? shelf.offset + A_PAGE : 0;
  const { items, total } = await get("/playground/items", {
    category: shelf.category, offset: shelf.offset, n: A_PAGE, variant: setup.variant(),
  });
  remember(items);
  byId("search-note").hidden = true;
  const made = items.map((card) => cardOf(card));
  if (more) byId("shelf").append(...made);
  else replaceRows(byId("shelf"), made);
  byId("more").hidden = shelf.offset + items.length >= total;
}

/** `from` names the list that an item stands in, so that what follows counts as its doing. */
function cardOf(card, { moved = "", from = {} } = {}) {
  const { name, rest } = titleParts(card.title);
  const button = (type, text, label) => el("button", {
    type: "button", className: type, textContent: text, "aria-label": `${label} ${card.title}`,
    onclick: () => setup.act(type, card, from),
  });
  const price = card.price === undefined || card.price === null ? null
    : el("span", { className: "price", textContent: card.price.toFixed(2) });
  const picture = el("button", {
    type: "button", className: "picture", "aria-label": `View ${card.title}`,
    onclick: () => setup.act("view", card, from),
  }, tile(card));
  return el("li", { className: "card", "data-id": card.item_id, "data-category": card.category ?? "" },
    picture,
    moved ? el("span", { className: "hit-move", textContent: moved }) : null,
    el("p", { className: "kind", textContent: card.category ? sentence(card.category) : "" }),
    el("p", { className: "name", textContent: name, title: card.title }),
    el("p", { className: "rest" }, price, rest),
    el("div", { className: "card-acts" }, button("cart", "Add", "Add to the cart:"),
      button("purchase", "Buy", "Buy")));
}

/** Hits by their words, in the visitor's order: by the search head, where the model has one. */
export async function search(words) {
  if (!words) return choose(null);
  shelf.words = words;
  const { items, total } = await get("/playground/items", { words, n: MAX_HITS, variant: setup.variant() });
  remember(items);
  const note = byId("search-note");
  note.hidden = false;
  byId("more").hidden = true;
  if (!items.length) {
    note.textContent = `Nothing here is called “${words}”.`;
    byId("shelf").replaceChildren();
    return undefined;
  }
  const has = setup.scenarios().includes("search");
  const ids = items.map((card) => card.item_id);
  const { answer } = await ranked(ids, {
    scenario: has ? "search" : "recommend", query: has ? words : undefined, variant: setup.variant(),
    events: [{ event_type: "search", query: words }],
  });
  const order = answer.items.map((item) => item.id);
  const moved = order.filter((id, place) => ids[place] !== id).length;
  note.replaceChildren(
    el("b", { textContent: `${counted(total, "hit")} for “${words}”` }),
    `${total > ids.length ? `, the ${ids.length} most liked of them` : ""} in your order: `,
    moved ? `${counted(moved, "item")} stand elsewhere than for anybody. ` : "as for anybody, so far. ",
    has ? "" : "This model has no search head: the words choose the hits and your taste orders them. "
      + "Train an artifact for the scenario search to have the words weigh in the order.");
  replaceRows(byId("shelf"), (await cardsOf(order)).map((card, place) => {
    const way = ids.indexOf(card.item_id) - place;
    return cardOf(card, {
      moved: way === 0 ? "" : `${way > 0 ? "▲" : "▼"} ${Math.abs(way)}`,
      from: { ranking_id: answer.recommendation_id, position: place },
    });
  }));
  wasShown(answer, A_PAGE); // the first screen: more would crowd what the visitor did out of the log
  return undefined;
}

/** Orders a search anew after the visitor did something; a category stays as it is. */
export const refreshSearch = async () => (shelf.words ? search(shelf.words) : undefined);

export const shownItems = () => [...byId("shelf").children].map((card) => card.dataset.id);
