// The operator's page: which models answer whom, and what followed from their lists.

import { get } from "./api.js";
import { lineChart } from "./chart.js";
import { dayChart } from "./days.js";
import { byId, counted, el, percent, say, svg, table } from "./dom.js";
import { watch } from "./now.js";

const WIDEST = 0.001; // a rate axis is never narrower, so that no rates at all can be drawn

async function show() {
  byId("main").setAttribute("aria-busy", "true");
  try {
    const [models, experiments, metrics] = await Promise.all([
      get("/v1/models"),
      get("/v1/experiments"),
      get("/v1/metrics/online", {
        click_hours: byId("click-hours").value, conversion_hours: byId("conversion-hours").value,
      }),
    ]);
    showModels(models, experiments);
    showLive(metrics);
  } catch (error) {
    say(error.message, { wrong: true });
  } finally {
    byId("main").setAttribute("aria-busy", "false");
  }
}

// --- what follows

function showLive(metrics) {
  const names = Object.keys(metrics.variants);
  const { alarm, p } = metrics.sample_ratio;
  byId("split").textContent = alarm ? `the split is off (p ${p.toPrecision(1)})` : "the split is as declared";
  byId("split").className = alarm ? "badge alarm" : "badge on";
  const open = names.reduce((sum, name) => sum + metrics.variants[name].open, 0);
  byId("live-note").textContent =
    `As of ${new Date(metrics.as_of_ms).toLocaleString("en-GB")}. An impression counts once its windows `
    + `are over; ${counted(open, "impression")} still open. Intervals are of 95%.`;
  if (!names.length) {
    byId("live").replaceChildren(el("p", {
      className: "notice",
      textContent: "No impressions yet. Shop a little; or send what is shown as impression events "
        + "with the answer's recommendation_id as ranking_id.",
    }));
  } else {
    byId("live").replaceChildren(liveTable(metrics.variants));
  }
  showInterleavings(metrics.interleavings);
  byId("days").replaceChildren(dayChart(metrics.days, metrics.as_of_ms));
}

function liveTable(variants) {
  const rows = Object.entries(variants).flatMap(([name, found]) => [
    { name, found },
    ...scenariosOf(found).map(([scenario, part]) => ({ name, scenario, found: part })),
  ]);
  const highest = (rate) => Math.max(WIDEST, ...rows.map(({ found }) => found[rate].high));
  const [clicks, sales] = [highest("users_clicked"), highest("users_converted")];
  const heads = ["Variant", "Users", "Impressions", "Clicks", "Purchases", "Users who clicked",
    "Users who bought"];
  const several = Object.keys(variants).length > 1;
  if (several) heads.push("Less those of the default");
  return table(heads, rows.map(({ name, scenario, found }) =>
    el("tr", { className: scenario ? "part" : "" },
      el("th", { scope: "row", textContent: scenario ?? name }),
      ...[found.users, found.impressions].map(number),
      number(`${found.clicks} (${percent(found.click_rate.value)})`),
      number(`${found.conversions} (${percent(found.conversion_rate.value)})`),
      el("td", {}, whisker(found.users_clicked, clicks)),
      el("td", {}, whisker(found.users_converted, sales)),
      several ? el("td", {}, changes(found)) : null)));
}

/** What lists were for, where a variant had several ends or another than to recommend. */
function scenariosOf({ scenarios }) {
  const found = Object.entries(scenarios);
  return found.length > 1 || !scenarios.recommend ? found : [];
}

const number = (value) => el("td", { className: "number", textContent: value.toLocaleString("en") });

/** A share as a dot on its interval. */
function whisker({ value, low, high }, highest) {
  const at = (share) => 3 + (94 * share) / highest;
  return el("div", { className: "whisker" },
    svg("svg", { viewBox: "0 0 100 12", preserveAspectRatio: "xMinYMid", "aria-hidden": "true" },
      svg("line", { x1: 0, x2: 100, y1: 6, y2: 6, class: "track" }),
      svg("line", { x1: at(low), x2: at(high), y1: 6, y2: 6, class: "span" }),
      value === null ? "" : svg("circle", { cx: at(value), cy: 6, r: 4, class: "score" })),
    el("span", { textContent: `${percent(value)} (${percent(low)} to ${percent(high)})` }));
}

function changes(found) {
  const of = (change, what) => (change ? el("p", {
    className: change.is_clear ? (change.value < 0 ? "down" : "up") : "rest",
    textContent: `${what} ${change.value > 0 ? "+" : ""}${percent(change.value)}${
      change.is_clear ? "" : ", not clear"}`,
  }) : null);
  return el("div", {}, of(found.users_clicked_change, "clicked"),
    of(found.users_converted_change, "bought"));
}

function showInterleavings(found) {
  byId("interleavings").replaceChildren(...(found.length ? [
    el("h3", { textContent: "Two variants in one list" }),
    el("ul", {}, ...found.map((one) => el("li", {
      textContent: `${one.first} was preferred by ${counted(one.prefer_first, "user")}, ${one.second} by `
        + `${one.prefer_second}, ${one.ties} took as many of each (p ${one.p.toPrecision(2)})`,
    })))] : []));
}

// --- what answers

function showModels({ variants, catalogue_version: version }, experiments) {
  byId("catalogue").textContent = `Catalogue version ${version}; users are dealt by the salt “${experiments.salt}”.`;
  byId("models").replaceChildren(...Object.entries(variants).map(([name, facts]) =>
    card(name, facts, experiments.variants[name])));
}

function card(name, facts, dealt) {
  const said = [
    ["Model", facts.model_version],
    ["Share of users", dealt ? percent(dealt.share) : "none"],
    ["Items", facts.n_items.toLocaleString("en")],
    ["Scenarios", facts.scenarios.join(", ")],
    ["May be told of", facts.event_types.join(", ")],
    ["Adapts to the last", counted(facts.max_events, "event")],
  ];
  const curve = facts.metrics["validation_ndcg@10"];
  return el("article", { className: "model" },
    el("h3", { textContent: facts.is_default && name !== "default" ? `${name} (the default)` : name }),
    el("dl", { className: "card-facts" }, ...said.flatMap(([key, value]) =>
      [el("dt", { textContent: key }), el("dd", { textContent: value })])),
    curve ? el("figure", {},
      el("figcaption", { textContent: "nDCG@10 of validation users by support size" }),
      el("div", { className: "chart" }, curveOf(curve)),
      el("p", {
        className: "note",
        textContent: "What a user has is not recommended again, so that less is left to find.",
      })) : null);
}

function curveOf(curve) {
  const at = Object.keys(curve).map(Number).sort((a, b) => a - b);
  const values = at.map((size) => curve[size]);
  const highest = Math.max(0.2, Math.ceil(Math.max(...values) * 5) / 5);
  return lineChart([{ name: "nDCG@10", className: "ours", values }],
    { steps: at.at(-1), highest, at });
}

byId("windows").onsubmit = (event) => {
  event.preventDefault();
  show();
};
show();
watch();
