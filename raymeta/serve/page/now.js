// What all replicas do now, asked for as often as they hand their numbers over.

import { get, Refused } from "./api.js";
import { byId, counted, el, percent, table } from "./dom.js";

const EVERY_MS = 10_000;
const TIMES = { "since-start": "since_start", lately: "lately" };

let over = "since_start";
let last = null;

/** Shows the numbers from now on, while the page is looked at. */
export async function watch() {
  for (const [id, time] of Object.entries(TIMES)) {
    byId(id).onclick = () => {
      over = time;
      for (const other of Object.keys(TIMES)) byId(other).setAttribute("aria-pressed", String(other === id));
      show();
    };
  }
  for (;;) {
    if (!document.hidden) await look();
    await new Promise((resolve) => { setTimeout(resolve, EVERY_MS); });
  }
}

async function look() {
  try {
    last = await get("/ops/live");
    show();
  } catch (error) {
    if (!(error instanceof Refused) && !(error instanceof TypeError)) throw error;
    byId("now-note").textContent = error.message;
    byId("now-body").hidden = last === null; // what was seen last stays
  }
}

function show() {
  if (last === null) return;
  const numbers = last[over];
  byId("now-body").hidden = numbers === null;
  byId("now-note").textContent = numbers === null
    ? "There is something to compare with ten seconds after the page was opened."
    : `All replicas together, which hand their numbers over every ten seconds; ${
      numbers.seconds === null ? "counted since each of them started."
        : `of the last ${numbers.seconds.toFixed(0)} seconds.`}`;
  if (numbers === null) return;
  showFacts(numbers);
  byId("latency").replaceChildren(latencyTable(numbers));
  byId("fallbacks").replaceChildren(fallbackTable(numbers.answers));
}

function showFacts({ cache, answers }) {
  const lists = answers.reduce((sum, one) => sum + one.lists, 0);
  const anybody = answers.reduce((sum, one) => sum + one.fallback_rate * one.lists, 0);
  const facts = [
    ["Replicas", last.replicas],
    ["Requests at this moment", last.requests_in_progress],
    ["Lists answered", lists.toLocaleString("en")],
    ["Of them for anybody", lists ? percent(anybody / lists) : "–"],
    ["State found in memory", percent(cache.hit_rate)],
    ["Adapted users in memory", `${last.cached_states.toLocaleString("en")} (${size(last.state_cache_bytes)})`],
    ["Event store on disk", last.store_bytes === null ? "–" : size(last.store_bytes)],
    ["Models loaded", last.models_loaded_s === null ? "–" : ago(last.models_loaded_s)],
  ];
  byId("now-facts").replaceChildren(...facts.map(([name, value]) =>
    el("div", {}, el("dt", { textContent: name }), el("dd", { textContent: value }))));
}

function latencyTable({ routes, freshness }) {
  const row = (name, found, failed) => el("tr", {},
    el("th", { scope: "row", textContent: name }),
    ...[found.count.toLocaleString("en"), ms(found.p50_ms), ms(found.p95_ms), ms(found.p99_ms), failed]
      .map((text) => el("td", { className: "number", textContent: text })));
  const group = (text) => el("tr", { className: "group" },
    el("th", { scope: "rowgroup", colSpan: 6, textContent: text }));
  return table(["", "Count", "p50", "p95", "p99", "Failed"], [
    group("Requests"),
    ...routes.filter(({ route }) => route.startsWith("/v1/"))
      .map((found) => row(found.route, found, found.failed.toLocaleString("en"))),
    group("From an event to the list that reflects it"),
    ...Object.entries(freshness).map(([what, found]) => row(what, found, "")),
  ]);
}

const WHY = { prior: "nothing known of the user", store: "the store did not answer", adaptation: "adapting failed" };

function fallbackTable(answers) {
  return table(["Variant", "Lists", "For anybody", "Because"], answers.map((one) => el("tr", {},
    el("th", { scope: "row", textContent: one.variant }),
    el("td", { className: "number", textContent: one.lists.toLocaleString("en") }),
    el("td", { className: "number", textContent: percent(one.fallback_rate) }),
    el("td", {
      textContent: Object.entries(one.fallbacks)
        .map(([why, count]) => `${WHY[why] ?? why}: ${count.toLocaleString("en")}`).join("; ") || "–",
    }))));
}

const ms = (value) => (value === null ? "–" : `${value < 10 ? value.toFixed(1) : value.toFixed(0)} ms`);

const size = (bytes) => (bytes < 1e6 ? `${(bytes / 1e3).toFixed(0)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

function ago(at) {
  const minutes = Math.max(0, Math.round((Date.now() / 1000 - at) / 60));
  return minutes < 120 ? `${counted(minutes, "minute")} ago` : `${counted(Math.round(minutes / 60), "hour")} ago`;
}
