// The page: who visits, what is asked for, and what each act does. Leaves drawing to the others.

import { call, get, Refused } from "./api.js";
import { useVariant } from "./cards.js";
import { byId, counted, el, say, titleParts } from "./dom.js";
import { forgetMoves, showList } from "./list.js";
import { openReplay } from "./replay.js";
import { openShop, refreshSearch, shownItems } from "./shop.js";
import { forgotten, randomHex, ranked, recommended, visitorId, wasShown } from "./visitor.js";

const SCENARIOS = [
  ["recommend", "Recommend"], ["search", "Search"], ["ads", "Ads"], ["intent", "Intent"],
];
const DONE = { view: "Viewed", cart: "In the cart:", purchase: "Bought" };

const page = { models: null, variant: undefined, scenario: "recommend", cart: new Map() };

const DEALT = ""; // no variant is named: the visitor's id decides

const facts = () => Object.entries(page.models.variants)
  .find(([name, { is_default: isDefault }]) => (page.variant ? name === page.variant : isDefault))[1];

async function start() {
  byId("visitor-id").textContent = visitorId();
  page.models = await get("/v1/models");
  const names = Object.keys(page.models.variants);
  byId("variant-box").hidden = names.length < 2;
  byId("variant").replaceChildren(el("option", { value: DEALT, textContent: "as your id is dealt" }),
    ...names.map((name) => el("option", { value: name, textContent: name })));
  byId("variant").onchange = guarded((event) => open(event.target.value || undefined));
  byId("all-ten").onclick = () => {
    byId("list").classList.add("all");
    byId("all-ten").remove();
  };
  byId("forget").onclick = guarded(forgetMe);
  byId("open-cart").onclick = () => { drawCart(); byId("cart").showModal(); };
  byId("close-cart").onclick = () => byId("cart").close();
  byId("buy-cart").onclick = guarded(buyCart);
  // a visitor who is dealt the arm of an experiment that does not adapt would see nothing move
  const standard = names.find((name) => page.models.variants[name].is_default);
  if (names.length > 1) byId("variant").value = standard;
  await open(names.length > 1 ? standard : undefined);
}

/** Everything anew for one variant. */
async function open(variant) {
  page.variant = variant;
  useVariant(variant);
  forgetMoves();
  drawScenarios();
  const shop = await get("/playground/shop", { variant });
  const wiring = {
    act: guarded(act), guarded, variant: () => page.variant, scenarios: () => facts().scenarios,
  };
  await Promise.all([openShop(shop, wiring), firstList(), openReplay(shop, wiring)]);
}

/** The list for anybody comes first, so that the list for a visitor who returns is seen to move. */
async function firstList() {
  const { answer, took } = await call("POST", "/v1/session/recommend",
    { n: 50, variant: page.variant, explain: true });
  await showList(answer, took, guarded(act));
  await listAfter([]);
}

async function listAfter(events) {
  const { answer, took } = await recommended(events, { variant: page.variant });
  const moved = await showList(answer, took, guarded(act));
  guarded(() => wasShown(answer, numSeen()))();
  return moved;
}

/** Rows that are drawn: a narrow page draws fewer until it is asked for all. */
const numSeen = () => [...byId("list").children].filter((row) => row.offsetParent !== null).length;

/** One act of the visitor: its event goes with the question for the next list. */
async function act(type, card, from) {
  if (type === "cart") {
    page.cart.set(card.item_id, card);
    drawCart();
  }
  const moved = await listAfter([{ item_id: card.item_id, event_type: type, ...from }]);
  say(`${DONE[type]} ${titleParts(card.title).name}. ${moved}`);
  await refreshSearch();
}

async function buyCart() {
  const visit = randomHex(6);
  const events = [...page.cart.keys()].map((id) => ({
    item_id: id, event_type: "purchase", visit_id: visit,
  }));
  byId("cart").close();
  if (!events.length) return;
  const moved = await listAfter(events);
  page.cart.clear();
  drawCart();
  say(`Bought ${counted(events.length, "item")} at once. ${moved}`);
  await refreshSearch();
}

function drawCart() {
  byId("cart-count").textContent = page.cart.size;
  byId("buy-cart").disabled = page.cart.size === 0;
  byId("cart-items").replaceChildren(...(page.cart.size === 0
    ? [el("li", { className: "rest", textContent: "It is empty." })]
    : [...page.cart.values()].map((card) => el("li", {},
      el("span", { textContent: card.title }),
      el("button", {
        type: "button", textContent: "Remove", "aria-label": `Remove ${card.title}`,
        onclick: () => { page.cart.delete(card.item_id); drawCart(); },
      })))));
}

async function forgetMe() {
  const { answer } = await forgotten();
  page.cart.clear();
  drawCart();
  await listAfter([]);
  await refreshSearch();
  say(`Forgotten: ${counted(answer.events_erased, "event")} erased, receipt ${answer.receipt_id}.`);
}

function drawScenarios() {
  byId("scenarios").replaceChildren(...SCENARIOS.map(([name, text]) => {
    const has = facts().scenarios.includes(name);
    return el("button", {
      type: "button", className: has ? "tab" : "tab lacking",
      "aria-pressed": String(name === page.scenario), onclick: guarded(() => choose(name)),
    }, text, has ? null : el("span", { className: "hidden", textContent: " (not in this model)" }));
  }));
}

/** What a scenario gives; of one that the model lacks, what the service says is missing. */
async function choose(scenario) {
  page.scenario = scenario;
  drawScenarios();
  const notice = byId("scenario-notice");
  const show = (hidden, text) => {
    notice.hidden = !text;
    notice.textContent = text;
    for (const id of ["list", "facts", "gone", "taste-box", "list-note"]) {
      byId(id).classList.toggle("away", hidden);
    }
  };
  show(false, "");
  if (scenario === "recommend") return;
  if (scenario === "search") byId("words").focus();
  try {
    show(false, await tried(scenario));
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    show(scenario !== "search", error.message);
  }
}

async function tried(scenario) {
  const items = shownItems().slice(0, 50);
  if (scenario === "intent") {
    const request = { user_id: visitorId(), items, targets: ["purchase_intent"], variant: page.variant };
    const { answer, took } = await call("POST", "/v1/predict", request, { user: visitorId() });
    await showList(answer, took, guarded(act));
    return "How likely you are to buy what is on the shelf.";
  }
  const query = scenario === "search" ? byId("words").value.trim() || "new" : undefined;
  const { answer, took } = await ranked(items, { scenario, query, variant: page.variant });
  if (scenario === "search") return "Type a query: this model orders its hits for you.";
  await showList(answer, took, guarded(act));
  guarded(() => wasShown(answer, numSeen()))();
  return "What is on the shelf, as advertisements in your order: the likeliest click first.";
}

let underWay = 0;

/** An act that says it is under way, and tells the visitor of its failure. */
function guarded(work) {
  const busy = (change) => {
    underWay += change;
    byId("main").setAttribute("aria-busy", String(underWay > 0));
  };
  return async (...given) => {
    busy(1);
    try {
      await work(...given);
    } catch (error) {
      say(error.message, { wrong: true });
    } finally {
      busy(-1);
    }
  };
}

guarded(start)();
