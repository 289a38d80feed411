// A real history, event by event: our list after each, beside baselines, against what came later.

import { call, get } from "./api.js";
import { cardsOf } from "./cards.js";
import { byId, el, titleParts } from "./dom.js";
import { lineChart } from "./chart.js";
import { tile } from "./tiles.js";
import { randomHex } from "./visitor.js";

const CUTOFF = 10;
const PAUSE_MS = 500;
const LINES = [
  { key: "ours", name: "raymeta, adapted", className: "ours" },
  { key: "item_knn", name: "item-kNN, tuned", className: "knn" },
  { key: "popularity", name: "popularity", className: "popular" },
];

let households = [];
let variantOf;
let run = null; // {household, user, step, ours: [nDCG, ...], timer}

export async function openReplay(facts, { variant, guarded }) {
  variantOf = variant;
  byId("replay-body").hidden = !facts.can_replay;
  const missing = byId("replay-missing");
  missing.hidden = facts.can_replay;
  if (!facts.can_replay) {
    missing.textContent = "This service was started without households, or they belong to another "
      + "model. Start it with: raymeta serve ARTIFACT --playground DATA_DIR";
    return;
  }
  ({ households } = await get("/playground/households"));
  byId("household").replaceChildren(...households.map(({ user_id: id, events }, at) => el("option", {
    value: at, textContent: `${id} (${events.length} events)`,
  })));
  byId("household").onchange = guarded(begin);
  byId("restart").onclick = guarded(begin);
  byId("step").onclick = guarded(() => { pause(); return inTurn(step); });
  byId("play").onclick = guarded(() => (run.timer === null ? play(guarded(() => inTurn(step))) : pause()));
  await begin();
}

/** A user of its own for each run, so that nothing is left of the run before. */
async function begin() {
  if (run) {
    pause();
    forget(run.user);
  }
  const household = households[Number(byId("household").value)];
  run = {
    household, user: `replay-${randomHex(5)}`, step: 0, ours: [], timer: null, turn: Promise.resolve(),
  };
  byId("replay-event").textContent = "None yet: the list is the one for anybody.";
  await inTurn(() => ask([], 0));
}

/** Runs after what this run began before: a hurried visitor's events stay in their order. */
function inTurn(work) {
  const mine = run;
  const done = mine.turn.then(() => (run === mine ? work() : undefined));
  mine.turn = done.catch(() => {});
  return done;
}

function play(safeStep) {
  const mine = run;
  byId("play").textContent = "Pause";
  mine.timer = -1;
  const next = async () => {
    await safeStep();
    if (run === mine && mine.timer !== null) mine.timer = setTimeout(next, PAUSE_MS);
  };
  return next();
}

function pause() {
  clearTimeout(run.timer);
  run.timer = null;
  byId("play").textContent = "Play";
}

async function step() {
  const { household, step: at } = run;
  if (at >= household.events.length) return pause();
  const event = household.events[at];
  const [card] = await cardsOf([event.item_id]);
  byId("replay-event").replaceChildren(tile(card), el("span", {},
    `${event.event_type}: ${card.title}`,
    el("small", { textContent: new Date(event.timestamp).toLocaleString("en-GB", {
      dateStyle: "medium", timeStyle: "short", timeZone: "UTC",
    }) })));
  await ask([{ ...event, event_id: `${at}` }], at + 1);
  return undefined;
}

/** What is still to be found: later positive items, less those that were met. */
function toFind({ events, positive, later }, after) {
  const met = new Set(events.slice(0, after).map((event) => event.item_id));
  const wanted = new Set(later);
  events.slice(after).forEach((event, at) => {
    if (positive[after + at]) wanted.add(event.item_id);
  });
  return new Set([...wanted].filter((id) => !met.has(id)));
}

/** nDCG@10 with binary gains; the ideal list has min(10, wanted) hits on top. */
export function ndcg(ids, wanted) {
  const discount = (place) => 1 / Math.log2(place + 2);
  const sum = (places) => places.reduce((total, place) => total + discount(place), 0);
  const hits = ids.slice(0, CUTOFF).map((id, place) => (wanted.has(id) ? place : -1));
  const ideal = sum([...Array(Math.min(CUTOFF, wanted.size)).keys()]);
  return ideal === 0 ? 0 : sum(hits.filter((place) => place >= 0)) / ideal;
}

/** The list after `step` events, the last of which go with the question. */
async function ask(events, step) {
  const mine = run;
  const request = { user_id: mine.user, n: CUTOFF, events };
  if (variantOf()) request.variant = variantOf();
  const { answer, took } = await call("POST", "/v1/recommend", request, { user: mine.user });
  const ids = answer.items.map((item) => item.id);
  const cards = await cardsOf(ids);
  if (run !== mine) return;
  mine.step = step;
  const wanted = toFind(mine.household, mine.step);
  mine.ours[mine.step] = ndcg(ids, wanted);
  byId("replay-list").replaceChildren(...cards.map((card) => shown(card, wanted.has(card.item_id))));
  const hits = ids.filter((id) => wanted.has(id)).length;
  byId("replay-progress").textContent =
    `${mine.step} of ${mine.household.events.length} events; ${hits} of the ten were bought later `
    + `(${took.toFixed(0)} ms)`;
  draw(mine);
  if (mine.step >= mine.household.events.length) pause();
}

function shown(card, hit) {
  const { name, rest } = titleParts(card.title);
  return el("li", { className: hit ? "hit" : "" },
    el("span", { className: "name", textContent: name }),
    el("span", { className: "rest", textContent: rest }),
    el("span", { className: "found", textContent: hit ? "bought later" : "" }));
}

function draw({ household, ours, step: at }) {
  const values = { ...household.ndcg_at_10, ours };
  const lines = LINES.filter(({ key }) => values[key]).map((line) => ({
    ...line, values: values[line.key].slice(0, at + 1),
  }));
  const mean = (numbers) => numbers.reduce((sum, one) => sum + one, 0) / numbers.length;
  const most = Math.max(...Object.values(values).flat());
  const highest = Math.max(0.2, Math.ceil(most * 5) / 5);
  byId("chart").replaceChildren(lineChart(lines, { steps: household.events.length, highest }));
  byId("legend").replaceChildren(...lines.map(({ name, className, values: so }) => el("li", { className },
    el("span", { className: "swatch" }),
    el("span", { textContent: name }),
    el("b", { textContent: so.at(-1).toFixed(2) }),
    el("span", { className: "rest", textContent: `mean ${mean(so).toFixed(2)}` }))));
}

/** Removes a run's user; a key that may not erase leaves it to the store's retention. */
function forget(user) {
  call("DELETE", `/v1/users/${user}`, undefined, { user }).catch(() => {});
}
