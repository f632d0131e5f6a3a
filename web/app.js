// The page: polls for lists, events for numbers, one live picture. Everything comes back by itself.

import { ask, poll } from "./api.js";
import { $, h, keyed, text } from "./dom.js";
import { LivePicture, LiveResults } from "./live.js";
import { showHealth, showPool, showProcesses } from "./system.js";
import { tasksView } from "./tasks.js";

const CLASSES = ["car", "truck", "bus", "motorcycle", "bicycle", "person"];
let chosen = null; // the task that is looked at
let shownStream = null;
let times = []; // when the last pictures came

const boxes = $("boxes");
const picture = new LivePicture($("live-image"), showState, (now) => {
  times = [...times.filter((time) => now - time < 3000), now];
});
const results = new LiveResults(showResult);
const tasks = tasksView({ choose, refresh: () => refreshTasks() });
const refreshTasks = poll(1500, async () => {
  const list = await ask("/api/tasks");
  const still = list.find((task) => task.id === chosen?.id);
  choose(still ?? list.find((task) => task.state === "running") ?? list[0] ?? null);
  tasks.update(list, chosen?.id);
});
poll(2000, async () => showProcesses(await ask("/api/processes")));
poll(2000, async () => showPool(await ask("/api/pool")));
poll(1500, async () => {
  try {
    showHealth(await ask("/healthz", { evenIf: [503] }));
  } catch (refusal) {
    showHealth(null);
    throw refusal;
  }
});
setInterval(showRates, 500);
showResult(null);

function choose(task) {
  const other = task?.id !== chosen?.id;
  chosen = task;
  if (other || task?.stream !== shownStream) watch();
  text($("live-source"), task ? task.id : "no stream chosen");
  if (other) for (const row of $("task-list").children) row.dataset.chosen = row.dataset.key === task?.id;
  showRates();
}

function watch() {
  shownStream = chosen?.stream ?? null;
  times = [];
  const snapshot = $("snapshot");
  if (shownStream === null || document.hidden) {
    picture.stop();
    results.stop();
    if (shownStream === null) showResult(null);
    snapshot.removeAttribute("href");
    snapshot.setAttribute("aria-disabled", "true");
    return;
  }
  picture.show(shownStream, boxes.checked);
  results.show(shownStream);
  snapshot.href = `/api/streams/${shownStream}/snapshot.jpg?annotated=${boxes.checked ? 1 : 0}`;
  snapshot.removeAttribute("aria-disabled");
}

boxes.addEventListener("change", watch);
document.addEventListener("visibilitychange", watch); // a hidden page costs nobody anything

function showState(state, sentence) {
  const card = $("live");
  if (card.dataset.state !== state) card.dataset.state = state;
  const failed = chosen?.state === "failed" && state !== "live";
  text($("notice"), failed ? chosen.reason ?? sentence : sentence);
}

function showRates() {
  const now = performance.now();
  const recent = times.filter((time) => now - time < 3000);
  const span = recent.length > 1 ? recent.at(-1) - recent[0] : 0;
  text($("fps"), span > 0 && now - recent.at(-1) < 1500 ? ((1000 * (recent.length - 1)) / span).toFixed(1) : "–");
  const ms = (value) => (value === undefined ? "–" : value < 10 ? value.toFixed(1) : Math.round(value));
  text($("p50"), ms(chosen?.latency?.p50_ms));
  text($("p95"), ms(chosen?.latency?.p95_ms));
}

function showResult(result) {
  const counts = new Map((result?.counts ?? []).map((count) => [count.class, count]));
  const speed = result?.mean_speed_px_s;
  const tiles = CLASSES.map((name) => ({ name, now: counts.get(name)?.now, total: counts.get(name)?.total }));
  const create = (tile) => h("div", {}, h("dt", {}, h("i", { class: `k-${tile.name}`, "aria-hidden": "true" }), tile.name),
    h("dd", {}, h("span"), " ", h("small")));
  const list = [...tiles, { name: "speed" }];
  keyed($("tiles"), list, (tile) => tile.name, (tile) => tile.name === "speed"
    ? h("div", { class: "speed" }, h("dt", {}, "Mean speed"), h("dd", {}, h("span"), " ", h("small", {}, "px/s, in the picture")))
    : create(tile), (element, tile) => {
    const number = element.querySelector("dd span");
    if (tile.name === "speed") return text(number, typeof speed === "number" ? speed.toFixed(0) : "–");
    text(number, result ? tile.now ?? 0 : "–");
    text(element.querySelector("small"), result ? `now, ${tile.total ?? 0} in all` : "now");
  });
}

const theme = $("theme");
function setTheme(name) {
  document.documentElement.dataset.theme = name;
  text(theme, name === "dark" ? "Light" : "Dark");
  theme.setAttribute("aria-pressed", name === "light");
  theme.setAttribute("aria-label", `Switch to the ${name === "dark" ? "light" : "dark"} theme`);
}
theme.addEventListener("click", () => {
  const name = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  setTheme(name);
  try { localStorage.setItem("theme", name); } catch { /* not kept, then */ }
});
let kept = null;
try { kept = localStorage.getItem("theme"); } catch { /* storage is off */ }
setTheme(kept === "light" ? "light" : "dark");
