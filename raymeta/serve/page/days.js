// Events a day as bars, impressions above what users did. Colours are the style sheet's.

import { counted, svg } from "./dom.js";

const DAYS = 30;
const DAY_MS = 86_400_000;
const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [960, 150, 44, 22, 8];

/** The days up to `untilMs`, those without events too. */
export function dayChart(days, untilMs) {
  const found = new Map(days.map(({ day, events }) => [day, events]));
  const shown = Array.from({ length: DAYS }, (_, at) =>
    new Date(untilMs - (DAYS - 1 - at) * DAY_MS).toISOString().slice(0, 10));
  const counts = shown.map((day) => {
    const { impression = 0, ...acts } = found.get(day) ?? {};
    return { impressions: impression, acts: Object.values(acts).reduce((sum, n) => sum + n, 0) };
  });
  const highest = Math.max(1, ...counts.map(({ impressions, acts }) => impressions + acts));
  const all = counts.reduce((sum, { impressions, acts }) => sum + impressions + acts, 0);
  const chart = svg("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img",
    "aria-label": `${counted(all, "event")} in ${DAYS} days, at most ${counted(highest, "event")} on one`,
  });
  const step = (WIDTH - LEFT) / DAYS;
  const high = (count) => ((HEIGHT - TOP - BOTTOM) * count) / highest;
  for (const value of [0, highest]) {
    const y = HEIGHT - BOTTOM - high(value);
    chart.append(svg("line", { x1: LEFT, x2: WIDTH, y1: y, y2: y, class: "grid" }),
      svg("text", { x: LEFT - 6, y: y + 4, class: "tick end" }, value.toLocaleString("en")));
  }
  counts.forEach(({ impressions, acts }, at) => {
    const x = LEFT + at * step + 2;
    const foot = HEIGHT - BOTTOM;
    const bar = (from, count, kind) => svg("rect", {
      x, width: step - 4, y: foot - high(from + count), height: high(count), class: kind,
    });
    chart.append(svg("g", {},
      svg("title", {}, `${shown[at]}: ${counted(acts, "act")}, ${counted(impressions, "impression")}`),
      bar(0, acts, "now"), bar(acts, impressions, "then")));
    if ((DAYS - 1 - at) % 7 === 0) {
      chart.append(svg("text", { x: x + step / 2 - 2, y: HEIGHT - 5, class: "tick middle" }, shown[at].slice(5)));
    }
  });
  return chart;
}
