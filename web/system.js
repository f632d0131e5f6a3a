// Processes, pool and health.

import { $, bytes, duration, h, keyed, text } from "./dom.js";

const TONE = { running: "good", restarting: "warn", failed: "bad" };
const HISTORY = 60;
const history = [];
const pids = new Map();

/** The table of processes. A row whose process was replaced lights up for a moment. */
export function showProcesses(rows) {
  const running = rows.filter((row) => row.state === "running").length;
  text($("process-count"), `${running} running`);
  const seen = new Map();
  const named = rows.map((row) => {
    const count = (seen.get(row.name) ?? 0) + 1;
    seen.set(row.name, count);
    return { ...row, key: row.supervised ? row.name : `${row.name} ${row.pid}` };
  });
  const cell = (kind) => h("td", kind ? { class: kind } : {});
  const create = () => {
    const row = h("tr", {}, cell(), cell("n"), cell(), cell("n"), cell("n wide"), cell("n"), cell("n wide"));
    row.children[2].append(h("span", { class: "chip" }));
    return row;
  };
  keyed($("processes"), named, (row) => row.key, create, (element, row) => {
    const [name, pid, state, restarts, up, blocks, memory] = element.children;
    const before = pids.get(row.key);
    if (before && row.pid && before !== row.pid) {
      element.classList.remove("fresh");
      void element.offsetWidth; // begin the animation anew
      element.classList.add("fresh");
    }
    if (row.pid) pids.set(row.key, row.pid);
    text(name, row.name);
    text(pid, row.pid ?? "–");
    state.firstChild.dataset.tone = TONE[row.state] ?? "idle";
    state.firstChild.title = row.last_exit ? `ended the last time: ${row.last_exit}` : "";
    text(state.firstChild, row.state);
    text(restarts, row.restarts ?? "–");
    text(up, duration(row.up_ms));
    text(blocks, row.blocks_held ?? "–");
    text(memory, bytes(row.bytes_held));
  });
  for (const key of pids.keys()) if (!named.some((row) => row.key === key)) pids.delete(key);
}

/** The gauge, the audit and the curve of blocks in use. */
export function showPool({ info, audit }) {
  const share = info.bytes_total > 0 ? info.bytes_in_use / info.bytes_total : 0;
  const percent = Math.round(share * 1000) / 10;
  text($("pool-used"), bytes(info.bytes_in_use));
  text($("pool-total"), bytes(info.bytes_total));
  text($("pool-blocks"), info.blocks_in_use);
  const gauge = $("gauge");
  gauge.dataset.tone = share > 0.9 ? "bad" : share > 0.7 ? "warn" : "good";
  gauge.setAttribute("aria-valuenow", percent);
  gauge.setAttribute("aria-valuetext", `${percent} percent`);
  gauge.firstElementChild.style.transform = `scaleX(${Math.max(share, share > 0 ? 0.004 : 0)})`;
  const chip = $("audit");
  chip.dataset.tone = audit.ok ? "good" : "bad";
  chip.title = `${audit.blocks} blocks: ${audit.free} free, ${audit.held} held, ${audit.queued} under way`;
  text(chip, audit.ok ? "audit balances" : "audit finds faults");
  const problems = $("problems");
  problems.hidden = audit.ok;
  const shown = audit.problems.slice(0, 5).map((sentence, index) => ({ sentence, index }));
  keyed(problems, shown, (p) => p.index, () => h("li"), (item, p) => text(item, p.sentence));
  history.push(info.blocks_in_use);
  if (history.length > HISTORY) history.shift();
  const top = Math.max(...history, 1) * 1.25;
  const points = history.map((n, i) => `${(120 * (HISTORY - history.length + i)) / (HISTORY - 1)},${30 - (28 * n) / top}`);
  $("spark").firstElementChild.setAttribute("points", points.join(" "));
}

const NAMES = { wmits: "the orchestrator (wmits)", preview: "preview", up: "the supervisor", rmmt: "the memory pool" };

/** The state in the header. `null`: no answer. */
export function showHealth(health) {
  const element = $("health");
  const missing = (health?.down ?? []).map((name) => NAMES[name] ?? name).join(", ");
  const [state, sentence] = !health
    ? ["down", "Reconnecting …"]
    : health.status === "ok"
      ? ["ok", "All systems running"]
      : health.status === "degraded"
        ? ["degraded", `Away: ${missing}`]
        : ["down", `Reconnecting: ${missing}`];
  element.dataset.state = state;
  text(element.lastElementChild, sentence);
}
